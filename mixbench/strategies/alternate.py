"""Alternate two strategies from batch to batch, as DeiT's recipe does with CutMix and Mixup."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mixbench.mix import MixStrategy, uniform
from mixbench.registry import register_strategy
from mixbench.strategies.cutmix import CutMix
from mixbench.strategies.mixup import Mixup


@register_strategy("alternate")
@dataclass(frozen=True)
class Alternate(MixStrategy):
    """`first` with probability `switch_prob`, else `second`, drawn once a batch (timm's switch_prob)."""

    first: MixStrategy = CutMix()
    second: MixStrategy = Mixup()
    switch_prob: float = 0.5

    def __post_init__(self):
        if not 0 <= self.switch_prob <= 1:
            raise ValueError(
                f"alternate switch_prob must be between 0 and 1, not {self.switch_prob}"
            )
        self.needs  # noqa: B018  two different attentions are refused here, not at the first step

    @property
    def needs(self):
        return self.first.needs | self.second.needs

    @property
    def clean_weight(self):
        """The mean over the draws: the clean loss is added to every batch, so its expectation is the published one."""
        return (
            self.switch_prob * self.first.clean_weight
            + (1 - self.switch_prob) * self.second.clean_weight
        )

    def mix(self, images, labels, ctx):
        drawn = self.first if uniform(ctx.rng) < self.switch_prob else self.second
        mixed = drawn.mix(images, labels, ctx)
        return replace(mixed, memo=(drawn, mixed.memo))

    def relabel(self, mixed, output):
        drawn, memo = mixed.memo
        return drawn.relabel(replace(mixed, memo=memo), output)
