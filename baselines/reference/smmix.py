"""SMMix (Chen et al., 2023) from its description, image by image: the tests' oracle."""

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

Array = NDArray[np.float64]


def best_window(attn: Array, height: int, width: int, sign: int) -> tuple[int, int]:
    """The top left cell of the window with the largest (sign 1) or smallest (-1) sum, the first."""
    best, at = -np.inf, (0, 0)
    for top, left in itertools.product(
        range(attn.shape[0] - height + 1), range(attn.shape[1] - width + 1)
    ):
        total = sign * attn[top : top + height, left : left + width].sum()
        if total > best:
            best, at = total, (top, left)
    return at


def mix(
    a: Array, b: Array, attn_a: Array, attn_b: Array, size: tuple[int, int]
) -> tuple[Array, Array]:
    """The mixed image (C, H, W) and A's share of its pixels (H, W)."""
    rows, columns = size
    patch_h, patch_w = a.shape[1] // attn_a.shape[0], a.shape[2] // attn_a.shape[1]
    place, source = best_window(attn_a, *size, -1), best_window(attn_b, *size, 1)
    mixed, share = a.copy(), np.ones(a.shape[1:])
    for y, x in itertools.product(range(rows * patch_h), range(columns * patch_w)):
        to = place[0] * patch_h + y, place[1] * patch_w + x
        mixed[:, to[0], to[1]] = b[:, source[0] * patch_h + y, source[1] * patch_w + x]
        share[to] = 0
    return mixed, share


def cross_entropy(logits: Array, label: int) -> float:
    """-log of the label's probability; logits (K,)."""
    return float(-log_softmax(logits)[label])


def divergence(logits_a: Array, logits_b: Array, lam: float, logits: Array) -> float:
    """KL of the mixed image's prediction from both images', whose logits (K,) are mixed."""
    target = softmax(lam * logits_a + (1 - lam) * logits_b)
    return float(sum(p * (np.log(p) - q) for p, q in zip(target, log_softmax(logits), strict=True)))


def extra_loss(
    tokens: Array,
    of_a: Array,
    labels: tuple[int, int],
    looked: tuple[Array, Array],
    logits: Array,
    lam: float,
    head: tuple[Array, Array],
) -> float:
    """The loss of one image beside that of its label.

    tokens (h, w, D) of the mixed image, of_a (h, w) bool, head a weight (K, D) and a bias (K,).
    """
    weight, bias = head
    loss = divergence(*looked, lam, logits)
    for where, label in ((of_a, labels[0]), (~of_a, labels[1])):
        if where.any():
            loss += cross_entropy(weight @ tokens[where].mean(0) + bias, label) / 2
    return loss
