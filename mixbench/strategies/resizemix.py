"""ResizeMix (Qin et al., 2020, arXiv 2012.11101): all of B, made small, is pasted into A."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mixbench.mix import (
    Box,
    MixContext,
    MixedBatch,
    MixStrategy,
    box_mask,
    mirrored,
    randint,
    uniform,
)
from mixbench.registry import register_strategy
from mixbench.values import check_order, check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor


def resized_partner(images: Tensor, height: int, width: int) -> Tensor:
    """The whole partner of each image, made small as by Pillow, (B, C, height, width)."""
    import torch

    small = torch.nn.functional.interpolate(
        images.flip(0).float(), (height, width), mode="bilinear", antialias=True
    )
    return small.to(images.dtype)


def paste_resized(images: Tensor, box: Box) -> Tensor:
    """A copy of images (B, C, H, W) whose box holds the whole partner, made small."""
    top, left, bottom, right = box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = resized_partner(images, bottom - top, right - left)
    return mixed


def moved(box: Box, maps: Tensor) -> tuple[Tensor, Tensor]:
    """A's and B's parts of maps (B, C, H, W) in the mix: all but the box, and what lies in it."""
    top, left, bottom, right = box
    of_a, of_b = maps.clone(), maps.new_zeros(maps.shape)
    of_a[:, :, top:bottom, left:right] = 0
    of_b[:, :, top:bottom, left:right] = resized_partner(maps, bottom - top, right - left)
    return of_a, of_b


@register_strategy("resizemix")
@dataclass(frozen=True)
class ResizeMix(MixStrategy):
    """One box a batch, anywhere in the image, its sides a share in [min_scale, max_scale).

    The label is by the box's area; all of the partner is in it.
    Differs: OpenMixup centres the box anywhere and squeezes the partner into what of it lies in the
    image, by nearest pixels. The partner is the mirrored batch, not a permutation.
    """

    moves_pixels = True  # B's, which `move` tells

    min_scale: float = parameter(0.1, above=0, at_most=1)
    max_scale: float = parameter(0.8, above=0, at_most=1)

    def __post_init__(self) -> None:
        check_parameters(self, ResizeMix, "resizemix")
        check_order(self, "resizemix", "min_scale", "max_scale", "the scale")

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        height, width = images.shape[-2:]
        scale = self.min_scale + (self.max_scale - self.min_scale) * uniform(ctx.rng)
        box_h, box_w = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = randint(ctx.rng, height - box_h + 1), randint(ctx.rng, width - box_w + 1)
        box = top, left, top + box_h, left + box_w
        return MixedBatch(
            images=paste_resized(images, box),
            labels=labels,
            partner=mirrored(images),
            mask=box_mask([box], images),
            move=partial(moved, box),
        )
