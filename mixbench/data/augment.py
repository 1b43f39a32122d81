"""DeiT's augmentation on the device: drawn in the loader, done on whole batches.

The operations are Pillow's to the bit: an image comes out the same as from the loader's transform,
but for the noise in erased boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mixbench.data.draws import Drawn
from mixbench.data.normalisation import Normalisation
from mixbench.data.operations import OPERATIONS


class RawBatch(NamedTuple):
    """Cropped images and their draws, as few tensors; what the host must know is plain Python."""

    pixels: Tensor  # (B, 3, H, W) uint8
    flip: Tensor  # (B, 1, 1, 1) bool
    numbers: Tensor  # (L, B, 9) float64
    tables: Tensor  # (L, B, 256) uint8
    rows: Tensor  # (L, B) int64, images in the order of their operation
    spans: list[dict[str, tuple[int, int]]]  # of each layer: operation -> its part of `rows`
    boxes: Tensor  # (B, K, 4) int64
    erased: Tensor  # (n,) int64, images with a box
    seeds: Tensor  # (B,) int64

    def to(self, device: torch.device, non_blocking: bool = False) -> RawBatch:
        """The same on `device`."""
        moved: dict[str, Any] = {
            name: part.to(device, non_blocking=non_blocking)
            for name, part in self._asdict().items()
            if isinstance(part, Tensor)
        }
        return self._replace(**moved)


def collate(samples: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Batch what `Draw` gave, with the labels (B,) int64 and masks (B, 1, H, W) where there are."""
    images, labels, *masks = zip(*samples, strict=True)
    return _raw(images), torch.tensor(labels), *map(torch.stack, masks)


def _raw(images: Sequence[Drawn]) -> RawBatch:
    """Drawn images as a batch, operations of one kind side by side."""
    layers = len(images[0].numbers)
    rows, spans = torch.zeros(layers, len(images), dtype=torch.int64), []
    for layer in range(layers):
        by_kind: dict[str, list[int]] = {}
        for row, image in enumerate(images):
            if layer < len(image.kinds):
                by_kind.setdefault(image.kinds[layer], []).append(row)
        order = [row for chosen in by_kind.values() for row in chosen]
        rows[layer, : len(order)] = torch.tensor(order, dtype=torch.int64)
        ends = np.cumsum([len(chosen) for chosen in by_kind.values()]).tolist()
        spans.append(
            {kind: (end - len(by_kind[kind]), end) for kind, end in zip(by_kind, ends, strict=True)}
        )
    boxes = torch.from_numpy(np.stack([image.boxes for image in images]))
    return RawBatch(
        pixels=torch.stack([image.pixels for image in images]),
        flip=torch.tensor([image.flip for image in images]).reshape(-1, 1, 1, 1),
        numbers=torch.from_numpy(np.stack([image.numbers for image in images], 1)),
        tables=torch.from_numpy(np.stack([image.tables for image in images], 1)),
        rows=rows,
        spans=spans,
        boxes=boxes,
        erased=boxes.flatten(1).any(1).nonzero()[:, 0],
        seeds=torch.tensor([image.seed for image in images]),
    )


def augment(raw: RawBatch, normalisation: Normalisation, remode: str) -> Tensor:
    """The device's half: flip, RandAugment, normalise, erase; (B, 3, H, W) float32.

    It never waits for the device.
    """
    images = torch.where(raw.flip, raw.pixels.flip(3), raw.pixels)
    for layer, spans in enumerate(raw.spans):
        for kind, (start, stop) in spans.items():
            rows = raw.rows[layer, start:stop]
            changed = OPERATIONS[kind](
                images[rows], raw.numbers[layer, rows], raw.tables[layer, rows]
            )
            images.index_copy_(0, rows, changed)
    normal = normalisation.apply(images.float() / 255)
    if len(raw.erased):
        rows = raw.erased
        normal.index_copy_(0, rows, erase(normal[rows], raw.boxes[rows], raw.seeds[rows], remode))
    return normal


def normal_noise(seeds: Tensor, count: int) -> Tensor:
    """Standard normal numbers of each image's seed and their place, (n, count) float32.

    Differs: timm draws them from a generator, whose numbers depend on what was drawn before. Here
    SplitMix64 hashes seed and place.
    """
    places = torch.arange(1, count + 1, device=seeds.device)
    bits = seeds[:, None] + places * -7046029254386353131  # 2**64 / golden ratio
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685), (31, 1)):
        bits = (bits ^ (bits >> shift & (1 << 64 - shift) - 1)) * factor
    radius = ((bits >> 40 & 0xFFFFFF) + 1).float() / 2**24
    angle = (bits >> 16 & 0xFFFFFF).float() / 2**24
    return (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()  # Box and Muller


def erase(images: Tensor, boxes: Tensor, seeds: Tensor, remode: str) -> Tensor:
    """Fill each image's boxes (n, K, 4) with noise by pixel or by channel, or with 0.

    The images (n, 3, H, W) are normalised, and so is what comes back.
    """
    n, channels, height, width = images.shape
    y = torch.arange(height, device=images.device)[:, None]
    x = torch.arange(width, device=images.device)
    shape = {"pixel": (height, width), "rand": (1, 1), "const": (1, 1)}[remode]
    for number in range(boxes.shape[1]):
        top, left, bottom, right = boxes[:, number, :, None, None].unbind(1)  # (n, 1, 1)
        inside = ((y >= top) & (y < bottom) & (x >= left) & (x < right))[:, None]
        if remode == "const":
            images = images.masked_fill(inside, 0.0)
        else:
            noise = normal_noise(seeds + number, channels * math.prod(shape))
            images = torch.where(inside, noise.view(n, channels, *shape), images)
    return images
