"""Windows over whole images, several sizes and mirrored images."""

import numpy as np
import pytest
import torch
from PIL import Image

from mixbench.transfer.inference import (
    RATIOS,
    anchors,
    at_least,
    probabilities,
    sliding_logits,
)
from mixbench.transfer.recipe import SegmentationRecipe

RECIPE = SegmentationRecipe(short_side=26, crop_size=24, window_stride=16)
CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def photograph(height=37, width=50, seed=0):
    pixels = np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def by_pixel(images):
    """Logits (B, 4, H, W) that depend on each pixel alone: mirrored as the images are."""
    red, green, blue = images.unbind(1)
    return torch.stack([red, 2 * green, blue - red, red * 0], 1)


def test_windows_end_at_the_edges():
    assert anchors(520, 480, 320) == [0, 40]
    assert anchors(693, 480, 320) == [0, 213]
    assert anchors(480, 480, 320) == [0]
    assert anchors(800, 480, 320) == [0, 320]
    assert anchors(801, 480, 320) == [0, 320, 321]


@pytest.mark.parametrize(("side", "window", "stride"), [(50, 24, 16), (24, 24, 1), (99, 10, 10)])
def test_windows_cover_every_pixel(side, window, stride):
    seen = np.zeros(side, int)
    for start in anchors(side, window, stride):
        assert 0 <= start <= side - window
        seen[start : start + window] += 1
    assert seen.min() == 1 or stride < window
    assert seen.all()


def test_logits_are_the_mean_over_windows():
    image = torch.rand(3, 30, 45)
    rng = torch.Generator().manual_seed(0)
    answers = torch.rand(6, 4, 24, 24, generator=rng)  # of 2 x 3 windows
    left_over = list(answers)
    found = sliding_logits(
        lambda crops: torch.stack([left_over.pop(0) for _ in crops]), image, 24, 16
    )
    assert left_over == []
    total, count = np.zeros((4, 30, 45)), np.zeros((30, 45))
    places = [(top, left) for top in (0, 6) for left in (0, 16, 21)]
    for (top, left), answer in zip(places, answers.numpy(), strict=True):
        for row in range(24):
            for column in range(24):
                total[:, top + row, left + column] += answer[:, row, column]
                count[top + row, left + column] += 1
    assert found.numpy() == pytest.approx(total / count, abs=1e-6)


def test_constant_logits_stay_constant():
    constant = torch.tensor([1.0, -2.0, 0.5, 3.0])[None, :, None, None]
    network = lambda crops: constant.expand(len(crops), 4, *crops.shape[-2:])  # noqa: E731
    image = torch.rand(3, 53, 69)
    logits = sliding_logits(network, image, 24, 16)
    assert torch.allclose(logits, constant[0].expand(4, 53, 69))
    shares = probabilities(network, photograph(), RECIPE, MEAN, STD, CPU, RATIOS, mirrored=True)
    expected = constant[0].softmax(0).expand(4, 37, 50)
    assert torch.allclose(shares, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(37, 50), (61, 40), (24, 24)])
def test_mirrored_passes_of_a_network_that_mirrors_are_the_single_pass(size):
    image = photograph(*size)
    single = probabilities(by_pixel, image, RECIPE, MEAN, STD, CPU)
    both = probabilities(by_pixel, image, RECIPE, MEAN, STD, CPU, mirrored=True)
    assert single.shape == (4, *size)
    assert torch.allclose(single, both, atol=1e-6)
    lopsided = lambda crops: by_pixel(crops) * torch.arange(24.0)  # noqa: E731
    one = probabilities(lopsided, image, RECIPE, MEAN, STD, CPU)
    two = probabilities(lopsided, image, RECIPE, MEAN, STD, CPU, mirrored=True)
    assert not torch.allclose(one, two, atol=1e-3)


def test_several_sizes_are_the_mean_of_each():
    image = photograph()
    each = [probabilities(by_pixel, image, RECIPE, MEAN, STD, CPU, (ratio,)) for ratio in RATIOS]
    together = probabilities(by_pixel, image, RECIPE, MEAN, STD, CPU, RATIOS)
    assert torch.allclose(together, torch.stack(each).mean(0), atol=1e-6)
    assert torch.allclose(together.sum(0), torch.ones(37, 50), atol=1e-5)


def test_an_even_image_is_the_same_at_every_size():
    even = Image.new("RGB", (50, 37), (90, 120, 30))
    single = probabilities(by_pixel, even, RECIPE, MEAN, STD, CPU)
    several = probabilities(by_pixel, even, RECIPE, MEAN, STD, CPU, RATIOS, mirrored=True)
    assert torch.allclose(single, several, atol=1e-5)
    logits = by_pixel(((torch.tensor([90, 120, 30]) / 255 - torch.tensor(MEAN)) / torch.tensor(STD))
                      .view(1, 3, 1, 1))  # fmt: skip
    assert torch.allclose(single[:, 5, 5], logits[0, :, 0, 0].softmax(0), atol=1e-5)


def test_no_side_is_below_the_window():
    assert at_least((12, 30), 24) == (24, 60)
    assert at_least((30, 40), 24) == (30, 40)
    assert at_least((1, 1000), 24) == (24, 1000) and at_least((300, 2), 24) == (300, 24)
    assert at_least((24, 1000), 24) == (24, 1000)
    assert at_least((23, 23), 24) == (24, 24)
