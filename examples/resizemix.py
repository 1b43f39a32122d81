"""A plug-in: ResizeMix (Qin et al. 2020, arXiv 2012.11101), the whole of B made small and pasted into A.

python bench.py --plugin examples/resizemix.py --strategies cutmix,resizemix,'transmix(base=resizemix)'
"""

from dataclasses import dataclass

import torch

from mixbench import MixedBatch, MixStrategy, register_strategy
from mixbench.mix import box_mask, mirrored, randint, uniform


def paste_resized(images, box):
    """A copy of images (B, C, H, W) whose box (top, left, bottom, right) holds the whole partner, made small as Pillow does it."""
    top, left, bottom, right = box
    small = torch.nn.functional.interpolate(
        images.flip(0).float(), (bottom - top, right - left), mode="bilinear", antialias=True
    )
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = small.to(images.dtype)
    return mixed


@register_strategy("resizemix")
@dataclass(frozen=True)
class ResizeMix(MixStrategy):
    """One box a batch, its side a share of the image's drawn from [min_scale, max_scale), anywhere inside the image."""

    min_scale: float = 0.1
    max_scale: float = 0.8

    def __post_init__(self):
        if not 0 < self.min_scale <= self.max_scale <= 1:
            raise ValueError(
                f"resizemix needs 0 < min_scale <= max_scale <= 1, not {self.min_scale} and {self.max_scale}"
            )

    def mix(self, images, labels, ctx):
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
        )
