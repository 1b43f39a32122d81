"""Masks of objects, augmented like their images."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from mixbench.data.draws import Draw
from mixbench.data.masks import is_object

if TYPE_CHECKING:
    from torchvision.transforms import Compose


def on_object(mask: Image.Image) -> Tensor:
    """1 on the object, 0 beside it and where nobody knows, (1, H, W) uint8."""
    return torch.from_numpy(is_object(mask)).to(torch.uint8)[None]


class MaskAugmentation:
    """What training's transform does to an image, done to its mask: (1, H, W) uint8 of 0 and 1.

    Every draw is from the global generators, which must be as they were before the image's. Where
    the image moves the mask moves with it, to the nearest pixel, and outside is no object; colours
    leave it; an erased box has no object. ValueError for a policy that cannot be followed.
    """

    def __init__(self, transform: Compose):
        names = {type(step).__name__ for step in transform.transforms}
        others = names & {"AutoAugment", "AugMixAugment"}
        if others:
            raise ValueError(
                f"masks of objects follow RandAugment, and aa makes a {others.pop()}: choose a "
                "policy such as rand-m9-mstd0.5-inc1, or null"
            )
        self.draw = Draw(transform)
        crop = copy.copy(self.draw.crop)
        nearest = Image.Resampling.NEAREST
        choice = isinstance(crop.interpolation, (tuple, list))
        # a choice of two is drawn for the image, and so for the mask
        crop.interpolation = [nearest] * len(crop.interpolation) if choice else nearest
        self.draw.crop = crop

    def __call__(self, mask: Image.Image) -> Tensor:
        image, drawn = self.draw.drawn(mask)
        if drawn.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for kind, numbers in zip(drawn.kinds, drawn.numbers, strict=False):
            if kind in ("bilinear", "bicubic"):
                matrix = tuple(numbers[:6].tolist())
                affine = Image.Transform.AFFINE
                image = image.transform(image.size, affine, matrix, Image.Resampling.NEAREST)
        objects = on_object(image)
        for top, left, bottom, right in drawn.boxes.tolist():
            objects[:, top:bottom, left:right] = 0
        return objects


def eval_objects(mask: Image.Image | None, transform: Compose) -> Tensor:
    """A mask under an evaluation transform, (1, H, W) float32 of 0 and 1; 0 where there is none.

    It is resized to the nearest pixel and cropped like its image.
    """
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    [size] = {step.size for step in transform.transforms if isinstance(step, CenterCrop)}
    if mask is None:
        return torch.zeros(1, *size)
    for step in transform.transforms:
        if isinstance(step, Resize):
            mask = Resize(step.size, InterpolationMode.NEAREST, step.max_size)(mask)
        elif isinstance(step, CenterCrop):
            mask = step(mask)
    return on_object(mask).float()
