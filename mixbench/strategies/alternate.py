"""Alternate two strategies from batch to batch, as DeiT's recipe does with CutMix and Mixup."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mixbench.mix import MixContext, MixedBatch, MixStrategy, ModelOutput, Needs, uniform
from mixbench.registry import register_strategy
from mixbench.strategies.cutmix import CutMix
from mixbench.strategies.mixup import Mixup
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor


@register_strategy("alternate")
@dataclass(frozen=True)
class Alternate(MixStrategy):
    """`first` with probability `switch_prob` (timm's), else `second`, drawn once a batch."""

    first: MixStrategy = parameter(CutMix())
    second: MixStrategy = parameter(Mixup())
    switch_prob: float = parameter(0.5, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        check_parameters(self, Alternate, "alternate")
        self.needs  # noqa: B018  two different attentions are refused here, not at the first step

    @property
    def needs(self) -> Needs:
        return self.first.needs | self.second.needs

    @property
    def clean_weight(self) -> float:
        """The mean over the draws, since the clean loss is added to every batch."""
        return (
            self.switch_prob * self.first.clean_weight
            + (1 - self.switch_prob) * self.second.clean_weight
        )

    @property
    def moves_pixels(self) -> bool:
        return self.first.moves_pixels or self.second.moves_pixels

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        drawn = self.first if uniform(ctx.rng) < self.switch_prob else self.second
        mixed = drawn.mix(images, labels, ctx)
        return replace(mixed, memo=(drawn, mixed.memo))

    def relabel(self, mixed: MixedBatch, output: ModelOutput) -> Tensor:
        drawn, memo = mixed.memo
        return drawn.relabel(replace(mixed, memo=memo), output)
