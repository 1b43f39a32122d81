"""What label rules over another strategy's pixels have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from mixbench.mix import MixContext, MixedBatch, MixStrategy, ModelOutput, Needs

if TYPE_CHECKING:
    from torch import Tensor, nn


def unless_blind(mixed: MixedBatch, lam: Tensor) -> Tensor:
    """`lam` (B,) in [0, 1], and the area where the mask is constant or lam is not finite, (B,)."""
    lam = lam.clamp(0, 1)
    constant = mixed.mask.amin((1, 2, 3)) == mixed.mask.amax((1, 2, 3))
    return mixed.lam.where(constant | ~lam.isfinite(), lam)


class LabelRule(MixStrategy):
    """The pixels of `base` with all that belongs to them, and other labels."""

    base: MixStrategy

    @property
    def clean_weight(self) -> float:
        return self.base.clean_weight

    @property
    def moves_pixels(self) -> bool:
        return self.base.moves_pixels

    def build(self, model: nn.Module, num_classes: int, image_size: int) -> nn.Module | None:
        return self.base.build(model, num_classes, image_size)

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        return self.base.mix(images, labels, ctx)

    def extra_loss(self, mixed: MixedBatch, output: ModelOutput) -> Tensor | None:
        return self.base.extra_loss(mixed, output)


class AttentionRule(LabelRule):
    """The pixels of `base`, and labels by class attention.

    Over a constant mask (Mixup) it changes nothing. An image whose share is not finite keeps its
    label by area.
    """

    @property
    @abstractmethod
    def attended(self) -> str:
        """The attention that it asks for, as `Needs` names it."""

    @abstractmethod
    def share(self, mixed: MixedBatch, output: ModelOutput, attn: Tensor) -> Tensor:
        """A's share of the label, (B,), by the class attention attn (B, h, w)."""

    @property
    def needs(self) -> Needs:
        return Needs(attention=self.attended) | self.base.needs

    def relabel(self, mixed: MixedBatch, output: ModelOutput) -> Tensor:
        if output.attn is None:
            raise ValueError(
                f"{type(self).__name__.lower()} needs ModelOutput.attn: run the model inside "
                f"mixbench.attention_tap(model, {self.attended!r})"
            )
        return unless_blind(mixed, self.share(mixed, output, output.attn))
