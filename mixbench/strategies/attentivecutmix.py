"""Attentive CutMix (Walawalkar et al., 2020): the cells a network attends to most are pasted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import MixContext, MixedBatch, MixStrategy, Needs, beta, mirrored, send
from mixbench.registry import register_strategy
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS = ("mean", "last")
DTYPES = ("float32", "bfloat16")


def top_cells(attention: Tensor, k: int | Tensor) -> Tensor:
    """1 in the k highest cells of each map (B, h, w), else 0, (B, h, w) float32; k is ().

    Of equal cells the first in raster order.
    """
    # topk breaks ties at will, and would be compiled anew for each k
    order = attention.flatten(1).argsort(dim=1, descending=True, stable=True)
    return (order.argsort(dim=1) < k).float().view(attention.shape)


def enlarge(cells: Tensor, height: int, width: int) -> Tensor:
    """Cells (B, h, w) as pixels, (B, 1, height, width): i lies in cell floor(i * h / height)."""
    import torch

    rows, cols = (
        torch.arange(side, device=cells.device) * grid // side
        for side, grid in zip((height, width), cells.shape[-2:], strict=True)
    )
    return cells[:, rows[:, None], cols][:, None]


def keep_cells(images: Tensor, attention: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """The `top_cells` of each image on the mirrored batch, (B, C, H, W), and the mask; k is ()."""
    mask = enlarge(top_cells(attention, k), *images.shape[-2:])
    return images.where(mask.bool(), images.flip(0)), mask


@register_strategy("attentivecutmix")
@dataclass(frozen=True)
class AttentiveCutMix(MixStrategy):
    """The k cells of A that `network` attends to most stay, the rest is the partner.

    lam is their exact share, 6 / 49 by default, so A gives the smaller part of the picture and of
    the label. k may be 'beta': each batch draws 49 * Beta(2, 2), at least 1 (AttentiveMix+).
    network is a timm model with timm's weights, 'NAME:FILE' with a checkpoint's, or
    'efficientnet_lite0' with those of a package; it sees squares of its own input size, so that the
    grid is as many cells for small and for oblong images. Its channels are averaged, or the last
    alone is used. dtype is what it computes in.
    Differs: the partner is the mirrored batch, not any training image; the network is in eval mode
    and sees normalised images.
    """

    k: int | str = parameter(6, at_least=0, at_most=2**16, choices=("beta",))
    network: str = parameter("resnet50")
    # Differs: the released code takes the last channel
    channel: str = parameter("mean", choices=CHANNELS)
    dtype: str = parameter("float32", choices=DTYPES)

    def __post_init__(self) -> None:
        check_parameters(self, AttentiveCutMix, "attentivecutmix")

    @property
    def needs(self) -> Needs:
        suffix = "" if self.dtype == "float32" else f" {self.dtype}"
        return Needs(network=self.network + suffix)

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        if ctx.features is None:
            raise ValueError(
                "attentivecutmix needs MixContext.features: make the context with "
                "mixbench.make_context"
            )
        features = ctx.features(images)  # (B, C, h, w)
        attention = features.float().mean(1) if self.channel == "mean" else features[:, -1]
        cells = attention[0].numel()
        if isinstance(self.k, str):
            k = min(max(int(cells * beta(ctx.rng, 2.0)), 1), cells)
        else:
            k = self.k
        if k > cells:
            raise ValueError(
                f"attentivecutmix k must be at most {cells}, the cells of {self.network}'s map, "
                f"not {k}"
            )
        mixed, mask = ctx.tensor_half(keep_cells)(images, attention, send(k, images))
        return MixedBatch(images=mixed, labels=labels, partner=mirrored(images), mask=mask)
