"""MixPro (Zhao et al., ICLR 2023, arXiv 2304.12043): attention counts as far as the model is right.

This is its label rule, progressive attention labelling (PAL), over any mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import MixedBatch, MixStrategy, ModelOutput, soft_targets
from mixbench.registry import register_strategy
from mixbench.strategies.label_rule import AttentionRule
from mixbench.strategies.maskmix import MaskMix
from mixbench.strategies.transmix import attention_lam
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor


def progressive_lam(mixed: MixedBatch, attn: Tensor, logits: Tensor) -> Tensor:
    """s * attention + (1 - s) * area, A's share of the label, (B,) float32.

    s is the cosine between the label by area and the prediction; attn (B, h, w), logits (B, K).
    """
    import torch

    area = mixed.lam
    predicted = logits.detach().float().softmax(1)
    targets = soft_targets(mixed, area, logits.shape[1])
    confidence = torch.nn.functional.cosine_similarity(targets, predicted)
    return area + confidence * (attention_lam(mixed.mask, attn) - area)


@register_strategy("mixpro")
@dataclass(frozen=True)
class MixPro(AttentionRule):
    """The pixels of `base`, and a label that trusts attention as far as the prediction is right.

    `attention` is named as TransMix's is. Over a constant mask (Mixup) it changes nothing. An image
    whose attention or prediction is not finite keeps its label by area.
    Differs: the cosine carries no gradient, where the released code's lets the network move its own
    label; it is taken of the label without smoothing, and the loss is smoothed as every other's.
    """

    base: MixStrategy = parameter(MaskMix())
    attention: int | str = parameter("last", at_least=1, at_most=1000)

    def __post_init__(self) -> None:
        check_parameters(self, MixPro, "mixpro")
        self.needs  # noqa: B018  two different attentions are refused here, not at the first step

    @property
    def attended(self) -> str:
        return str(self.attention)

    def share(self, mixed: MixedBatch, output: ModelOutput, attn: Tensor) -> Tensor:
        return progressive_lam(mixed, attn, output.logits)
