"""The loop of Puzzle-Mix's mask solver as one Triton kernel, a program an image.

`mask._flow` would launch thousands of small ones.
"""

# Triton reads a kernel's annotations: its tensors have no Python types.
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _along(matrix, values):
    """matrix (M, K) times values (K, N), (M, N), without tensor cores, which round."""
    return tl.sum(matrix[:, :, None] * values[None, :, :], 1)


@triton.jit
def _descend(x, levels: tl.constexpr, level):
    """`mask._descending` of x (LEVELS, N)."""
    if levels == 2:
        middle = (tl.sum(x, 0) * 0.5)[None, :]
        x = tl.where(level == 0, tl.maximum(x, middle), tl.minimum(x, middle))
    if levels == 3:
        first = tl.sum(tl.where(level == 0, x, 0.0), 0)
        second = tl.sum(tl.where(level == 1, x, 0.0), 0)
        third = tl.sum(tl.where(level == 2, x, 0.0), 0)
        upper, lower, every = (
            (first + second) / 2,
            (second + third) / 2,
            (first + second + third) / 3,
        )
        top = tl.maximum(first, tl.maximum(upper, every))
        middle = tl.minimum(tl.maximum(upper, every), tl.maximum(second, lower))
        bottom = tl.minimum(third, tl.minimum(lower, every))
        x = tl.where(
            level == 0, top[None, :], tl.where(level == 1, middle[None, :], bottom[None, :])
        )
    return x


@triton.jit
def _primal(
    start,
    right,
    down,
    here,
    there,
    left,
    above,
    inside_left,
    inside_above,
    step,
    levels: tl.constexpr,
    level,
):
    """x (LEVELS, N) of the flows to the right and down, (ARCS, N) each."""
    moved = tl.where(inside_left, tl.gather(_along(there, right), left, 1), 0.0)
    moved += tl.where(inside_above, tl.gather(_along(there, down), above, 1), 0.0)
    return _descend(start + step * (_along(here, right + down) + moved), levels, level)


@triton.jit
def _incidence(level, arc, levels: tl.constexpr, arcs: tl.constexpr):
    """What an arc adds to each level of its first and second cell, (LEVELS, ARCS) each.

    See `mask._arcs`. Made on the device, since a copy from the host would wait.
    """
    number = (arc - levels) // 2  # of the pair of levels: (0, 1), (0, 2), (1, 2)
    low, high = level == tl.where(number == 2, 1, 0), level == tl.where(number > 0, 2, 1)
    pair = (arc >= levels) & (arc < arcs)
    first, second = pair & ((arc - levels) % 2 == 0), pair & ((arc - levels) % 2 == 1)
    same = (arc < levels) & (level == arc)
    here = tl.where(same | (first & low), 1.0, 0.0) - tl.where(second & high, 1.0, 0.0)
    there = tl.where(second & low, 1.0, 0.0) - tl.where(same | (first & high), 1.0, 0.0)
    return here, there


@triton.jit
def _loop(
    difference,
    weight,
    x_out,
    flow_out,
    batch,
    n,
    step,
    steps: tl.constexpr,
    levels: tl.constexpr,
    arcs: tl.constexpr,
    LEVELS: tl.constexpr,
    ARCS: tl.constexpr,
    N: tl.constexpr,
):
    image, cells = tl.program_id(0), n * n
    level, arc, cell = (
        tl.arange(0, LEVELS)[:, None],
        tl.arange(0, ARCS)[:, None],
        tl.arange(0, N)[None, :],
    )
    at = level * cells + cell
    known = (level < levels) & (cell < cells)
    start = tl.load(difference + at * batch + image, mask=known, other=0.0) * -step
    # 0 where there is no neighbour
    to_right = tl.load(weight + cell * batch + image, mask=cell < cells, other=0.0)
    to_below = tl.load(weight + (cells + cell) * batch + image, mask=cell < cells, other=0.0)
    same, most = arc < levels, tl.where(arc < levels, 1.0, tl.where(arc < arcs, 2.0, 0.0))
    most_right, most_down = most * to_right, most * to_below
    least_right, least_down = tl.where(same, -most_right, 0.0), tl.where(same, -most_down, 0.0)
    here, there = _incidence(level, tl.arange(0, ARCS)[None, :], levels, arcs)
    here_back, there_back = tl.trans(here), tl.trans(there)
    everywhere = tl.zeros((LEVELS, N), tl.int32) + cell
    left, above = tl.maximum(everywhere - 1, 0), tl.maximum(everywhere - n, 0)
    beside, below = tl.minimum(everywhere + 1, N - 1), tl.minimum(everywhere + n, N - 1)
    inside_left, inside_above = everywhere >= 1, everywhere >= n
    right = tl.zeros((ARCS, N), tl.float32)
    down, ahead_right, ahead_down = right, right, right
    for number in range(steps):
        x = _primal(
            start,
            ahead_right,
            ahead_down,
            here,
            there,
            left,
            above,
            inside_left,
            inside_above,
            step,
            levels,
            level,
        )
        own = _along(here_back, x)
        new_right = ahead_right - own - _along(there_back, tl.gather(x, beside, 1))
        new_down = ahead_down - own - _along(there_back, tl.gather(x, below, 1))
        new_right = tl.minimum(tl.maximum(new_right, least_right), most_right)
        new_down = tl.minimum(tl.maximum(new_down, least_down), most_down)
        momentum = number / (number + 3.0)
        ahead_right = new_right + momentum * (new_right - right)
        ahead_down = new_down + momentum * (new_down - down)
        right, down = new_right, new_down
    x = _primal(
        start, right, down, here, there, left, above, inside_left, inside_above, step, levels, level
    )
    tl.store(x_out + at * batch + image, x / step, mask=known)
    at = arc * cells + cell
    known = (arc < arcs) & (cell < cells)
    tl.store(flow_out + at * batch + image, right, mask=known)
    tl.store(flow_out + (arcs * cells + at) * batch + image, down, mask=known)


def flow(
    difference: Tensor, weight: Tensor, n: int, steps: int, step: float
) -> tuple[Tensor, Tensor]:
    """`mask._flow` by the kernel: signed x (levels, n*n, B) and the flow (2, arcs, n*n, B).

    difference (levels, n*n, B) and weight (2, 1, n*n, B), both float32, lie on one GPU.
    """
    levels, cells, batch = difference.shape
    x, moved = torch.empty_like(difference), difference.new_empty(2, levels**2, cells, batch)
    sizes = [triton.next_power_of_2(size) for size in (levels, levels**2, cells)]
    loop: Any = _loop[(batch,)]
    with torch.cuda.device_of(difference):  # Triton launches on the current device
        loop(
            difference,
            weight,
            x,
            moved,
            batch,
            n,
            step,
            steps,
            levels,
            levels**2,
            *sizes,
            num_warps=4 if levels < 3 else 8,
        )
    return x, moved
