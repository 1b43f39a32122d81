"""Puzzle-Mix's mask: labels on an n x n grid of least energy, exact or with a bound.

The energy of labels l is sum unary + sum weight ((l_i - l_j) / (L - 1))^2 over neighbours i, j.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

EXACT_STATES = 1024  # dynamic programming while L^n is at most this

# of the dual solver for each level of a label: fixed, since to stop early would wait for the device
STEPS = 60

CACHE_IMAGES = 64  # as many as a CPU's cache holds at once

# in units of the median unary difference; 0 at convergence
THRESHOLDS = (-0.5, -0.1, -0.02, -0.005, 0.0, 0.005, 0.02, 0.1, 0.5)


@torch.no_grad()
def solve_mask(
    unary: Tensor, vertical: Tensor, horizontal: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Labels of least energy, (B, n, n) int64, their energy and a lower bound of any, (B,) float64.

    unary (B, n, n, L), vertical (B, n-1, n) and horizontal (B, n, n-1) weights, none negative.
    Exact, bound equal to energy, while L^n <= EXACT_STATES. ValueError for other shapes and, on the
    CPU, where it can be seen without waiting, for negative weights.
    """
    _check_energy(unary, vertical, horizontal)
    n, labels = unary.shape[1], unary.shape[3]
    if labels**n <= EXACT_STATES:
        best = _frontier(unary.double(), vertical.double(), horizontal.double())
        energy = mask_cost(best, unary, vertical, horizontal)
        return best, energy, energy.clone()
    size = CACHE_IMAGES if unary.device.type == "cpu" else len(unary)
    parts = [
        _cut(*part)
        for part in zip(
            unary.split(size), vertical.split(size), horizontal.split(size), strict=True
        )
    ]
    best, energy, bound = (torch.cat(part) for part in zip(*parts, strict=True))
    return best, energy, bound


def _check_energy(unary: Tensor, vertical: Tensor, horizontal: Tensor) -> None:
    if (
        unary.ndim != 4
        or unary.shape[1] != unary.shape[2]
        or 0 in unary.shape
        or unary.shape[3] < 2
    ):
        raise ValueError(f"unary must be (B, n, n, L) with L at least 2, not {tuple(unary.shape)}")
    batch, n = unary.shape[:2]
    for name, edges, shape in (
        ("vertical", vertical, (batch, n - 1, n)),
        ("horizontal", horizontal, (batch, n, n - 1)),
    ):
        if edges.shape != shape:
            raise ValueError(
                f"{name} must be {shape} for a unary of {tuple(unary.shape)}, "
                f"not {tuple(edges.shape)}"
            )
        if edges.device.type == "cpu" and not (edges >= 0).all():
            raise ValueError(
                f"{name} weights must not be negative or NaN: the least is {edges.min().item()}"
            )


