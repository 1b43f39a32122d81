"""Attentive CutMix as published (Walawalkar et al., 2020), image by image: the tests' oracle."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Cell = tuple[int, ...]  # row and column


def best_cells(features: Array, k: int, channel: str = "mean") -> list[Cell]:
    """Row and column of the k highest cells of a feature map (C, h, w); ties in raster order.

    The channels are averaged, or the last alone is used.
    """
    attention = features.mean(0) if channel == "mean" else features[-1]
    # sorted keeps the order of equals
    cells = sorted(np.ndindex(attention.shape), key=lambda cell: -attention[cell])
    return cells[:k]


def mix(
    image: Array, other: Array, cells: list[Cell], grid: tuple[int, int]
) -> tuple[Array, Array, float]:
    """The cells of `image` (C, H, W) pasted onto `other`, (C, H, W), with the mask and lam.

    The mask (H, W) is the share of `image` in each pixel, lam its mean.
    """
    height, width = image.shape[1:]
    mixed, mask = other.copy(), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            if (y * grid[0] // height, x * grid[1] // width) in cells:
                mixed[:, y, x] = image[:, y, x]
                mask[y, x] = 1
    return mixed, mask, mask.sum() / (height * width)
