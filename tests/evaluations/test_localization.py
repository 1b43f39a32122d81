"""Masks and boxes of attention against loops, torchvision and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torchvision.ops import box_iou as torchvisions
from torchvision.ops import masks_to_boxes

from mixbench.evaluations.localization import (
    area,
    attention_mask,
    box_iou,
    box_score,
    centre_box,
    enlarged,
    image_jaccard,
    jaccard,
    largest_part,
    placed,
    tight_box,
)


def kept_by_loop(attn, mass):
    """Leave the least attended patches out as long as what is left out stays within 1 - mass."""
    order = sorted(range(attn.size), key=lambda place: attn.flat[place])
    kept, left_out = np.ones(attn.size, bool), 0.0
    for place in order:
        left_out += attn.flat[place] / attn.sum()
        if left_out <= 1 - mass + 1e-12:
            kept[place] = False
    return kept.reshape(attn.shape)


@pytest.mark.parametrize("mass", [0.1, 0.6, 0.9, 1.0])
def test_masks_hold_the_mass(mass):
    attn = np.random.default_rng(0).gamma(0.5, size=(4, 7, 9))
    masks = attention_mask(attn, mass)
    for one, mask in zip(attn, masks, strict=True):
        assert np.array_equal(mask, kept_by_loop(one, mass))
        assert one[mask].sum() / one.sum() >= mass - 1e-9
    tensor = attention_mask(torch.from_numpy(attn), mass)
    assert tensor.dtype == torch.bool and np.array_equal(tensor.numpy(), masks)
    assert np.array_equal(attention_mask(attn * 7, mass), masks)


def test_a_mask_by_hand():
    attn = np.array([[0.5, 0.2], [0.25, 0.05]])
    assert attention_mask(attn, 0.9).tolist() == [[True, True], [True, False]]
    assert attention_mask(attn, 0.5).tolist() == [[True, False], [False, False]]


def test_boxes_are_torchvisions_with_their_last_pixel():
    rng = np.random.default_rng(1)
    for _ in range(20):
        mask = np.zeros((9, 12), bool)
        top, left = rng.integers(0, 8), rng.integers(0, 11)
        mask[top : top + rng.integers(1, 5), left : left + rng.integers(1, 6)] = True
        mask &= rng.uniform(size=mask.shape) < 0.7
        if not mask.any():
            continue
        [[x0, y0, x1, y1]] = masks_to_boxes(torch.from_numpy(mask)[None]).tolist()
        assert tight_box(mask) == tight_box(torch.from_numpy(mask)) == (y0, x0, y1 + 1, x1 + 1)


def test_iou_is_torchvisions():
    rng = np.random.default_rng(2)
    boxes = []
    for _ in range(12):
        top, left = (int(n) for n in rng.integers(0, 10, 2))
        high, wide = (int(n) for n in rng.integers(1, 9, 2))
        boxes.append((top, left, top + high, left + wide))
    turned = torch.tensor(
        [[left, top, right, bottom] for top, left, bottom, right in boxes]
    ).float()
    theirs = torchvisions(turned, turned)
    for i, a in enumerate(boxes):
        for j, b in enumerate(boxes):
            assert box_iou(a, b) == pytest.approx(float(theirs[i, j]), abs=1e-6)


@pytest.mark.parametrize("void", ["include", "exclude"])
def test_jaccard_is_scikit_learns(void):
    rng = np.random.default_rng(3)
    labels = rng.choice([0, 3, 7, 255], size=(20, 30))
    mask = rng.uniform(size=labels.shape) < 0.4
    counted = np.ones(labels.shape, bool) if void == "include" else labels != 255
    for label in (3, 7):
        expected = jaccard_score(labels[counted] == label, mask[counted])
        assert jaccard(mask, labels, label, void=void) == pytest.approx(expected)
    assert jaccard(mask, labels, 3) < jaccard(mask, labels, 3, void="exclude")
    assert jaccard(labels == 3, labels, 3) == 1


def test_what_is_refused():
    with pytest.raises(ValueError, match="mass must be above 0 and at most 1, not 0"):
        attention_mask(np.ones((2, 2)), 0)
    for broken in (np.zeros((2, 2)), np.full((2, 2), np.nan), np.array([[1.0, -0.5]])):
        with pytest.raises(ValueError, match="attention must be finite, not negative"):
            attention_mask(broken)
    with pytest.raises(ValueError, match="a box needs a mask"):
        tight_box(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="no pixel has label 9"):
        jaccard(np.ones((2, 2)), np.zeros((2, 2)), 9)
    with pytest.raises(ValueError, match="void must be one of include, exclude, not 'skip'"):
        jaccard(np.ones((2, 2)), np.zeros((2, 2)), 0, void="skip")
    with pytest.raises(ValueError, match="mask is of shape"):
        jaccard(np.ones((2, 3)), np.zeros((2, 2)), 0)


def test_the_largest_part_touches_at_its_sides():
    rng = np.random.default_rng(4)
    for _ in range(20):
        mask = rng.uniform(size=(6, 7)) < 0.5
        parts, left = [], {(int(y), int(x)) for y, x in np.argwhere(mask)}
        while left:  # by flooding
            part, border = set(), [min(left)]
            while border:
                y, x = border.pop()
                if (y, x) in left:
                    left.remove((y, x))
                    part.add((y, x))
                    border += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
            parts.append(part)
        expected = max(parts, key=len)
        assert {(int(y), int(x)) for y, x in np.argwhere(largest_part(mask))} == expected
    with pytest.raises(ValueError, match="without a patch has no part"):
        largest_part(np.zeros((2, 2), bool))


def test_boxes_in_an_image_by_hand():
    assert placed((1, 0, 3, 2), (4, 4), (0, 0, 80, 40)) == (20, 0, 60, 20)
    assert placed((1, 0, 3, 2), (4, 4), (10, 100, 50, 180)) == (20, 100, 40, 140)
    assert centre_box(0.25, 80, 40) == (20, 10, 60, 30)
    assert centre_box(1.0, 80, 40) == (0, 0, 80, 40)
    assert area(centre_box(0.5, 80, 40)) == pytest.approx(1600)


def test_the_score_of_several_true_boxes():
    truth = [(0, 0, 10, 10), (0, 10, 10, 30)]
    box = (0, 0, 10, 20)
    assert box_score(box, truth) == box_score(box, truth, "max") == pytest.approx(1 / 2)
    assert box_score(box, truth, "mean") == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert box_score(box, truth, "union") == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="no true box"):
        box_score(box, [])
    with pytest.raises(ValueError, match="multi must be one of max, mean, union, not 'all'"):
        box_score(box, truth, "all")


@pytest.mark.parametrize(("height", "width"), [(12, 12), (13, 11), (3, 4), (4, 40)])
def test_enlarged_is_torchs_nearest(height, width):
    masks = np.random.default_rng(5).uniform(size=(2, 3, 4, 5)) < 0.5
    theirs = torch.nn.functional.interpolate(torch.from_numpy(masks).float(), (height, width))
    assert np.array_equal(enlarged(masks, height, width), theirs.numpy() == 1)


@pytest.mark.parametrize("void", ["include", "exclude"])
def test_an_images_jaccard_is_of_each_labels_best_mask(void):
    rng = np.random.default_rng(6)
    labels = rng.choice([0, 3, 7, 255], size=(20, 30))
    masks = rng.uniform(size=(4, 20, 30)) < np.array([0.2, 0.4, 0.6, 0.8])[:, None, None]
    masks[1] |= labels == 7
    counted = np.ones(labels.shape, bool) if void == "include" else labels != 255
    scores = [
        [jaccard_score(labels[counted] == label, mask[counted]) for mask in masks]
        for label in (3, 7)
    ]
    assert np.argmax(scores[0]) != np.argmax(scores[1])
    expected = (max(scores[0]) + max(scores[1])) / 2
    assert image_jaccard(masks, labels, void) == pytest.approx(expected)
    assert np.isnan(image_jaccard(masks, np.where(labels == 255, 255, 0), void))