def mask_cost(labels: Tensor, unary: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """The energy of labels (..., B, n, n), (..., B) float64."""
    share = labels.double() / (unary.shape[-1] - 1)
    alone = unary.double().expand(*labels.shape, -1).gather(-1, labels[..., None])[..., 0]
    down = vertical.double() * share.diff(dim=-2).square()
    right = horizontal.double() * share.diff(dim=-1).square()
    return alone.sum((-2, -1)) + down.sum((-2, -1)) + right.sum((-2, -1))


def _frontier(unary: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Exact labels, (B, n, n), by dynamic programming over the labels of the last n cells."""
    batch, n, _, size = unary.shape
    unary, vertical, horizontal = (
        t.permute(*range(1, t.ndim), 0).contiguous() for t in (unary, vertical, horizontal)
    )  # (n, n, ..., B)
    levels = torch.arange(size, device=unary.device)
    jump = ((levels[:, None] - levels) / (size - 1)).double().square()[..., None]  # (L, L, 1)
    cost = unary.new_zeros(size**n, batch)  # the state's digit j is the last label of column j
    back = []
    for row in range(n):
        for col in range(n):
            left, right = size**col, size ** (n - 1 - col)
            old = cost.view(left, 1, size, right, batch)
            if row:
                old = old + (jump * vertical[row - 1, col])[:, :, None]
            new, choice = old.expand(-1, size, -1, -1, -1).min(2)  # (left, L, right, B)
            new = new + unary[row, col][:, None]
            if col:
                new = (
                    new.view(left // size, size, size, right, batch)
                    + (jump * horizontal[row, col - 1])[:, :, None]
                )
            cost = new.reshape(size**n, batch)
            back.append(choice.to(torch.uint8).reshape(size**n, batch))
    state, chosen = cost.argmin(0, keepdim=True), []  # (1, B)
    for cell in reversed(range(n * n)):
        unit = size ** (n - 1 - cell % n)
        label = state // unit % size
        chosen.append(label)
        state = state + (back[cell].gather(0, state) - label) * unit
    return torch.cat(chosen[::-1]).T.reshape(batch, n, n)


def _cut(unary: Tensor, vertical: Tensor, horizontal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`solve_mask` by the dual of the minimum cut, with a certificate.

    With x[k] = [label > k] the energy is a cut (Ishikawa, 2003): sum c[k] x[k] plus capacities
    times positive parts of differences of x. With |x|^2 / 2 added, x > 0 at the minimum is a
    minimum cut (Chambolle, 2005, for total variation), and the dual is least squares in the flow
    within its capacities: accelerated projected gradient (Beck and Teboulle, 2009) solves it
    without any parameter of scale. Any flow within the capacities gives a bound.
    """
    batch, n, _, size = unary.shape
    difference = unary.double().diff(dim=3).permute(3, 1, 2, 0)
    difference = difference.flatten(1, 2).contiguous()  # (L - 1, n*n, B)
    median, mean = difference.abs().flatten(0, 1).median(0).values, difference.abs().mean((0, 1))
    scale = torch.where(median > 0, median, torch.where(mean > 0, mean, 1))
    # of the edge to the right of a cell, and below it
    weight = difference.new_zeros(2, 1, n, n, batch)
    weight[0, 0, :, :-1] = horizontal.permute(1, 2, 0)
    weight[1, 0, :-1] = vertical.permute(1, 2, 0)
    # a row's last cell has the next row's first to its right, with weight 0
    weight = weight.flatten(2, 3) / (size - 1) ** 2
    # float32 has no room for more than the clamps leave
    share, flow = _flow(
        (difference / scale).clamp(-1e30, 1e30).float(), (weight / scale).clamp_max(1e30).float(), n
    )
    labels = torch.stack([(share > threshold).sum(0) for threshold in THRESHOLDS])  # (T, n*n, B)
    labels = labels.unflatten(1, (n, n)).permute(0, 3, 1, 2)
    # stiff edges want a single label
    plain = torch.arange(size, device=labels.device)[:, None, None, None].expand(-1, batch, n, n)
    labels = torch.cat([labels, plain, unary.argmin(3)[None]])
    energy, choice = mask_cost(labels, unary, vertical, horizontal).min(0)
    labels = labels.gather(0, choice[None, :, None, None].expand(1, -1, n, n))[0]
    return labels, energy, torch.minimum(_bound(unary, weight, flow.double() * scale, n), energy)


def _level_pairs(levels: int) -> list[tuple[int, int]]:
    """All (k, m) with k < m."""
    return [(low, high) for high in range(levels) for low in range(high)]


def _capacity(weight: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Least and greatest flow of each arc, (2, arcs, n*n, B).

    The arcs of |x[k]_j - x[k]_i| come first, then two for each pair of levels:
    (l_i - l_j)^2 = sum_k |x[k]_i - x[k]_j| + 2 sum_{k<m} (x[m]_j - x[k]_i)+ + (x[m]_i - x[k]_j)+.
    """
    arcs = levels * (levels - 1)
    most = torch.cat([weight] * levels + [2 * weight] * arcs, 1)
    least = torch.cat([-weight] * levels + [torch.zeros_like(weight)] * arcs, 1)
    return least, most


def _arcs(flow: Tensor, x: Tensor, n: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Views of all arcs: flow, the x it raises, the x it lowers.

    flow (2, arcs, n*n, B), x (levels, n*n, B).
    """
    levels, arcs = len(x), []
    for part, step in zip(flow, (1, n), strict=True):
        first, second = slice(None, -step), slice(step, None)
        arcs.append((part[:levels, first], x[:, second], x[:, first]))
        for number, (low, high) in enumerate(_level_pairs(levels)):
            arcs.append((part[levels + 2 * number, first], x[high, second], x[low, first]))
            arcs.append((part[levels + 2 * number + 1, first], x[high, first], x[low, second]))
    return arcs


def _descending(x: Tensor) -> None:
    """Project x (levels, ...) in place on x[0] >= x[1] >= ...

    x[k] becomes the least over i <= k of the greatest over j >= k of the mean of x[i..j].
    """
    levels = len(x)
    if levels == 2:
        middle = (x[0] + x[1]).mul_(0.5)
        torch.maximum(x[0], middle, out=x[0])
        torch.minimum(x[1], middle, out=x[1])
    elif levels > 2:
        means = [[x[i : j + 1].mean(0) for j in range(levels)] for i in range(levels)]
        for k in range(levels):
            tops = [torch.stack(means[i][k:]).amax(0) for i in range(k + 1)]
            torch.amin(torch.stack(tops), 0, out=x[k])


@cache
def _triton_flow(device: torch.device) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """The loop of `_flow` as one launch; None, with a warning, where Triton cannot be used.

    It is missing on Windows, or cannot compile.
    """
    try:
        from mixbench.puzzle.mask_triton import flow

        flow(torch.zeros(1, 4, 1, device=device), torch.zeros(2, 1, 4, 1, device=device), 2, 1, 1.0)
    except Exception as error:  # a C compiler may be missing, or the GPU be too old
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        warnings.warn(
            f"Puzzle-Mix's mask takes thousands of launches instead of one: "
            f"Triton cannot be used ({reason})",
            stacklevel=2,
        )
        return None
    return flow


def _flow(difference: Tensor, weight: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Signed x, (levels, n*n, B), above 0 where the label exceeds the level, and the flow.

    The flow (2, arcs, n*n, B) is feasible but for rounding.
    """
    levels = len(difference)
    # the squared norm of the arcs is 8 levels; momentum is stable up to 4/3 of its inverse
    step = 1.25 / (8 * levels)
    steps = STEPS * max(levels, 2)
    kernel = _triton_flow(difference.device) if difference.is_cuda else None
    if kernel:
        return kernel(difference.contiguous(), weight.contiguous(), n, steps, step)
    least, most = _capacity(weight, levels)
    x, start = torch.empty_like(difference), difference * -step
    flow, ahead, new = (torch.zeros_like(least) for _ in range(3))
    # views made once: slicing costs as much as adding
    arcs = {id(f): _arcs(f, x, n) for f in (flow, ahead, new)}

    def primal(f: Tensor) -> None:
        x.copy_(start)
        for part, up, down in arcs[id(f)]:
            up.sub_(part, alpha=step)
            down.add_(part, alpha=step)
        _descending(x)

    for number in range(steps):
        primal(ahead)  # x is step times the primal here
        for part, up, down in arcs[id(new)]:
            torch.sub(up, down, out=part)
        torch.clamp(new.add_(ahead), least, most, out=new)
        torch.lerp(flow, new, 1 + number / (number + 3), out=ahead)
        flow, new = new, flow
    primal(flow)
    return x / step, flow


def _bound(unary: Tensor, weight: Tensor, flow: Tensor, n: int) -> Tensor:
    """The dual objective of a flow, clamped to its capacities, less rounding, (B,) float64."""
    batch, levels = unary.shape[0], unary.shape[3] - 1
    flow = torch.clamp(flow, *_capacity(weight, levels))
    moved = flow.new_zeros(levels, n * n, batch)
    for part, up, down in _arcs(flow, moved, n):
        up += part
        down -= part
    cost = unary.double().clone()
    cost[..., 1:] += moved.cumsum(0).view(levels, n, n, batch).permute(3, 1, 2, 0)
    size = unary.double().abs().sum((1, 2, 3)) + 2 * levels * flow.abs().sum((0, 1, 2))
    rounding = (n * n + 8 * levels**2) * torch.finfo(torch.float64).eps * size
    return cost.amin(3).sum((1, 2)) - rounding
