"""Puzzle-Mix of a pair of images, as its authors' ImageNet code does it: the tests' oracle.

Source: snu-mllab/PuzzleMix at e2dbf3a, imagenet/train.py and imagenet/mixup.py. Energies stay
float64: no integer truncation.
Differs: the grid is n x n over images of any shape, and a place that nobody wins in the transport
keeps its own block.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Energy = tuple[Array, Array, Array]  # unary (n, n, L), vertical (n-1, n), horizontal (n, n-1)


def pool(image: Array, height: int, width: int) -> Array:
    """The means of (..., H, W) over tiles of height x width."""
    rows, cols = image.shape[-2] // height, image.shape[-1] // width
    pooled = np.zeros((*image.shape[:-2], rows, cols))
    for r in range(rows):
        for c in range(cols):
            tile = image[..., r * height : (r + 1) * height, c * width : (c + 1) * width]
            pooled[..., r, c] = tile.mean((-2, -1))
    return pooled


def block_saliency(gradient: Array, n: int) -> Array:
    """The gradient (C, H, W) as the saliency of n x n blocks, sum 1."""
    saliency = np.sqrt((gradient**2).mean(0))
    pooled = pool(saliency, saliency.shape[0] // n, saliency.shape[1] // n)
    return pooled / pooled.sum()


def penalty(before: Array, after: Array, n: int) -> tuple[Array, Array]:
    """The contrast across block boundaries, vertical (n-1, n) and horizontal (n, n-1).

    Between the last cells of a block of `before` and the first of the next block of `after`, both
    (C, h, w).
    """
    tall, wide = before.shape[1] // n, before.shape[2] // n
    vertical, horizontal = np.zeros((n - 1, n)), np.zeros((n, n - 1))
    for i in range(n - 1):
        for j in range(n):
            cols = slice(j * wide, (j + 1) * wide)
            vertical[i, j] = np.abs(
                before[:, (i + 1) * tall - 1, cols] - after[:, (i + 1) * tall, cols]
            ).mean()
            rows = slice(j * tall, (j + 1) * tall)
            horizontal[j, i] = np.abs(
                before[:, rows, (i + 1) * wide - 1] - after[:, rows, (i + 1) * wide]
            ).mean()
    return vertical, horizontal


def pairwise(
    pixels_a: Array, pixels_b: Array, n: int, cell: int, weight: float
) -> dict[tuple[int, int], tuple[Array, Array]]:
    """The cost of each edge for 1 (A) or 0 (B) before and after it; pixels (C, H, W) in [0, 1]."""
    pooled = {1: pool(pixels_a, cell, cell), 0: pool(pixels_b, cell, cell)}
    costs = {}
    for first, second in itertools.product((0, 1), repeat=2):
        vertical, horizontal = penalty(pooled[first], pooled[second], n)
        costs[first, second] = weight * vertical, weight * horizontal
    return costs


def prior(label: int, num_labels: int, alpha: float) -> float:
    """-log of the binomial chance of a label, where A has the share alpha; label 0 is all A."""
    chance = (
        math.comb(num_labels - 1, label) * (1 - alpha) ** label * alpha ** (num_labels - 1 - label)
    )
    return -math.log(chance + 1e-8)


def energy(
    saliency_a: Array,
    saliency_b: Array,
    pixels_a: Array,
    pixels_b: Array,
    alpha: float,
    *,
    num_labels: int = 3,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
    cell: int = 2,
) -> Energy:
    """The energy, each edge's four costs as unary terms and a symmetric weight."""
    n = len(saliency_a)
    beta = beta / n / 16
    costs = pairwise(pixels_a, pixels_b, n, cell, beta * gamma)
    hide_b, hide_a = saliency_b.copy(), saliency_a.copy()  # the cost of showing A, of showing B
    weights = []
    for axis in (0, 1):
        shape = (n - 1, n) if axis == 0 else (n, n - 1)
        weight = np.zeros(shape)
        for r, c in np.ndindex(shape):
            before, after = (r, c), (r + 1, c) if axis == 0 else (r, c + 1)
            pw = {pair: cost[axis][r, c] for pair, cost in costs.items()}
            hide_b[before] += (pw[1, 0] + pw[1, 1]) / 2
            hide_a[before] += (pw[0, 1] + pw[0, 0]) / 2
            hide_b[after] += (pw[0, 1] + pw[1, 1]) / 2
            hide_a[after] += (pw[1, 0] + pw[0, 0]) / 2
            weight[r, c] = (pw[1, 0] + pw[0, 1] - pw[1, 1] - pw[0, 0]) / 2 + beta
        weights.append(weight)
    unary = np.zeros((n, n, num_labels))
    for label in range(num_labels):
        t = label / (num_labels - 1)
        unary[:, :, label] = (
            (1 - t) * hide_b + t * hide_a + eta / n**2 * prior(label, num_labels, alpha)
        )
    return unary, weights[0], weights[1]


