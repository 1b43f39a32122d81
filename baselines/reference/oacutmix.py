"""Labels by true masks (OA-CutMix, arXiv 2606.04820), pixel by pixel: the tests' oracle."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def lam(
    visible: tuple[Array, Array],
    whole: tuple[Array, Array],
    area: float,
    target: str,
    weight: float,
) -> float:
    """A's share of the label, by what is visible of A's and B's object in the mix.

    visible are both objects (H, W) as they lie in the mixed image, whole as they were before.
    """
    counts = [float(sum(pixel for pixel in each.flat)) for each in (*visible, *whole)]
    v_a, v_b, all_a, all_b = counts
    if all_a == 0 or all_b == 0:
        return area
    if target == "fraction":
        v_a, v_b = v_a / all_a, v_b / all_b
    by_objects = 0.5 if v_a == v_b == 0 else v_a / (v_a + v_b)
    return weight * by_objects + (1 - weight) * area
