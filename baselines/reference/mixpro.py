"""MixPro's labels from its paper's description (arXiv 2304.12043), an image: the tests' oracle."""

import numpy as np
from scipy.spatial.distance import cosine

from baselines.reference import transmix
from baselines.reference.transmix import Array


def lam(mask: Array, attn: Array, logits: Array, labels: tuple[int, int]) -> float:
    """A's share of a label; mask (H, W), attn (h, w), logits (K,), the classes of A and B."""
    area = float(mask.mean())
    targets = np.zeros(len(logits))
    targets[labels[0]] += area
    targets[labels[1]] += 1 - area
    predicted = np.exp(logits - logits.max())
    confidence = 1 - cosine(targets, predicted / predicted.sum())
    by_attention = transmix.lam(mask, attn, attention_weight=1.0)
    return float(confidence * by_attention + (1 - confidence) * area)