def cost(labels: NDArray[np.int64], unary: Array, vertical: Array, horizontal: Array) -> float:
    """The energy of labels (n, n)."""
    n, last, total = len(labels), unary.shape[2] - 1, 0.0
    for r, c in np.ndindex(n, n):
        total += float(unary[r, c, labels[r, c]])
        if r + 1 < n:
            total += vertical[r, c] * ((labels[r, c] - labels[r + 1, c]) / last) ** 2
        if c + 1 < n:
            total += horizontal[r, c] * ((labels[r, c] - labels[r, c + 1]) / last) ** 2
    return float(total)


def brute_force(unary: Array, vertical: Array, horizontal: Array) -> NDArray[np.int64]:
    """The labels (n, n) of least energy, by trying all."""
    n, num_labels = len(unary), unary.shape[2]
    every = (
        np.array(labels).reshape(n, n)
        for labels in itertools.product(range(num_labels), repeat=n * n)
    )
    return min(every, key=lambda labels: cost(labels, unary, vertical, horizontal))


def transport_plan(mask: Array, saliency: Array, eps: float) -> Array:
    """The plan (n*n, n*n) that moves source i to target j; mask (n, n) is the image's share."""
    n = len(mask)
    places = n * n
    z, s = (mask.ravel() > 0).astype(float), saliency.ravel()
    price = np.zeros((places, places))
    for i, j in np.ndindex(places, places):
        away = (i // n - j // n) ** 2 + (i % n - j % n) ** 2
        price[i, j] = eps * (away / max(n - 1, 1) ** 2) - s[i] * z[j]
    for _ in range(n):
        plan = np.zeros((places, places))
        plan[np.arange(places), price.argmin(1)] = 1
        fight = plan * price
        win = np.zeros((places, places))
        win[fight.argmin(0), np.arange(places)] = 1
        win *= plan
        price += plan - win
    return win


def transport(mask: Array, saliency: Array, eps: float) -> NDArray[np.int64]:
    """The source block of each target, (n*n,); its own where the plan has none."""
    plan = transport_plan(mask, saliency, eps)
    return np.where(plan.any(0), plan.argmax(0), np.arange(plan.shape[1]))


def move_blocks(image: Array, source: NDArray[np.int64]) -> Array:
    """The image (C, H, W) with source[j] shown in block j."""
    n = math.isqrt(len(source))
    tall, wide = image.shape[1] // n, image.shape[2] // n
    moved = np.zeros_like(image)
    for j, i in enumerate(source):
        (r, c), (r0, c0) = divmod(j, n), divmod(int(i), n)
        tile = image[:, r0 * tall : (r0 + 1) * tall, c0 * wide : (c0 + 1) * wide]
        moved[:, r * tall : (r + 1) * tall, c * wide : (c + 1) * wide] = tile
    return moved


def puzzlemix(
    pixels_a: Array,
    pixels_b: Array,
    gradient_a: Array,
    gradient_b: Array,
    alpha: float,
    n: int,
    *,
    num_labels: int = 3,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
    cell: int = 2,
    transport_eps: float | None = 0.8,
    solve: Callable[[Array, Array, Array], NDArray[np.int64]] = brute_force,
) -> tuple[Array, Array, float]:
    """The mixed pixels (C, H, W), the mask (H, W) and the share of A.

    alpha is the prior share, n x n the blocks; a transport_eps of None moves nothing.
    """
    saliency_a, saliency_b = block_saliency(gradient_a, n), block_saliency(gradient_b, n)
    terms = energy(
        saliency_a,
        saliency_b,
        pixels_a,
        pixels_b,
        alpha,
        num_labels=num_labels,
        beta=beta,
        gamma=gamma,
        eta=eta,
        cell=cell,
    )
    mask = 1 - solve(*terms) / (num_labels - 1)
    if transport_eps is not None:
        pixels_a = move_blocks(pixels_a, transport(mask, saliency_a, transport_eps))
        pixels_b = move_blocks(pixels_b, transport(1 - mask, saliency_b, transport_eps))
    tall, wide = pixels_a.shape[1] // n, pixels_a.shape[2] // n
    full = mask.repeat(tall, 0).repeat(wide, 1)
    return full * pixels_a + (1 - full) * pixels_b, full, float(full.mean())
