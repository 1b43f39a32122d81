"""TransMix as published (Chen et al., CVPR 2022), one image at a time: the tests' oracle."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def downsample(mask: Array, grid: tuple[int, ...]) -> Array:
    """The mask (H, W) at the top-left pixel of each patch of the grid (h, w), (h, w).

    Source: the released code.
    """
    height, width = mask.shape
    down = np.empty(grid)
    for row, col in np.ndindex(grid):
        down[row, col] = mask[row * height // grid[0], col * width // grid[1]]
    return down


def lam(mask: Array, attn: Array, attention_weight: float = 0.5, renormalise: bool = True) -> float:
    """A's share of a label; mask (H, W) is A's share of each pixel, attn (h, w) of each patch.

    Equation 7 weighs B by the attention on it; the released code divides by the attention on both,
    and section 4.1 takes the mean with the area.
    """
    down = downsample(mask, attn.shape)
    on_a, on_b = 0.0, 0.0
    for cell in np.ndindex(attn.shape):
        on_a += float(attn[cell] * down[cell])
        on_b += float(attn[cell] * (1 - down[cell]))
    by_attention = on_a / (on_a + on_b) if renormalise else 1 - on_b
    return float((1 - attention_weight) * mask.mean() + attention_weight * by_attention)
