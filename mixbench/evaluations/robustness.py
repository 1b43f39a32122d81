"""Images with patches dropped or shuffled, and the order in which patches are dropped.

Source: the paper's section 4.3, which follows Naseer et al. 2021 (IPViT).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mixbench.mix import hashed_seed

Grid = int | tuple[int, int]
Array = TypeVar("Array", Tensor, np.ndarray)

# rows and columns; 1 is the image as it is
SHUFFLE_GRIDS = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (14, 14), (16, 16))
LEVELS = 10


def drop_patches(images: Array, indices: Array | Sequence[int], grid: Grid) -> Array:
    """A copy of images (B, C, H, W) in [0, 1] whose patches of these numbers are 0.

    indices are (n,), the same for all images, or (B, n): row * columns + column. `grid` is
    (rows, columns), or a number for both. An array of NumPy gives one. ValueError for a grid that
    does not divide the sides, and for numbers outside it.
    """
    pixels = torch.as_tensor(images)
    rows, columns = checked_grid(grid, pixels)
    numbers = _numbers(indices, "indices", rows * columns, len(pixels)).to(pixels.device)
    dropped = pixels.new_zeros(len(numbers), rows * columns, dtype=torch.bool)
    dropped.scatter_(1, numbers, True)
    return _like(hide(pixels, dropped.view(-1, rows, columns)), images)


def shuffle_patches(images: Array, permutation: Array | Sequence[int], grid: Grid) -> Array:
    """Images (B, C, H, W) whose patch i is patch permutation[i] of the image.

    permutation is (rows * columns,), the same for all images, or (B, rows * columns). `grid` is
    (rows, columns), or a number for both. An array of NumPy gives one. ValueError for a grid that
    does not divide the sides, and where a number is missing or comes twice.
    """
    pixels = torch.as_tensor(images)
    rows, columns = checked_grid(grid, pixels)
    cells = rows * columns
    numbers = _numbers(permutation, "permutation", cells, len(pixels)).to(pixels.device)
    if any(sorted(row) != list(range(cells)) for row in numbers.tolist()):
        raise ValueError(f"permutation must have each number from 0 to {cells - 1} once")
    count, channels, height, width = pixels.shape
    patches = pixels.reshape(count, channels, rows, height // rows, columns, width // columns)
    patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, cells, C, h, w)
    image = torch.arange(count, device=pixels.device)[:, None]
    patches = patches[image, numbers].unflatten(1, (rows, columns))
    return _like(patches.permute(0, 3, 1, 4, 2, 5).reshape(pixels.shape), images)


def hide(images: Tensor, dropped: Tensor) -> Tensor:
    """Images (B, C, H, W) that are 0 where `dropped` (B or 1, rows, columns) is true; a copy."""
    _, rows, columns = dropped.shape
    height, width = images.shape[-2:]
    patches = images.unflatten(-1, (columns, -1)).unflatten(-3, (rows, -1))
    patches = patches.masked_fill(dropped[:, None, :, None, :, None], 0)
    return patches.flatten(-4, -3).flatten(-2).view(*images.shape[:2], height, width)


def checked_grid(grid: Grid, images: Tensor) -> tuple[int, int]:
    """The rows and columns of a grid that divides images (B, C, H, W); else ValueError."""
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    if images.ndim != 4:
        raise ValueError(f"images must be (B, C, H, W), not of shape {tuple(images.shape)}")
    height, width = images.shape[-2:]
    if rows < 1 or columns < 1 or height % rows or width % columns:
        raise ValueError(
            f"grid {rows}x{columns} does not divide images of {height}x{width} pixels: choose rows "
            f"that divide {height} and columns that divide {width}"
        )
    return rows, columns


def _numbers(values: object, name: str, cells: int, count: int) -> Tensor:
    """Patch numbers (n,) or (B, n) as (1 or B, n) int64; else ValueError."""
    numbers = torch.as_tensor(values)
    if numbers.numel() == 0:
        numbers = numbers.long()
    if numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise ValueError(f"{name} must be whole numbers of patches, not {numbers.dtype}")
    if numbers.ndim not in (1, 2) or (numbers.ndim == 2 and len(numbers) != count):
        raise ValueError(
            f"{name} must be (n,) or ({count}, n) for {count} images, not of shape "
            f"{tuple(numbers.shape)}"
        )
    if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < cells:
        wrong = numbers[(numbers < 0) | (numbers >= cells)][0]
        raise ValueError(f"{name} must be from 0 to {cells - 1} in this grid, not {int(wrong)}")
    numbers = numbers.long()
    return numbers if numbers.ndim == 2 else numbers[None]


def _like(images: Tensor, given: Array) -> Array:
    return images if isinstance(given, Tensor) else images.numpy()


# Which patches are dropped. An order (B, cells) has the patch that is dropped first first.


def drop_counts(cells: int, levels: int = LEVELS) -> list[int]:
    """How many of `cells` patches are dropped at each level: k * cells // levels, from 0 on."""
    return [level * cells // levels for level in range(levels)]


def random_permutation(seed: int, image: int, cells: int) -> Tensor:
    """The numbers of `cells` patches in an order of this seed and image alone, (cells,) int64."""
    rng = torch.Generator().manual_seed(hashed_seed("patches", seed, image, cells))
    return torch.randperm(cells, generator=rng)


def on_grid(saliency: Tensor, grid: tuple[int, int]) -> Tensor:
    """Saliency (B, h, w) as its mean over each patch of a grid, (B, rows, columns).

    Exact for any two grids: the map is enlarged to a multiple of both, and averaged.
    """
    for axis, size in ((-2, grid[0]), (-1, grid[1])):
        whole = math.lcm(saliency.shape[axis], size)
        saliency = saliency.repeat_interleave(whole // saliency.shape[axis], axis)
        saliency = saliency.unflatten(axis, (size, -1)).mean(axis)
    return saliency


def least_first(saliency: Tensor) -> Tensor:
    """The patches of maps (B, rows, columns) from the least salient on, (B, cells) int64.

    Equal ones keep the order of rows and columns. Reversed, it is the order of salient dropping.
    """
    return saliency.flatten(1).argsort(dim=1, stable=True)


def mass_counts(saliency: Tensor, share: float, salient: bool) -> Tensor:
    """How many patches hold `share` of the sum of maps (B, rows, columns), (B,) int64.

    The most salient of them, or the least. The patch at the border is among the salient ones, so
    that most salient(share) and least salient(1 - share) are all patches.
    Source: IPViT's masks, which keep the patches whose cumulative sum, ascending, is above
    1 - share. Differs: a share of 0 is no patch, and of 1 all, whatever the sum is rounded to.
    """
    ascending = saliency.flatten(1).sort(1).values.double()
    below = 1 - share if salient else share
    least = (ascending.cumsum(1) / ascending.sum(1, keepdim=True) <= below + 1e-9).sum(1)
    cells = ascending.shape[1]
    least = torch.full_like(least, cells) if below >= 1 else least
    least = torch.zeros_like(least) if below <= 0 else least
    return cells - least if salient else least


def first_of(order: Tensor, counts: Tensor) -> Tensor:
    """Which patches are among the first `counts` (B,) of their order (B, cells); bool alike."""
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, order, places < counts[:, None])


def area_under(shares: Sequence[float], values: Sequence[float]) -> float:
    """The mean height of a curve over its shares, which ascend; the trapezoidal rule."""
    if len(shares) < 2:
        raise ValueError(f"the area under a curve needs 2 levels or more, not {len(shares)}")
    return float(np.trapezoid(values, shares) / (shares[-1] - shares[0]))
