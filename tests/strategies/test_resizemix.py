"""ResizeMix against Pillow, figures worked out by hand, and its draws."""

import numpy as np
import pytest
import torch
from PIL import Image

from mixbench import create_strategy, step_rng
from mixbench.mix import randint, uniform
from mixbench.strategies.resizemix import moved, paste_resized
from tests.support.pictures import mix


def small_of(image, height, width):
    """An image (H, W) float32 made small by Pillow."""
    small = Image.fromarray(image.numpy()).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small))


def test_halving_by_hand():
    """The antialiased triangle's weights are 3, 3, 1, then 1, 3, 3, down and across."""
    images = torch.stack([torch.zeros(1, 4, 4), torch.arange(16.0).reshape(1, 4, 4)])
    mixed = paste_resized(images, (1, 2, 3, 4))
    expected = torch.zeros(4, 4)
    expected[1:3, 2:4] = torch.tensor([[3.571429, 5.142857], [9.857143, 11.428572]])
    torch.testing.assert_close(mixed[0, 0], expected)
    expected = images[1, 0].clone()
    expected[1:3, 2:4] = 0
    torch.testing.assert_close(mixed[1, 0], expected)


@pytest.mark.parametrize("box", [(3, 4, 12, 17), (0, 0, 21, 33), (5, 5, 6, 6), (0, 31, 20, 33)])
def test_pillows_resize(box):
    images = torch.randn(2, 1, 21, 33, generator=torch.Generator().manual_seed(0))
    top, left, bottom, right = box
    expected = images[:, 0].clone()
    for row in range(2):
        small = small_of(images[1 - row, 0], bottom - top, right - left)
        expected[row, top:bottom, left:right] = small
    mixed = paste_resized(images, box)
    torch.testing.assert_close(mixed[:, 0], expected, rtol=1e-5, atol=1e-5)
    of_a, of_b = moved(box, images)
    assert (of_a + of_b).equal(mixed)
    assert not of_a[:, :, top:bottom, left:right].any() and not of_b[:, :, :top].any()


@pytest.mark.parametrize(
    ("size", "scale", "sides", "area"),
    [
        ((32, 32), 0.1, (3, 3), 0.991211),
        ((32, 48), 0.5, (16, 24), 0.75),
        ((4, 4), 0.5, (2, 2), 0.75),
        ((3, 200), 0.1, (1, 20), 0.966667),
        ((32, 32), 1.0, (32, 32), 0.0),
    ],
)
def test_areas_by_hand(size, scale, sides, area):
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    mixed = mix(f"resizemix(min_scale={scale}, max_scale={scale})", images)
    rows, cols = torch.where(mixed.mask[0, 0] == 0)
    assert (len(rows.unique()), len(cols.unique())) == sides
    assert mixed.lam.tolist() == pytest.approx([area] * 2, abs=1e-6)


def test_draws():
    """The scale, then top and left, one box a batch."""
    images = torch.randn(3, 3, 100, 200, generator=torch.Generator().manual_seed(1))
    lams, tops, lefts = [], [], []
    for step in range(400):
        rng = step_rng(0, step)
        scale = 0.1 + 0.7 * uniform(rng)
        height, width = round(100 * scale), round(200 * scale)
        top, left = randint(rng, 101 - height), randint(rng, 201 - width)
        mixed = mix("resizemix", images, step=step)
        expected = torch.ones(100, 200)
        expected[top : top + height, left : left + width] = 0
        assert mixed.mask.equal(expected[None, None])
        inside = mixed.images[0, 0, top : top + height, left : left + width]
        if step < 20:
            small = small_of(images[2, 0], height, width)
            torch.testing.assert_close(inside, small, rtol=1e-4, atol=1e-4)
            assert mixed.images[:, :, expected.bool()].equal(images[:, :, expected.bool()])
        lams.append(float(mixed.lam[0]))
        tops.append(top / (100 - height))
        lefts.append(left / (200 - width))
    assert abs(np.mean(lams) - 0.756667) < 0.03  # four standard errors
    assert abs(np.mean(tops) - 0.5) < 0.06 and abs(np.mean(lefts) - 0.5) < 0.06
    assert min(tops) < 0.02 and max(tops) > 0.98


def test_the_middle_row_of_an_odd_batch_gets_itself_made_small():
    images = torch.randn(3, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    mixed = mix("resizemix(min_scale=0.5, max_scale=0.5)", images)
    inside = mixed.mask[0, 0] == 0
    small = small_of(images[1, 0], 10, 10)
    torch.testing.assert_close(mixed.images[1, 0][inside], small.flatten(), rtol=1e-5, atol=1e-5)


def test_crossed_scales_are_refused():
    with pytest.raises(ValueError, match=r"min_scale must be at most max_scale, not 0.5 and 0.4"):
        create_strategy("resizemix(min_scale=0.5, max_scale=0.4)")
