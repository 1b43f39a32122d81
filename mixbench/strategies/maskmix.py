"""MaskMix, the mask of MixPro (Zhao et al., 2023, arXiv 2304.12043): random cells of a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import MixContext, MixedBatch, MixStrategy, beta, mirrored, send
from mixbench.registry import register_strategy
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor


def first_cells(scores: Tensor, count: int) -> Tensor:
    """1 in the `count` cells of each row with the lowest scores (B, cells), else 0, float32."""
    order = scores.argsort(dim=1, stable=True)
    return scores.new_zeros(scores.shape).scatter_(1, order[:, :count], 1)


def cells_mask(cells: Tensor, height: int, width: int) -> Tensor:
    """Cells (B, grid, grid) as pixels, (B, 1, height, width).

    A cell is ceil(side / grid) pixels high or wide, the last ones are cut off.
    """
    import torch

    rows, cols = (
        torch.arange(side, device=cells.device) // math.ceil(side / cells.shape[-1])
        for side in (height, width)
    )
    return cells[:, rows[:, None], cols][:, None]


def keep_cells(images: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """The cells (B, grid, grid) of each image on the mirrored batch, (B, C, H, W), and the mask."""
    mask = cells_mask(cells, *images.shape[-2:])
    return images.where(mask.bool(), images.flip(0)), mask


@register_strategy("maskmix")
@dataclass(frozen=True)
class MaskMix(MixStrategy):
    """Each image keeps cells of a grid that are drawn for it alone, the partner fills the others.

    Their share, rounded up to whole cells, is drawn from Beta(alpha, alpha) for the batch; the
    label is by the pixels. Where cells are no multiple of the model's patches, `grid` should be a
    divisor of the model's own: 7 for 224 px and patches of 16.
    Differs: the partner is the mirrored batch, not a permutation, and where a grid does not divide
    the image the label is by pixels, not by the count of cells.
    """

    alpha: float = parameter(1.0, above=0)
    grid: int = parameter(4, at_least=2, at_most=1024)

    def __post_init__(self) -> None:
        check_parameters(self, MaskMix, "maskmix")

    def check_images(self, height: int, width: int, grid: tuple[int, int] | None) -> None:
        side = min(height, width)
        if side < self.grid:
            raise ValueError(
                f"maskmix grid must be at most the images' shorter side, {side} px, not {self.grid}"
            )

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        import torch

        height, width = images.shape[-2:]
        self.check_images(height, width, ctx.grid)
        count = math.ceil(beta(ctx.rng, self.alpha) * self.grid**2)
        scores = torch.rand(len(images), self.grid**2, generator=ctx.rng, dtype=torch.float32)
        cells = first_cells(scores, count).reshape(-1, self.grid, self.grid)
        mixed, mask = ctx.tensor_half(keep_cells)(images, send(cells, images))
        return MixedBatch(images=mixed, labels=labels, partner=mirrored(images), mask=mask)
