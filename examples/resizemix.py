"""A plug-in: ResizeMix (Qin et al. 2020, arXiv 2012.11101), all of B made small, pasted into A.

python bench.py --plugin examples/resizemix.py --strategies cutmix,resizemix
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mixbench import MixContext, MixedBatch, MixStrategy, register_strategy
from mixbench.mix import Box, box_mask, mirrored, randint, uniform


def moved(box: Box, images: Tensor) -> tuple[Tensor, Tensor]:
    """A's part around the box, and the whole partner in it, made small as by Pillow; 0 elsewhere.

    Both are of the shape of images (B, C, H, W); B's is float32.
    """
    top, left, bottom, right = box
    small = torch.nn.functional.interpolate(
        images.flip(0).float(), (bottom - top, right - left), mode="bilinear", antialias=True
    )
    ours, theirs = images.clone(), torch.zeros_like(images, dtype=torch.float32)
    ours[:, :, top:bottom, left:right] = 0
    theirs[:, :, top:bottom, left:right] = small
    return ours, theirs


def paste_resized(images: Tensor, box: Box) -> Tensor:
    """A copy of images (B, C, H, W) whose box holds the whole partner."""
    ours, theirs = moved(box, images)
    return (ours + theirs).to(images.dtype)


@register_strategy("resizemix")
@dataclass(frozen=True)
class ResizeMix(MixStrategy):
    """One box a batch, anywhere in the image, its side a share in [min_scale, max_scale)."""

    moves_pixels = True  # B's, which `move` tells

    min_scale: float = 0.1
    max_scale: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= self.max_scale <= 1:
            raise ValueError(
                f"resizemix needs 0 < min_scale <= max_scale <= 1, "
                f"not {self.min_scale} and {self.max_scale}"
            )

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
