"""CutMix as published (Yun et al., 2019), one image at a time: the tests' oracle."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def box(height: int, width: int, lam: float, center: tuple[int, int]) -> tuple[int, int, int, int]:
    """top, left, bottom, right of a box of share 1 - lam around center (y, x), clipped.

    Source: section 3.1 and the released code.
    """
    cut_h, cut_w = int(height * np.sqrt(1.0 - lam)), int(width * np.sqrt(1.0 - lam))
    top, bottom = (int(np.clip(center[0] + sign * (cut_h // 2), 0, height)) for sign in (-1, 1))
    left, right = (int(np.clip(center[1] + sign * (cut_w // 2), 0, width)) for sign in (-1, 1))
    return top, left, bottom, right


def mix(
    images: Array,
    partner: Sequence[int],
    lams: Sequence[float],
    centers: Sequence[tuple[int, int]],
) -> tuple[Array, Array, Array]:
    """Each image with a box from its partner, (B, C, H, W), A's share (B, H, W), and lam (B,).

    lams and centers give each image's box.
    """
    mixed, mask = images.copy(), np.ones((len(images), *images.shape[2:]))
    corrected = np.empty(len(images))
    height, width = images.shape[2:]
    for row, other in enumerate(partner):
        top, left, bottom, right = box(height, width, lams[row], centers[row])
        for y in range(top, bottom):
            for x in range(left, right):
                mixed[row, :, y, x] = images[other, :, y, x]
                mask[row, y, x] = 0
        corrected[row] = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, mask, corrected
