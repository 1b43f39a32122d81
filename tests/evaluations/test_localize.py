"""mixbench eval localize: closed forms, torchvision, baselines, what is left out."""

import dataclasses

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, masks_to_boxes

from mixbench.data import annotated
from mixbench.data.boxes import open_boxes
from mixbench.data.scenes import SceneSource
from mixbench.evaluations.evaluation import Given, Subject
from mixbench.evaluations.localize import Localize
from mixbench.evaluations.voc_jaccard import VocJaccard
from mixbench.models.build import recipe_model
from mixbench.recipe import load_recipe
from mixbench.services.attention import attention_tap
from tests.support.boxes import image_net
from tests.support.looks import CPU, SMALL, blank, channels, flat, images_of, subject_of, values


def measured(root, subject, pixels, boxes, **options):
    folder = image_net(root, boxes, pixels=pixels)
    source, _ = open_boxes(f"imagenet:{folder}", 32, options.get("allow_missing", False))
    return Localize(**options).measure(subject, images_of(source), CPU)


def bright(*parts, height=32, width=32):
    """An image that is red in parts (rows, columns)."""
    image = blank(height, width)
    for rows, columns in parts:
        image[rows, columns, 0] = 255
    return image


def test_three_images_by_hand(tmp_path, monkeypatch):
    """Attention on rows 8..16, columns 4..16: the object itself, half of it, and an object apart.

    The second image is 64 x 16 pixels, so its patches are 8 x 2.
    """
    square = bright((slice(8, 16), slice(4, 16)))
    tall = bright((slice(16, 32), slice(2, 8)), height=64, width=16)
    boxes = [[(5, 9, 16, 16)], [(3, 17, 5, 32)], [(25, 25, 32, 32)]]
    subject = subject_of(monkeypatch, channels(4, 0))
    result = measured(tmp_path, subject, [square, tall, square], boxes)
    # by class and then by number: the first, the third, the second
    assert result.images["box_iou"] == pytest.approx([100, 0, 50])
    assert result.images["box_area"] == pytest.approx([100 * 96 / 1024] * 3)
    assert values(result, "box_iou")[""] == pytest.approx(50)
    assert values(result, "corloc")[""] == pytest.approx(100 * 2 / 3)
    full = [100 * 96 / 1024, 100 * 64 / 1024, 100 * 48 / 1024]
    assert result.images["box_iou full image"] == pytest.approx(full)
    # half the area is 22.6 of 32 pixels, from 4.69 on
    margin = 16 - 16 * np.sqrt(0.5)
    common = (16 - 8) * (16 - margin)
    iou = 100 * common / (512 + 96 - common)
    assert result.images["box_iou centre box .5"][0] == pytest.approx(iou)
    areas = values(result, "box_area")
    assert [areas[name] for name in ("full image", "centre box .5", "centre box .25")] == (
        pytest.approx([100, 50, 25])
    )
    common = 8 * 8  # rows and columns 8..24 with 8..16 and 4..16
    assert result.images["box_iou centre box .25"][0] == pytest.approx(
        100 * common / (256 + 96 - common)
    )
    assert {figure.n for figure in result.figures} == {3}
    assert {figure.setting for figure in result.figures} == {
        *("", "untrained model", "full image", "centre box .5", "centre box .25")
    }


def test_options_by_hand(tmp_path, monkeypatch):
    """A bar of 8 patches on the left of two rows, and one far patch, which alone is green, too."""
    image = bright((slice(0, 8), slice(0, 16)))
    image[28:, 28:, :2] = 255
    truth = [(1, 1, 16, 8), (29, 29, 32, 32)]
    far, bar, full = 16, 128, 1024
    subject = subject_of(monkeypatch, channels(4, 0, 1))
    for number, (options, expected) in enumerate(
        [
            ({"heads": "best"}, 100),  # the second head's box is the far one
            ({}, bar / full),
            ({"component": "largest"}, 100),
            ({"multi": "union"}, 100),
            ({"multi": "mean"}, (bar + far) / 2 / full),
            ({"multi": "mean", "component": "largest"}, 50),
        ]
    ):
        result = measured(tmp_path / str(number), subject, [image], [truth], **options)
        expected = expected if expected in (50, 100) else 100 * expected
        assert values(result, "box_iou")[""] == pytest.approx(expected), options


def test_a_crops_boxes_lie_where_the_crop_does(tmp_path, monkeypatch):
    """Of 128 x 64 pixels the middle 64 are seen at a half: 4 patches are 8 pixels wide each."""
    image = bright((slice(16, 32), slice(48, 80)), height=64, width=128)
    subject = subject_of(monkeypatch, channels(4, 0), crop_pct=1.0, interpolation="bilinear")
    result = measured(tmp_path, subject, [image], [[(49, 17, 80, 32)]], resize="crop")
    assert values(result, "box_iou")[""] == pytest.approx(100)


