"""GridMix's lattice of holes (OpenMixup's, over the whole image), pixel by pixel: the oracle."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mask(height: int, width: int, count: int, lam: float) -> Array:
    """A's share (H, W): 0 in a hole at the upper left of each of `count` cells across."""
    cell = -(-width // count)
    hole = np.clip(int(cell * (1 - lam) ** 0.5), 1, cell - 1)
    share = np.ones((height, width))
    for top in range(0, height, cell):
        for left in range(0, width, cell):
            share[top : top + hole, left : left + hole] = 0
    return share
