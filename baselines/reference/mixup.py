"""Mixup as published (Zhang et al., 2018), one image at a time: the tests' oracle."""

import numpy as np


def mix(images, partner, lam):
    """lam * A + (1 - lam) * B for images (B, C, H, W) and partner rows (B,): mixed images and each pixel's share of A (B, H, W)."""
    mixed, mask = np.empty_like(images), np.empty((len(images), *images.shape[2:]))
    for row, other in enumerate(partner):
        mixed[row] = lam * images[row] + (1 - lam) * images[other]
        mask[row] = lam
    return mixed, mask


def targets(labels, partner, lam, num_classes, smoothing=0.0):
    """Soft labels (B, K): lam (B,) parts of A's class and the rest of B's, each one-hot smoothed by smoothing / K (as timm does)."""
    rows = np.full((len(labels), num_classes), smoothing / num_classes)
    for row, other in enumerate(partner):
        rows[row, labels[row]] += (1 - smoothing) * lam[row]
        rows[row, labels[other]] += (1 - smoothing) * (1 - lam[row])
    return rows
