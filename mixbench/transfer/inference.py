"""A class for each pixel of a whole image: windows that slide over it, several sizes, mirrored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from mixbench.data.joint import LONGEST, normalised, resized
from mixbench.transfer.recipe import SegmentationRecipe

RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # Segmenter's, each also mirrored
AT_ONCE = 4  # windows that go through the network together
Network = Callable[[Tensor], Tensor]


def anchors(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side that is no shorter; the last one ends at its edge."""
    return [*range(0, side - window, stride), side - window]


def sliding_logits(network: Network, image: Tensor, window: int, stride: int) -> Tensor:
    """The mean logits (K, H, W) of the windows of an image (3, H, W), which is no smaller."""
    height, width = image.shape[-2:]
    places = [
        (top, left)
        for top in anchors(height, window, stride)
        for left in anchors(width, window, stride)
    ]
    total: Tensor | None = None
    windows = image.new_zeros(height, width)
    for first in range(0, len(places), AT_ONCE):
        part = places[first : first + AT_ONCE]
        crops = [image[:, top : top + window, left : left + window] for top, left in part]
        logits = network(torch.stack(crops))
        if total is None:
            total = logits.new_zeros(logits.shape[1], height, width)
        for (top, left), each in zip(part, logits, strict=True):
            total[:, top : top + window, left : left + window] += each
            windows[top : top + window, left : left + window] += 1
    assert total is not None
    return total / windows


def probabilities(
    network: Network,
    image: Image.Image,
    recipe: SegmentationRecipe,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    ratios: Sequence[float] = (1.0,),
    mirrored: bool = False,
) -> Tensor:
    """The mean probabilities (K, H, W) of an image's pixels over sizes, mirrored ones too.

    A size is the recipe's short side times a ratio, and no side is below the window. Logits are
    enlarged to the image's own size before the softmax. Source: Segmenter's evaluation. Differs:
    PIL resizes, with antialiasing, in place of OpenCV.
    """
    size = image.height, image.width
    total: Tensor | None = None
    for ratio in ratios:
        height, width = at_least(resized(*size, recipe.short_side, ratio), recipe.crop_size)
        small = functional.pil_to_tensor(image.resize((width, height), Image.Resampling.BILINEAR))
        pixels = normalised(small, mean, std).to(device)
        for flip in (False, True)[: 1 + mirrored]:
            logits = sliding_logits(
                network, pixels.flip(-1) if flip else pixels, recipe.crop_size, recipe.window_stride
            )
            logits = logits.flip(-1) if flip else logits
            enlarged = nn.functional.interpolate(
                logits[None].float(), size, mode="bilinear", align_corners=False
            )[0]
            share = enlarged.softmax(0)
            total = share if total is None else total + share
    assert total is not None
    return total / (len(ratios) * (1 + mirrored))


def at_least(size: Sequence[int], window: int) -> tuple[int, int]:
    """Height and width enlarged together where one is below the window.

    Where the long one would be more than LONGEST windows, the short one is enlarged alone.
    """
    height, width = size
    factor = max(window / min(height, width), 1.0)
    if factor > 1 and max(height, width) * factor > LONGEST * window:
        return max(height, window), max(width, window)
    return max(round(height * factor), window), max(round(width * factor), window)
