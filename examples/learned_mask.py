"""A plug-in with parameters of its own: one mask for all images, which trains with the model.

python bench.py --plugin examples/learned_mask.py --strategies cutmix,learnedmask
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixbench import MixContext, MixedBatch, MixStrategy, register_strategy
from mixbench.mix import blend, mirrored


class Shares(nn.Module):
    """A's share of each cell of a grid."""

    def __init__(self, grid: int):
        super().__init__()
        self.logits = nn.Parameter(torch.randn(grid, grid))

    def forward(self, height: int, width: int) -> Tensor:
        shares = self.logits.sigmoid()[None, None]
        return nn.functional.interpolate(shares, (height, width))  # (1, 1, H, W)


@register_strategy("learnedmask")
@dataclass(frozen=True)
class LearnedMask(MixStrategy):
    """One mask for all images, whose cells' shares train with the model."""

    grid: int = 4

    def build(self, model: nn.Module, num_classes: int, image_size: int) -> nn.Module:
        return Shares(self.grid)

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        assert ctx.part is not None
        mask = ctx.part(*images.shape[-2:])
        return MixedBatch(
            images=blend(images, images.flip(0), mask),
            labels=labels,
            partner=mirrored(images),
            mask=mask.detach(),
        )
