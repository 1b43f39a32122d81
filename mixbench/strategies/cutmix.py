"""CutMix (Yun et al., 2019): a box of the partner is pasted into the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import (
    MixContext,
    MixedBatch,
    MixStrategy,
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


@register_strategy("cutmix")
@dataclass(frozen=True)
class CutMix(MixStrategy):
    """One box a batch, or one for each image with `per_sample`.

    Its share of the area is drawn from Beta(alpha, alpha); lam is corrected for clipping.
    Differs: the partner is the mirrored batch, as in timm; CutMix's own code permutes.
    """

    alpha: float = parameter(1.0, above=0)
    per_sample: bool = parameter(False)

    def __post_init__(self) -> None:
        check_parameters(self, CutMix, "cutmix")

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        height, width = images.shape[-2:]
        boxes = []
        for _ in range(len(images) if self.per_sample else 1):
            lam = beta(ctx.rng, self.alpha)
            center = randint(ctx.rng, height), randint(ctx.rng, width)
            boxes.append(cut_box(height, width, lam, center))
        mixed, mask = ctx.tensor_half(paste_boxes)(images, send(boxes, images))
        return MixedBatch(images=mixed, labels=labels, partner=mirrored(images), mask=mask)