def test_images_without_a_box_are_left_out(tmp_path, monkeypatch):
    image = bright((slice(8, 16), slice(4, 16)))
    subject = subject_of(monkeypatch, channels(4, 0))
    root = image_net(tmp_path, [[(5, 9, 16, 16)]] * 3, pixels=[image] * 3)
    (root / "bbox" / "val" / "ILSVRC2012_val_00000002.xml").unlink()
    source, _ = open_boxes(f"imagenet:{root}", 32, True)
    result = Localize(allow_missing=True).measure(subject, images_of(source), CPU)
    assert values(result, "left_out") == {"": 1}
    assert values(result, "box_iou")[""] == pytest.approx(100)
    assert np.isnan(result.images["box_iou"]).tolist() == [False, False, True]
    empty = images_of(open_boxes(f"imagenet:{image_net(tmp_path / 'b', [[]])}", 32, False)[0])
    with pytest.raises(ValueError, match="no image of drawn has a box"):
        Localize().measure(subject_of(monkeypatch, flat), empty, CPU)


def test_figures_are_torchvisions_over_the_models_own_attention(monkeypatch):
    monkeypatch.setattr(annotated, "SCENES", 21)  # more than a batch
    recipe = load_recipe("quick", SMALL)
    model = recipe_model(recipe, 2, 7).eval()
    with torch.no_grad():
        model.blocks[0].attn.qkv.weight *= 40
    subject = Subject(spec="a", model=model, recipe=recipe, classes=("a", "b"), seed=5)
    evaluation = Localize(mass=0.6)
    data = evaluation.open(Given(own=lambda: 1 / 0, place=None, image_size=32))
    result = evaluation.measure(subject, data, CPU)
    workers = dataclasses.replace(CPU, workers=1)
    assert evaluation.measure(subject, data, workers).figures == result.figures
    mean, std = (np.array(each)[:, None, None] for each in (recipe.mean, recipe.std))
    more = torch.tensor([0, 0, 1, 1])  # masks_to_boxes has the last pixel, not the one behind it
    for setting, net in (("", model), (" untrained model", recipe_model(recipe, 2, 5).eval())):
        expected, corloc = [], []
        for index in range(21):
            pixels = np.asarray(data.source.load(index)).transpose(2, 0, 1) / 255
            with attention_tap(net) as tap, torch.no_grad():
                attn = tap(torch.from_numpy((pixels - mean) / std).float()[None]).attn[0].double()
            order = attn.flatten().argsort(descending=True)
            count = int(((attn.flatten()[order].cumsum(0) / attn.sum()) < 0.6 - 1e-12).sum()) + 1
            mask = torch.zeros(64).index_fill(0, order[:count], 1).view(1, 8, 8)
            truth = torch.from_numpy(np.array(data.source.mask(index)))[None]
            ours = (masks_to_boxes(mask) + more) * 4
            iou = box_iou(ours, masks_to_boxes(truth) + more).item()
            expected.append(100 * iou)
            corloc.append(iou >= 0.5)
        assert result.images[f"box_iou{setting}"] == pytest.approx(expected, abs=1e-4)
        assert values(result, "corloc")[setting.strip()] == pytest.approx(100 * np.mean(corloc))
    assert np.std(result.images["box_iou"]) > 1


@pytest.mark.parametrize("evaluation", [Localize(), VocJaccard()])
def test_each_image_is_read_once(evaluation, monkeypatch):
    monkeypatch.setattr(annotated, "SCENES", 20)
    seen = []

    def noted(name, read):
        def reading(source, index):
            seen.append((name, index))
            return read(source, index)

        return reading

    for name in ("load", "mask"):
        monkeypatch.setattr(SceneSource, name, noted(name, getattr(SceneSource, name)))
    data = evaluation.open(Given(own=lambda: 1 / 0, place=None, image_size=32))
    evaluation.measure(subject_of(monkeypatch, flat), data, CPU)
    assert sorted(seen) == [(name, index) for name in ("load", "mask") for index in range(20)]


def test_objects_are_met_better_by_attention_on_them_than_by_flat_attention(monkeypatch):
    monkeypatch.setattr(annotated, "SCENES", 40)
    evaluation = Localize()
    data = evaluation.open(Given(own=lambda: 1 / 0, place=None, image_size=32))
    masks = torch.from_numpy(
        np.stack([data.source.source.mask(index) for index in range(40)])
    ).float()
    shares = iter(torch.nn.functional.avg_pool2d(masks[:, None], 4).split(16))
    truth = evaluation.measure(subject_of(monkeypatch, lambda _: next(shares)), data, CPU)
    everywhere = evaluation.measure(subject_of(monkeypatch, flat), data, CPU)
    ious, areas = values(truth, "box_iou"), values(truth, "box_area")
    assert ious[""] > 60 > max(each for name, each in ious.items() if name)
    assert areas[""] < 50 < areas["untrained model"]
    assert values(everywhere, "box_iou")[""] == pytest.approx(ious["full image"], abs=3)
