"""GuidedMixup as described (Kang and Kim, 2023), with numpy and scipy in float64: the oracle."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]


def _blur(maps: Array) -> Array:
    # truncate so that the kernel has 7 taps; scipy's 'mirror' does not repeat the last pixel
    return np.asarray(ndimage.gaussian_filter(maps, 3.0, mode="mirror", truncate=1.0))


def saliency(image: Array) -> Array:
    """Each pixel's share (H, W) of the saliency of an image (H, W, 3) RGB of at most 128 px."""
    grey = image.astype(float) / 255 @ np.array([0.299, 0.587, 0.114])
    spectrum = np.fft.fft2(grey)
    amplitude = np.sqrt(np.abs(spectrum) ** 2 + 1e-10)
    logarithm = np.log(amplitude)
    # scipy's 'nearest' is the border that repeats the last pixel
    residual = np.exp(logarithm - ndimage.uniform_filter(logarithm, 3, mode="nearest"))
    maps = _blur(_blur(np.abs(np.fft.ifft2(spectrum / amplitude * residual))))
    return maps / maps.sum() if maps.sum() > 0 else np.full(maps.shape, 1 / maps.size)


def partners(distances: Array) -> list[int]:
    """A greedy cycle through all rows of distances (B, B): the partner of each row."""
    rows = len(distances)
    pairs = [(i, j) for i in range(rows) for j in range(rows) if i != j]
    if not pairs:
        return [0]
    first, row = max(pairs, key=lambda pair: distances[pair])
    partner = {first: row}
    while len(partner) < rows:
        missing = [j for j in range(rows) if j not in partner.values() and j != first]
        farthest = max(missing, key=lambda j: distances[row, j]) if missing else first
        partner[row], row = farthest, farthest
    return [partner[i] for i in range(rows)]
