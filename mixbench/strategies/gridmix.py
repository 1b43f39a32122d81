"""GridMix (Baek et al., 2021): a lattice of square holes shows the partner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import MixContext, MixedBatch, MixStrategy, beta, mirrored, randint, send
from mixbench.registry import register_strategy
from mixbench.values import check_order, check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor


def lattice(width: int, count: int, lam: float) -> tuple[int, int]:
    """The side of a cell and of the hole in it, in pixels, for `count` cells across the width.

    The hole is at least one pixel and smaller than its cell, so that both images are seen.
    """
    cell = math.ceil(width / count)
    return cell, min(max(int(cell * math.sqrt(1 - lam)), 1), cell - 1)


def lattice_mask(sides: Tensor, images: Tensor) -> Tensor:
    """0 in the holes at the upper left of each cell, 1 elsewhere, (1, 1, H, W) float32.

    sides (1, 2) int64 holds the side of a cell and of its hole, on the device of `images`.
    """
    import torch

    cell, hole = sides.unbind(1)  # (1,) each
    rows, cols = (
        torch.arange(side, device=images.device) % cell < hole for side in images.shape[-2:]
    )
    return (~(rows[:, None] & cols)).float()[None, None]


def paste_lattice(images: Tensor, sides: Tensor) -> tuple[Tensor, Tensor]:
    """A copy of `images` with the mirrored batch in the holes, (B, C, H, W), and `lattice_mask`."""
    mask = lattice_mask(sides, images)
    return images.where(mask.bool(), images.flip(0)), mask


@register_strategy("gridmix")
@dataclass(frozen=True)
class GridMix(MixStrategy):
    """The partner is seen through square holes, one in each cell of a grid over the image.

    The number of cells across the width is drawn from low .. high, their share that is the image's
    from Beta(alpha, alpha); the label is by the pixels. Images must be at least 2 * high wide.
    Differs: the paper gives whole cells to either image, which is `maskmix`, and adds a loss of
    patch labels; this is the lattice that tables call GridMix, OpenMixup's, over the whole image:
    its configurations draw a window that leaves the image in 58 % of draws, and swap H and W.
    """

    alpha: float = parameter(1.0, above=0)
    low: int = parameter(2, at_least=1, at_most=2**16)
    high: int = parameter(6, at_least=1, at_most=2**16)

    def __post_init__(self) -> None:
        check_parameters(self, GridMix, "gridmix")
        check_order(self, "gridmix", "low", "high", "the number of cells")

    def check_images(self, height: int, width: int, grid: tuple[int, int] | None) -> None:
        if width < 2 * self.high:
            raise ValueError(
                f"gridmix high must be at most half the images' width, {width} px, not "
                f"{self.high}: a cell needs 2 pixels"
            )

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        height, width = images.shape[-2:]
        self.check_images(height, width, ctx.grid)
        lam = beta(ctx.rng, self.alpha)
        count = self.low + randint(ctx.rng, self.high - self.low + 1)
        sides = send([lattice(width, count, lam)], images)
        mixed, mask = ctx.tensor_half(paste_lattice)(images, sides)
        return MixedBatch(images=mixed, labels=labels, partner=mirrored(images), mask=mask)
