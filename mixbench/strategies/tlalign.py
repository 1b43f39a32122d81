"""TL-Align (Xiao et al., ICCV 2023, arXiv 2210.06455): labels follow the tokens that attend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import MixedBatch, MixStrategy, ModelOutput
from mixbench.registry import register_strategy
from mixbench.strategies.cutmix import CutMix
from mixbench.strategies.label_rule import AttentionRule
from mixbench.strategies.transmix import downsample_mask
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
class TLAlign(AttentionRule):
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
    def attended(self) -> str:
        return "rollout"

    def share(self, mixed: MixedBatch, output: ModelOutput, attn: Tensor) -> Tensor:
        return aligned_lam(mixed.mask, attn, mixed.lam)
