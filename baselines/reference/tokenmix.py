"""TokenMix's rectangles of tokens (Liu et al., 2022), token by token: the tests' oracle."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def tokens(
    uniform: Callable[[], float], randint: Callable[[int], int], grid: tuple[int, int], count: int
) -> set[tuple[int, int]]:
    """The tokens (row, col) that are the partner's, `count` of them where they fit.

    uniform() gives a number of [0, 1), randint(n) one of 0 .. n - 1.
    """
    height, width = grid
    of_b: set[tuple[int, int]] = set()
    while len(of_b) < count:
        for _ in range(10):
            size = 1 + (count - len(of_b) - 1) * uniform()
            aspect = (10 / 3) ** (2 * uniform() - 1)  # from 3 / 10 to 10 / 3, evenly in logarithms
            y, x = round(math.sqrt(size * aspect)), round(math.sqrt(size / aspect))
            if y == 0 or x == 0 or y >= height or x >= width:
                continue
            top, left = randint(height - y + 1), randint(width - x + 1)
            window = set(itertools.product(range(top, top + y), range(left, left + x)))
            if window <= of_b or len(window | of_b) > count:
                continue
            of_b |= window
            break
        else:
            break
    return of_b


def mask(height: int, width: int, grid: tuple[int, int], of_b: set[tuple[int, int]]) -> Array:
    """A's share (H, W): pixel (y, x) lies in token (floor(y * h / H), floor(x * w / W))."""
    share = np.ones((height, width))
    for y, x in np.ndindex(height, width):
        if (math.floor(y * grid[0] / height), math.floor(x * grid[1] / width)) in of_b:
            share[y, x] = 0
    return share
