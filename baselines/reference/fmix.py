"""FMix as its paper says (Harris et al., 2020), with numpy's FFT in float64: the tests' oracle."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def picture(real: Array, imaginary: Array, decay: float) -> Array:
    """Low-frequency noise (H, W) of two pictures of normal noise (H, W)."""
    height, width = real.shape
    spectrum = np.empty((height, width), complex)
    for v, u in np.ndindex(height, width):
        down, across = min(v, height - v) / height, min(u, width - u) / width
        frequency = max((down**2 + across**2) ** 0.5, 1 / max(height, width))
        spectrum[v, u] = (real[v, u] + 1j * imaginary[v, u]) / frequency**decay
    return np.fft.ifft2(spectrum).real


def mask(grey: Array, lam: float, up: bool, max_soft: float) -> Array:
    """A's share (H, W) of a picture: its brightest pixels, the next ones fading from 1 to 0."""
    pixels = grey.size
    count = int(np.ceil(lam * pixels) if up else np.floor(lam * pixels))
    half = int(min(max_soft, lam, 1 - lam) * pixels)
    values = np.zeros(pixels)
    values[: count - half] = 1
    values[count - half : count + half] = np.linspace(1, 0, 2 * half)
    share = np.empty(pixels)
    brightest = sorted(range(pixels), key=lambda at: -grey.flat[at])  # stable
    for value, at in zip(values, brightest, strict=True):
        share[at] = value
    return share.reshape(grey.shape)
