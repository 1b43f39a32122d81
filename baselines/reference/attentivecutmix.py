"""Attentive CutMix as published (Walawalkar et al., 2020), one image at a time: the tests' oracle."""

import numpy as np


def best_cells(features, k, channel="mean"):
    """Row and column of the k highest cells of one feature map (C, h, w), its channels averaged or the last alone; ties in raster order."""
    attention = features.mean(0) if channel == "mean" else features[-1]
    cells = sorted(
        np.ndindex(attention.shape), key=lambda cell: -attention[cell]
    )  # sorted keeps the order of equals
    return cells[:k]


def mix(image, other, cells, grid):
    """The cells of `image` (C, H, W) pasted onto `other`: the mixed image, the share of `image` in each pixel, and lam, its mean."""
    height, width = image.shape[1:]
    mixed, mask = other.copy(), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            if (y * grid[0] // height, x * grid[1] // width) in cells:
                mixed[:, y, x] = image[:, y, x]
                mask[y, x] = 1
    return mixed, mask, mask.sum() / (height * width)
