"""FMix (Harris et al., 2020, arXiv 2002.12047): a mask of blobs, from low-frequency noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import (
    MixContext,
    MixedBatch,
    MixStrategy,
    beta,
    blend,
    mirrored,
    randint,
    send,
    uniform,
)
from mixbench.registry import register_strategy
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor


def low_frequencies(noise: Tensor, decay: float) -> Tensor:
    """A grey picture (H, W) of two pictures of normal noise (2, H, W), smoother with `decay`.

    They are the real and imaginary parts of a spectrum, divided by frequency ** decay. Source:
    section 4 of the paper.
    """
    import torch

    height, width = noise.shape[-2:]
    rows, cols = (torch.fft.fftfreq(side, device=noise.device) for side in (height, width))
    frequency = torch.hypot(rows[:, None], cols).clamp(min=1 / max(height, width))
    return torch.fft.ifft2(torch.complex(*noise) / frequency**decay).real


def highest(picture: Tensor, counts: Tensor) -> Tensor:
    """A's share of each pixel, 1 in the brightest of a picture (H, W), (1, 1, H, W) float32.

    counts (1, 2) holds how many pixels A has and half the number of those between, which fall from
    1 to 0 in equal steps; the rest is 0. Of equal pixels the first in raster order is the brighter.
    """
    import torch

    share, half = counts.unbind(1)  # (1,) each
    order = picture.flatten().argsort(descending=True, stable=True)
    rank = torch.arange(len(order), device=picture.device) - (share - half)
    falling = 1 - rank / (2 * half - 1).clamp(min=1)
    values = torch.where(rank < 0, 1.0, torch.where(rank < 2 * half, falling, 0.0))
    mask = torch.empty_like(values, dtype=torch.float32).scatter_(0, order, values.float())
    return mask.reshape(1, 1, *picture.shape)


def shares(pixels: int, lam: float, up: bool, max_soft: float) -> tuple[int, int]:
    """How many of `pixels` A has, rounded up or down, and half the number of soft pixels."""
    count = math.ceil(lam * pixels) if up else math.floor(lam * pixels)
    return count, int(min(max_soft, lam, 1 - lam) * pixels)


@register_strategy("fmix")
@dataclass(frozen=True)
class FMix(MixStrategy):
    """The image keeps the brightest pixels of a picture of low-frequency noise, one for the batch.

    Its share is drawn from Beta(alpha, alpha); a higher `decay` gives fewer and larger blobs. Up to
    a share of max_soft on either side of a blob's edge fades from one image to the other.
    Differs: the released code takes rows 0 and 1 of the spectrum for its real and imaginary parts,
    so its pictures have the width frequencies 0 and 1 alone, and OpenMixup copies it; this is the
    paper's whole spectrum. The coin that rounds the share and the noise are drawn from one
    generator, there from two. The partner is the mirrored batch, not a permutation.
    """

    alpha: float = parameter(1.0, above=0)
    # above 10 the highest frequencies of large images leave float32
    decay: float = parameter(3.0, at_least=0, at_most=10)
    max_soft: float = parameter(0.0, at_least=0, at_most=0.5)

    def __post_init__(self) -> None:
        check_parameters(self, FMix, "fmix")

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        import torch

        height, width = images.shape[-2:]
        lam, up = beta(ctx.rng, self.alpha), uniform(ctx.rng) < 0.5
        generator = torch.Generator().manual_seed(randint(ctx.rng, 2**63 - 1))
        noise = torch.randn(2, height, width, generator=generator, dtype=torch.float32)
        counts = send([shares(height * width, lam, up, self.max_soft)], images)
        # neither complex numbers nor a sort gain from compiling
        mask = highest(low_frequencies(send(noise, images), self.decay), counts)
        mixed = ctx.tensor_half(blend)(images, images.flip(0), mask)
        return MixedBatch(images=mixed, labels=labels, partner=mirrored(images), mask=mask)
