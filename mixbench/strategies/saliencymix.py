"""SaliencyMix (Uddin et al., 2021): CutMix around the most salient pixel of the pasted image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import (
    MixContext,
    MixedBatch,
    MixStrategy,
    Needs,
    beta,
    cut_box,
    mirrored,
    paste_boxes,
    randint,
    send,
)
from mixbench.registry import register_strategy
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor

SCOPES = ("sample", "batch")
SOURCES = ("uint8", "opencv", "official")


def salient_boxes(saliency: Tensor, draws: Tensor) -> Tensor:
    """The box around the first peak of each map (B, H, W), (B, 4) top, left, bottom, right.

    The first in raster order. draws (B, 4) holds half the box's height and width, and the centre
    (y, x) that a flat map takes.
    """
    import torch

    height, width = saliency.shape[-2:]
    peak, at = saliency.flatten(1).max(1)
    peaks = torch.stack([at // width, at % width], 1)  # (B, 2) y, x
    half, drawn = draws.split(2, 1)
    centers = torch.where(peak[:, None] > 0, peaks, drawn)
    sides = torch.stack([torch.full_like(at, height), torch.full_like(at, width)], 1)
    return torch.cat([(centers - half).clamp(min=0), torch.minimum(centers + half, sides)], 1)


def paste_salient(images: Tensor, saliency: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """`paste_boxes` of the `salient_boxes`: images (B, C, H, W) and the mask."""
    return paste_boxes(images, salient_boxes(saliency, draws))


@register_strategy("saliencymix")
@dataclass(frozen=True)
class SaliencyMix(MixStrategy):
    """CutMix's box around the peak of the partner's fine-grained saliency.

    lam is drawn from Beta(alpha, alpha) and corrected for clipping. scope 'sample' gives each image
    its own lam and box; 'batch' is the released code's one lam and box for all, around the peak of
    the image that is pasted into the first. source 'uint8' computes saliency on the un-normalised
    pixels where they are, 'opencv' lets OpenCV do it (the same map, a wait for the device);
    'official' is the released code's, which hands OpenCV normalised floats and so takes their bytes
    for brightness. A flat image's centre is drawn.
    Differs: the partner is the mirrored batch, as in timm; the released code permutes.
    """

    alpha: float = parameter(1.0, above=0)
    # Differs: the released code has one box a batch
    scope: str = parameter("sample", choices=SCOPES)
    # Differs: the released code's map is noise, of an image whose red and blue are exchanged: it
    # hands RGB to a detector of BGR. With the right scale and its order, 138 of 256 boxes are ours
    source: str = parameter("uint8", choices=SOURCES)

    def __post_init__(self) -> None:
        check_parameters(self, SaliencyMix, "saliencymix")

    @property
    def needs(self) -> Needs:
        return Needs(pixels=self.source != "official")

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        from mixbench.services.saliency import fine_grained, official_saliency, opencv_saliency

        height, width = images.shape[-2:]
        draws = []  # as CutMix draws
        for _ in range(len(images) if self.scope == "sample" else 1):
            lam = beta(ctx.rng, self.alpha)
            center = randint(ctx.rng, height), randint(ctx.rng, width)
            # half a box up and left of the corner
            top, left, _, _ = cut_box(height, width, lam, (height, width))
            draws.append((height - top, width - left, *center))
        detectors = {
            "uint8": ctx.tensor_half(fine_grained),
            "opencv": opencv_saliency,
            "official": ctx.tensor_half(official_saliency),
        }
        shown = images if self.source == "official" else ctx.pixels
        if shown is None:
            raise ValueError(
                "saliencymix needs MixContext.pixels: make the context with mixbench.make_context"
            )
        saliency = detectors[self.source](shown[-len(draws) :].flip(0))  # of each row's partner
        mixed, mask = ctx.tensor_half(paste_salient)(images, saliency, send(draws, images))
        return MixedBatch(images=mixed, labels=labels, partner=mirrored(images), mask=mask)
