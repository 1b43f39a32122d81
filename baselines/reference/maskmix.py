"""MaskMix, the mask of MixPro (Zhao et al., 2023), pixel by pixel: the tests' oracle."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def cells(scores: Array, lam: float) -> set[int]:
    """The cells that A keeps: the first of the permutation that sorts `scores` (cells,)."""
    permutation = sorted(range(len(scores)), key=lambda cell: scores[cell])
    return set(permutation[: math.ceil(lam * len(scores))])


def mask(height: int, width: int, grid: int, of_a: set[int]) -> Array:
    """A's share (H, W): 1 in A's cells, which are numbered row after row."""
    cell_h, cell_w = -(-height // grid), -(-width // grid)
    share = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        share[y, x] = (y // cell_h) * grid + x // cell_w in of_a
    return share
