"""Mixup (Zhang et al., 2018): a convex combination of two whole images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import MixContext, MixedBatch, MixStrategy, beta, mirrored
from mixbench.registry import register_strategy
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor


@register_strategy("mixup")
@dataclass(frozen=True)
class Mixup(MixStrategy):
    """One lam ~ Beta(alpha, alpha) a batch; alpha 0.8 is DeiT's.

    Differs: the partner is the mirrored batch, as in timm.
    """

    alpha: float = parameter(0.8, above=0)

    def __post_init__(self) -> None:
        check_parameters(self, Mixup, "mixup")

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        import numpy as np

        lam = float(np.float32(beta(ctx.rng, self.alpha)))  # as the mask holds it
        mask = ctx.mean.new_full((1, 1, 1, 1), lam)
        mixed = images.flip(0)
        if lam == 1:  # copied: an inf must not reach the partner
            mixed.copy_(images)
        elif lam > 0:
            mixed.lerp_(images, lam)
        return MixedBatch(images=mixed, labels=labels, partner=mirrored(images), mask=mask)
