"""Puzzle-Mix's transport: which block of an image to show in each place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CACHE_IMAGES = 16  # as many as a CPU's cache holds at once


@torch.no_grad()
def transport(mask: Tensor, saliency: Tensor, eps: float) -> Tensor:
    """The source block of each target block, (B, n*n) int64: salient blocks move where `mask` > 0.

    mask and saliency (B, n, n). Moving i to j costs eps * |i - j|^2 / (n - 1)^2 less the saliency
    of i where j is visible. n rounds: each block picks its cheapest place, the cheapest block wins
    a place, losers pay 1 more for it; the last round counts. ValueError for other shapes.
    Differs: a place that nobody wins keeps its own block, where the official code leaves a hole; so
    do hidden places.
    """
    if mask.ndim != 3 or mask.shape[1] != mask.shape[2] or mask.shape != saliency.shape:
        raise ValueError(
            f"mask and saliency must both be (B, n, n), not {tuple(mask.shape)} "
            f"and {tuple(saliency.shape)}"
        )
    if not 0 <= eps < math.inf:
        raise ValueError(f"transport eps must be 0 or more, not {eps}")
    n, device = mask.shape[1], mask.device
    rows, cols = torch.arange(n * n, device=device) // n, torch.arange(n * n, device=device) % n
    distance = (rows[:, None] - rows).square() + (cols[:, None] - cols).square()
    # (n*n, n*n) from a block to a place
    distance = eps * (distance / max(n - 1, 1) ** 2).to(saliency.dtype)
    # (n*n, n*n) places by distance from each block, then by number
    nearest = distance.sort(dim=1, stable=True).indices
    in_parts = device.type == "cpu" and not torch.compiler.is_compiling()
    size = CACHE_IMAGES if in_parts else len(mask)
    parts = zip(mask.split(size), saliency.split(size), strict=True)
    return torch.cat([_transport(*part, distance, nearest) for part in parts])


def _transport(mask: Tensor, saliency: Tensor, distance: Tensor, nearest: Tensor) -> Tensor:
    """`transport` of a few images, with the distances and their order (n*n, n*n)."""
    n, places, batch = mask.shape[1], len(distance), len(mask)
    blocks = torch.arange(places, device=mask.device)[:, None]
    saliency = saliency.flatten(1).T  # (n*n, B)
    # A block only ever picks from its n nearest visible places, since it loses n - 1 times at most
    # before its last pick.
    hidden = (mask.flatten(1) <= 0).T.to(torch.int16) * places  # (n*n, B)
    # the first visible rank from each rank on, of each block
    following = hidden.new_full((places + 1, places, batch), places)
    torch.maximum(hidden[nearest.T], blocks[..., None].to(torch.int16), out=following[:-1])
    reach = 1
    while reach < places:  # by doubling
        following[:-reach] = torch.minimum(following[:-reach], following[reach:])
        reach *= 2
    rank = following[0].long()  # (block, B)
    # the candidates of each block, one more each round
    place = rank.new_full((n, places, batch), places)
    cost = saliency.new_full((n, places, batch), math.inf)
    none_won = saliency.new_zeros(places + 1, batch)
    for turn in range(n):
        none, where = rank == places, nearest.gather(1, rank.clamp_max(places - 1))
        place[turn] = where.masked_fill(none, places)
        cost[turn] = (distance.gather(1, where) - saliency).masked_fill(none, math.inf)
        rank = following.gather(0, (rank + 1).clamp_max(places)[None])[0].long()
        known, prices = place[: turn + 1], cost[: turn + 1]
        price = _least(prices)  # (block, B)
        pick = _least(known.masked_fill(prices != price, places))  # the lowest place among equals
        lowest = none_won.scatter_reduce(0, pick, price, "amin")
        bids = price < 0  # staying hidden costs nothing
        bid = blocks.expand_as(pick).masked_fill(~bids | (price != lowest.gather(0, pick)), places)
        winner = torch.full_like(none_won, places, dtype=torch.int64).scatter_reduce_(
            0, pick, bid, "amin"
        )
        lost = bids & (winner.gather(0, pick) != blocks)
        if mask.device.type == "cpu" and not torch.compiler.is_compiling() and not lost.any():
            break  # the other rounds would be the same; elsewhere this would wait
        prices += (known == pick) & lost
    winner = winner[:places]
    return torch.where(winner < places, winner, blocks).T


def _least(rows: Tensor) -> Tensor:
    """The minimum over the first dimension, by halves: many times faster than amin on the CPU."""
    while len(rows) > 1:
        half = (len(rows) + 1) // 2
        rows = torch.minimum(rows[:half], rows[-half:])
    return rows[0]


def move_blocks(images: Tensor, source: Tensor) -> Tensor:
    """Images whose block j is block source[:, j] of the given ones, (B, C, H, W)."""
    batch, places = source.shape
    n = math.isqrt(places)
    blocks = images.unflatten(3, (n, -1)).unflatten(2, (n, -1))
    blocks = blocks.permute(0, 2, 4, 1, 3, 5)  # (B, n, n, C, h, w)
    row = torch.arange(batch, device=images.device)[:, None]
    moved = blocks[row, source // n, source % n]  # (B, n*n, C, h, w)
    return moved.unflatten(1, (n, n)).permute(0, 3, 1, 4, 2, 5).reshape(images.shape)
