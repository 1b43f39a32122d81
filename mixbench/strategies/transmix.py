"""TransMix (Chen et al., CVPR 2022): another strategy's pixels, labels by class attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import MixedBatch, MixStrategy, ModelOutput
from mixbench.registry import register_strategy
from mixbench.strategies.cutmix import CutMix
from mixbench.strategies.label_rule import AttentionRule
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor

DOWNSAMPLE = ("nearest", "area")


def downsample_mask(mask: Tensor, grid: tuple[int, int], how: str = "nearest") -> Tensor:
    """The mask on the patch grid, (B or 1, h, w).

    'nearest' takes the top-left pixel of each patch, 'area' its mean.
    Differs: in two dimensions, as the released code; algorithm 1 of the paper flattens the mask.
    """
    import torch

    if how == "area":
        return torch.nn.functional.adaptive_avg_pool2d(mask, grid)[:, 0]
    rows, cols = (  # floor(i * side / cells)
        torch.arange(cells, device=mask.device) * side // cells
        for side, cells in zip(mask.shape[-2:], grid, strict=True)
    )
    return mask[:, 0][:, rows[:, None], cols]


def attention_lam(
    mask: Tensor, attn: Tensor, downsample: str = "nearest", renormalise: bool = True
) -> Tensor:
    """A's share of the attention, (B,) float32; mask (B or 1, 1, H, W), attn (B, h, w).

    `renormalise=False` is the literal equation, in which the class token's attention to itself
    counts for A. NaN where the attention is not finite or sums to 0. Source: equation 7.
    """
    attn = attn.float()
    down = downsample_mask(mask, (attn.shape[-2], attn.shape[-1]), downsample)
    pasted = (attn * (1 - down)).sum((1, 2))  # (B,) attention on B
    if not renormalise:
        return 1 - pasted
    shown = (attn * down).sum((1, 2))  # (B,) attention on A
    return shown / (shown + pasted)


@register_strategy("transmix")
@dataclass(frozen=True)
class TransMix(AttentionRule):
    """The pixels of `base`, and lam = (1 - attention_weight) * area + attention_weight * attention.

    attention_weight 0.5 is the paper's section 4.1 and the released code, 1 is equation 7.
    `attention` is that of the last block (`last`), of another (its number, from 1), of all
    (`rollout`) or of a frozen network (its name, or its file). Over a constant mask (Mixup) it
    changes nothing. An image whose attention is not finite keeps its label by area.
    """

    base: MixStrategy = parameter(CutMix())
    attention_weight: float = parameter(0.5, at_least=0, at_most=1)
    attention: int | str = parameter("last", at_least=1, at_most=1000)
    downsample: str = parameter("nearest", choices=DOWNSAMPLE)
    renormalise: bool = parameter(True)  # Differs: equation 7 does not; the released code does

    def __post_init__(self) -> None:
        check_parameters(self, TransMix, "transmix")
        self.needs  # noqa: B018  two different attentions are refused here, not at the first step

    @property
    def attended(self) -> str:
        return str(self.attention)

    def share(self, mixed: MixedBatch, output: ModelOutput, attn: Tensor) -> Tensor:
        area = mixed.lam
        lam = attention_lam(mixed.mask, attn, self.downsample, self.renormalise)
        return area + self.attention_weight * (lam - area)
