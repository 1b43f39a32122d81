"""Alternate two strategies from batch to batch, as DeiT's recipe does with CutMix and Mixup."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mixbench.mix import MixContext, MixedBatch, MixStrategy, ModelOutput, Needs, uniform
from mixbench.registry import register_strategy
from mixbench.rules import built_part
from mixbench.strategies.cutmix import CutMix
from mixbench.strategies.mixup import Mixup
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor, nn


def part_named(name: str, part: nn.Module | None) -> nn.Module | None:
    """What the strategy in a field built, of all that its holder built; None where nothing."""
    return getattr(part, name, None)


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

    def build(self, model: nn.Module, num_classes: int, image_size: int) -> nn.Module | None:
        import torch

        built = {
            "first": self.first.build(model, num_classes, image_size),
            "second": self.second.build(model, num_classes, image_size),
        }
        for part in built.values():
            built_part(part)
        parts = {name: part for name, part in built.items() if part is not None}
        return torch.nn.ModuleDict(parts) if parts else None

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        name = "first" if uniform(ctx.rng) < self.switch_prob else "second"
        drawn: MixStrategy = getattr(self, name)
        mixed = drawn.mix(images, labels, replace(ctx, part=part_named(name, ctx.part)))
        return replace(mixed, memo=(drawn, mixed.memo))

    def relabel(self, mixed: MixedBatch, output: ModelOutput) -> Tensor:
        drawn, memo = mixed.memo
        return drawn.relabel(replace(mixed, memo=memo), output)

    def extra_loss(self, mixed: MixedBatch, output: ModelOutput) -> Tensor | None:
        drawn, memo = mixed.memo
        return drawn.extra_loss(replace(mixed, memo=memo), output)
