"""No mixing: the floor of every comparison."""

from __future__ import annotations

from dataclasses import dataclass

from mixbench.mix import MixedBatch, MixStrategy, mirrored
from mixbench.registry import register_strategy


@register_strategy("none")
@dataclass(frozen=True)
class NoMix(MixStrategy):
    """Images and labels as they came."""

    def mix(self, images, labels, ctx):
        return MixedBatch(
            images=images,
            labels=labels,
            partner=mirrored(images),
            mask=ctx.mean.new_ones(1, 1, 1, 1),
        )
