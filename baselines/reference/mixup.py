"""Mixup as published (Zhang et al., 2018), one image at a time: the tests' oracle."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mix(images: Array, partner: Sequence[int], lam: float) -> tuple[Array, Array]:
    """lam * A + (1 - lam) * B, (B, C, H, W), and A's share of each pixel, (B, H, W)."""
    mixed, mask = np.empty_like(images), np.empty((len(images), *images.shape[2:]))
    for row, other in enumerate(partner):
        mixed[row] = lam * images[row] + (1 - lam) * images[other]
        mask[row] = lam
    return mixed, mask


def targets(
    labels: Sequence[int],
    partner: Sequence[int],
    lam: Sequence[float],
    num_classes: int,
    smoothing: float = 0.0,
) -> Array:
    """Soft labels: lam (B,) parts of A's class and the rest of B's, (B, K).

    Each class is smoothed by smoothing / K, as timm does.
    """
    rows = np.full((len(labels), num_classes), smoothing / num_classes)
    for row, other in enumerate(partner):
        rows[row, labels[row]] += (1 - smoothing) * lam[row]
        rows[row, labels[other]] += (1 - smoothing) * (1 - lam[row])
    return rows
