"""TL-Align (Xiao et al., ICCV 2023, arXiv 2210.06455): labels follow the tokens that attend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import MixContext, MixedBatch, MixStrategy, ModelOutput, Needs
from mixbench.registry import register_strategy
from mixbench.strategies.cutmix import CutMix
from mixbench.strategies.transmix import downsample_mask, unless_blind
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor


def aligned_lam(mask: Tensor, attn: Tensor, area: Tensor) -> Tensor:
    """A's share of the class token's label, (B,) float32.

    mask (B or 1, 1, H, W), the rollout attn (B, h, w), area (B,). Each patch begins with its own
    image's label and each prefix token with the label by area; every block makes a token's label
    half its own and half those it attends to. So the rollout's row weighs the first labels.
    """
    attn = attn.float()
    down = downsample_mask(mask, (attn.shape[-2], attn.shape[-1]))
    return (attn * down).sum((1, 2)) + (1 - attn.sum((1, 2))) * area


@register_strategy("tlalign")
@dataclass(frozen=True)
class TLAlign(MixStrategy):
    """The pixels of `base`, and labels that went through all blocks as the tokens did.

    Over a constant mask (Mixup) it changes nothing. An image whose attention is not finite keeps
    its label by area.
    Differs: the mask is taken at the top-left pixel of each patch, as transmix does, where the
    released code draws boxes on the token grid; any base may be mixed, where it knows CutMix alone.
    """

    base: MixStrategy = parameter(CutMix())

    def __post_init__(self) -> None:
        check_parameters(self, TLAlign, "tlalign")
        self.needs  # noqa: B018  two different attentions are refused here, not at the first step

    @property
    def needs(self) -> Needs:
        return Needs(attention="rollout") | self.base.needs

    @property
    def clean_weight(self) -> float:
        return self.base.clean_weight

    @property
    def moves_pixels(self) -> bool:
        return self.base.moves_pixels

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        return self.base.mix(images, labels, ctx)

    def relabel(self, mixed: MixedBatch, output: ModelOutput) -> Tensor:
        if output.attn is None:
            raise ValueError(
                "tlalign needs ModelOutput.attn: run the model inside "
                "mixbench.attention_tap(model, 'rollout')"
            )
        return unless_blind(mixed, aligned_lam(mixed.mask, output.attn, mixed.lam))
