"""SaliencyMix as published (Uddin et al., 2021), pixel by pixel: the tests' oracle.

The map is the fine-grained saliency of Montabone and Soto (2010) with the roundings of OpenCV.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SCALES = 12, 24, 48, 28, 56, 112


def gray_of(image: Array) -> Array:
    """Brightness (H, W) of an image (H, W, 3) RGB uint8 by OpenCV's fixed-point weights."""
    gray = np.empty(image.shape[:2], int)
    for y, x in np.ndindex(gray.shape):
        red, green, blue = (int(value) for value in image[y, x])
        gray[y, x] = (9798 * red + 19235 * green + 3735 * blue + 2**14) // 2**15
    return gray


def blur(gray: Array) -> Array:
    """A 3 x 3 Gaussian with the border mirrored, rounded to whole numbers, (H, W)."""
    height, width = gray.shape
    blurred = np.empty_like(gray)

    def mirror(at: int, side: int) -> int:
        return 0 if side == 1 else side - 1 - abs(side - 1 - abs(at))

    for y, x in np.ndindex(gray.shape):
        total = 0
        for dy, dx in np.ndindex(3, 3):
            weight = (1, 2, 1)[dy] * (1, 2, 1)[dx]
            total += weight * gray[mirror(y + dy - 1, height), mirror(x + dx - 1, width)]
        blurred[y, x] = (total + 8) // 16
    return blurred


def saliency(image: Array) -> Array:
    """Bytes (H, W) of the saliency of an image (H, W, 3) RGB uint8."""
    gray = blur(blur(gray_of(image)))
    height, width = gray.shape
    on, off = np.zeros(gray.shape, int), np.zeros(gray.shape, int)
    for y, x in np.ndindex(gray.shape):
        for n in SCALES:
            window = gray[
                max(y - n + 1, 0) : min(y + n + 1, height),
                max(x - n + 1, 0) : min(x + n + 1, width),
            ]
            others = window.size - 1
            difference = (int(window.sum()) - gray[y, x]) - gray[y, x] * others
            off[y, x] += max(difference, 0) // others
            on[y, x] += max(-difference, 0) // others
    bytes_ = []
    for sums in (on, off):
        share = (sums / max(sums.max(), 1)).astype(np.float32)
        bytes_.append((255.0 * share.astype(float)).astype(int))
    peak = max(bytes_[0].max(), bytes_[1].max(), 1)
    return (255 * (bytes_[0] + bytes_[1]) // peak) % 256


def center(saliency_map: Array, drawn: tuple[int, int]) -> tuple[int, ...]:
    """y, x of the first highest pixel in raster order; `drawn` where the map is flat."""
    best = 0
    at: tuple[int, ...] = drawn
    for y, x in np.ndindex(saliency_map.shape):
        if saliency_map[y, x] > best:
            best, at = int(saliency_map[y, x]), (y, x)
    return at
