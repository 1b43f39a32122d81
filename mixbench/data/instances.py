"""Images and their objects, resized and mirrored together by torchvision's v2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from mixbench.data.coco import LEAST, CocoInstances, Instances
from mixbench.data.joint import DrawnSamples, resized, sample_loader
from mixbench.mix import uniform

Target = dict[str, Tensor]  # of an image, as torchvision's Mask R-CNN takes it
Batch = tuple[list[Tensor], list[Target]]


@dataclass(frozen=True, kw_only=True)
class DetectionAugmentation:
    """What a training image and its objects go through: a resize and a flip.

    The short side becomes `short_side` pixels, or less where the long one would be above
    `long_side`. Source: mmdetection's pipeline. Differs: images are resized with antialiasing.
    """

    short_side: int
    long_side: int
    hflip: float

    def __call__(
        self, image: Image.Image, instances: Instances, rng: torch.Generator
    ) -> tuple[Tensor, Target]:
        """An image (3, H, W) float32 in 0..1 and its target; the draw is of `rng`.

        The target has boxes (n, 4) float32 of left, top, right and bottom, labels (n,) int64 and
        masks (n, H, W) uint8; n may be 0.
        """
        pixels: Any = tv_tensors.Image(functional.pil_to_tensor(image))
        boxes: Any = tv_tensors.BoundingBoxes(  # type: ignore[call-overload]
            torch.from_numpy(instances.boxes),
            format="XYXY",
            canvas_size=(image.height, image.width),
        )
        masks: Any = tv_tensors.Mask(torch.from_numpy(instances.masks).to(torch.uint8))
        size = resized(image.height, image.width, self.short_side, long_side=self.long_side)
        pixels, boxes, masks = (functional.resize(each, size) for each in (pixels, boxes, masks))
        if uniform(rng) < self.hflip:
            pixels, boxes, masks = (
                functional.horizontal_flip(each) for each in (pixels, boxes, masks)
            )
        boxes, masks = boxes.as_subclass(Tensor), masks.as_subclass(Tensor)
        sides = (boxes[:, 2:] - boxes[:, :2]).amin(1)
        kept = (sides >= LEAST) & (masks.flatten(1).amax(1) > 0)  # a reduced object may vanish
        return functional.to_dtype(pixels.as_subclass(Tensor), torch.float32, scale=True), {
            "boxes": boxes[kept],
            "labels": torch.from_numpy(instances.labels)[kept],
            "masks": masks[kept],
        }


def instance_loader(
    source: CocoInstances,
    augmentation: DetectionAugmentation,
    batch_size: int,
    seed: int,
    workers: int,
    device: torch.device,
) -> DataLoader[Batch]:
    """Batches of a list of images and a list of their targets, as `sample_loader` gives them."""
    samples = DrawnSamples(partial(_sample, source, augmentation), "instances", seed)
    return sample_loader(samples, len(source.labels), batch_size, workers, device, _lists)


def _sample(
    source: CocoInstances, augmentation: DetectionAugmentation, index: int, rng: torch.Generator
) -> tuple[Tensor, Target]:
    return augmentation(source.load(index), source.instances(index), rng)


def _lists(samples: Sequence[tuple[Tensor, Target]]) -> Batch:
    """Images differ in size, which one tensor cannot hold."""
    return [image for image, _ in samples], [target for _, target in samples]
