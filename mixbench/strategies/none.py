"""No mixing: the floor of every comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import MixContext, MixedBatch, MixStrategy, mirrored
from mixbench.registry import register_strategy

if TYPE_CHECKING:
    from torch import Tensor


@register_strategy("none")
@dataclass(frozen=True)
class NoMix(MixStrategy):
    """Images and labels as they came."""

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        return MixedBatch(
            images=images,
            labels=labels,
            partner=mirrored(images),
            mask=ctx.mean.new_ones(1, 1, 1, 1),
        )
