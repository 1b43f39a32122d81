"""Puzzle-Mix's energy (Kim et al., ICML 2020): what hiding a block and parting neighbours cost."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def block_saliency(gradient: Tensor, n: int) -> Tensor:
    """The gradient's root mean square over channels in n x n blocks, (B, n, n) float32.

    The blocks of an image sum to 1; uniform where its gradient is zero or not finite.
    """
    gradient = gradient.float()
    peak = torch.maximum(
        gradient.amax((1, 2, 3), keepdim=True), -gradient.amin((1, 2, 3), keepdim=True)
    )
    scaled = gradient / peak.clamp_min(torch.finfo(torch.float32).tiny)  # squares would underflow
    blocks = F.adaptive_avg_pool2d(scaled.square_().mean(1).sqrt_(), n)  # (B, n, n)
    share = blocks / blocks.sum((1, 2), keepdim=True)
    return torch.where(share.isfinite().all(2, keepdim=True).all(1, keepdim=True), share, 1 / n**2)


def boundary_contrast(before: Tensor, after: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The mean absolute difference across block boundaries, (B, n-1, n) and (B, n, n-1).

    First those between rows, then those between columns of blocks. `before` (B, C, h, w) holds the
    cells above or left of a boundary, `after` those below or right of it.
    """
    tall, wide = before.shape[-2] // n, before.shape[-1] // n  # cells along a block's edge
    rows = before[:, :, tall - 1 :: tall][:, :, :-1] - after[:, :, tall::tall]
    cols = before[..., wide - 1 :: wide][..., :-1] - after[..., wide::wide]
    rows, cols = rows.abs().mean(1), cols.abs().mean(1)  # (B, n-1, w), (B, h, n-1)
    return rows.unflatten(2, (n, wide)).mean(3), cols.unflatten(1, (n, tall)).mean(2)


def mask_energy(
    saliency: Tensor,
    images: Tensor,
    std: Tensor,
    alpha: float | Tensor,
    *,
    num_labels: int,
    beta: float,
    gamma: float,
    eta: float,
    cell: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each image's energy against the mirrored batch, the unary (B, n, n, L) and two edge weights.

    The weights are vertical and horizontal, as `solve_mask` takes them. saliency (B, n, n) sums to
    1; images (B, C, H, W) are normalised by std (C, 1, 1); alpha, a number or (), is the prior
    share of A; cell is the side in pixels over which the images are averaged before they are
    compared across block boundaries.
    """
    n = saliency.shape[-1]
    beta = beta / n / 16
    # pixels in [0, 1] but for the mean, which differences cancel
    pooled = F.avg_pool2d(images.float(), cell).nan_to_num(0, 0, 0) * std
    ours, theirs = pooled, pooled.flip(0)
    # contrast[a][b]: A (1) or B (0) before the boundary, and after it
    contrast = [
        [boundary_contrast(first, second, n) for second in (theirs, ours)]
        for first in (theirs, ours)
    ]
    cost_a, cost_b = saliency.flip(0), saliency.clone()  # showing an image hides the other
    edges = []
    for axis in (0, 1):
        bb, ba, ab, aa = (contrast[i][j][axis] * (beta * gamma) for i in (0, 1) for j in (0, 1))
        # the four costs of an edge as two unary terms and a symmetric edge weight, up to a constant
        first = [slice(None), slice(None), slice(None)]
        second = list(first)
        first[1 + axis], second[1 + axis] = slice(None, -1), slice(1, None)
        cost_a[tuple(first)] += (ab + aa) / 2
        cost_b[tuple(first)] += (ba + bb) / 2
        cost_a[tuple(second)] += (ba + aa) / 2
        cost_b[tuple(second)] += (ab + bb) / 2
        # not negative while pixels lie in [0, 1] and gamma in [0, 1]
        edges.append(((ab + ba - aa - bb) / 2 + beta).clamp_min(0))
    labels = []
    for label in range(num_labels):
        share = label / (num_labels - 1)
        likely = (
            math.comb(num_labels - 1, label)
            * (1 - alpha) ** label
            * alpha ** (num_labels - 1 - label)
        )
        prior = (likely + 1e-8).log() if isinstance(likely, Tensor) else math.log(likely + 1e-8)
        labels.append((1 - share) * cost_a + share * cost_b - eta / n**2 * prior)
    return torch.stack(labels, 3), edges[0], edges[1]
