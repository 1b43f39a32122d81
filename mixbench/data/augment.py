"""DeiT's augmentation on the device: timm draws for each image in the loader, whole batches of pixels change on the device.

The draws are timm's own, made by its RandAugment and RandomErasing on a stand-in that writes down what they would do, from the
same streams as in the loader's transform, and the operations are Pillow's to the bit: an image comes out the same on either side,
but for the noise in erased boxes.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

LEVELS = np.arange(256)


def _rotation(width: int, height: int, degrees: float) -> tuple[float, ...]:
    """PIL's matrix of a rotation about the centre, output position -> source position, with its rounding."""
    angle = -math.radians(degrees % 360.0)
    cos, sin, minus_sin = (
        round(v, 15) for v in (math.cos(angle), math.sin(angle), -math.sin(angle))
    )
    x, y = width / 2, height / 2
    return cos, sin, (cos * -x + sin * -y) + x, minus_sin, cos, (minus_sin * -x + cos * -y) + y


MATRICES: dict[str, Callable[..., tuple[float, ...]]] = {
    "Rotate": _rotation,
    "ShearX": lambda width, height, factor: (1, factor, 0, 0, 1, 0),
    "ShearY": lambda width, height, factor: (1, 0, 0, factor, 1, 0),
    "TranslateXRel": lambda width, height, share: (1, 0, share * width, 0, 1, 0),
    "TranslateYRel": lambda width, height, share: (1, 0, 0, 0, 1, share * height),
}


TABLES: dict[str, Callable[..., np.ndarray]] = {  # what becomes of each level, (256,)
    "Invert": lambda: 255 - LEVELS,
    "Posterize": lambda bits: LEVELS >> max(8 - bits, 0) << max(8 - bits, 0),
    "Solarize": lambda threshold: np.where(threshold > LEVELS, LEVELS, 255 - LEVELS),
    "SolarizeAdd": lambda add: np.where(LEVELS < 128, np.minimum(LEVELS + add, 255), LEVELS),
    "Brightness": lambda factor: np.minimum(
        np.float32(factor) * LEVELS.astype(np.float32), 255
    ),  # truncated, as PIL does
}


FACTORS = (
    "Color",
    "Contrast",
    "Sharpness",
)  # blended by a factor with a picture made from the image


def plain_name(name: str) -> str:
    """timm's name of an operation without the word on how its strength is scaled."""
    return name.removesuffix("Increasing").removesuffix("Original")


class StandIn:
    """Takes an image's place in timm's RandAugment and RandomErasing, and writes down what they would do to it."""

    dtype = torch.float32

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.kinds: list[str] = []
        self.numbers: list[list[float]] = []  # nine each: a matrix and a fill colour, or a factor
        self.tables: list[np.ndarray] = []
        self.boxes: list[tuple[int, int, int, int]] = []

    def size(self) -> tuple[int, int, int]:
        return 3, self.height, self.width

    def __setitem__(self, where: tuple[slice, slice, slice], value: Tensor) -> None:
        _, rows, columns = where
        self.boxes.append((rows.start, columns.start, rows.stop, columns.stop))


def _write_down(name: str, image: StandIn, *level: Any, resample: Any, fillcolor: Any) -> StandIn:
    """One of timm's operations, with the draw of the interpolation that it makes itself."""
    kind, numbers, table = name, [0.0] * 9, LEVELS
    if name in MATRICES:
        chosen = random.choice(resample) if isinstance(resample, (list, tuple)) else resample
        kind = "bicubic" if chosen == Image.Resampling.BICUBIC else "bilinear"
        numbers = [*MATRICES[name](image.width, image.height, *level), *fillcolor]
    elif name in TABLES:
        kind, table = "table", TABLES[name](*level)
    elif name in FACTORS:
        numbers[0] = level[0]
    image.kinds.append(kind)
    image.numbers.append(numbers)
    image.tables.append(table.astype(np.uint8))
    return image


class Drawn(NamedTuple):
    """A cropped image and what is to be done to it: L operations and K erased boxes at most."""

    pixels: Tensor  # (3, H, W) uint8
    flip: bool
    kinds: list[str]  # keys of OPERATIONS, in order, up to L
    numbers: np.ndarray  # (L, 9) float64
    tables: np.ndarray  # (L, 256) uint8
    boxes: np.ndarray  # (K, 4) int64: top, left, bottom, right
    seed: int  # of the noise in erased boxes


class Draw:
    """The loader's half: crop a PIL image by timm's transform and draw what the device is to do; every draw from the global generators."""

    def __init__(self, transform: Any):
        steps = {type(step).__name__: step for step in transform.transforms}
        self.crop = transform.transforms[0]
        self.hflip = steps["RandomHorizontalFlip"].p if "RandomHorizontalFlip" in steps else 0.0
        self.randaugment = copy.deepcopy(steps.get("RandAugment"))
        for op in self.randaugment.ops if self.randaugment else ():
            op.aug_fn = partial(_write_down, plain_name(op.name))
        self.erasing = copy.copy(steps.get("RandomErasing"))
        if self.erasing:
            self.erasing.rand_color = self.erasing.per_pixel = (
                False  # the noise is made on the device
            )

    def __call__(self, image: Image.Image) -> Drawn:
        image = self.crop(image)
        found = StandIn(*image.size)
        flip = self.hflip > 0 and bool(torch.rand(1) < self.hflip)
        if self.randaugment:
            self.randaugment(found)
        if self.erasing:
            self.erasing(found)
        count, layers = len(found.kinds), self.randaugment.num_layers if self.randaugment else 0
        numbers, tables = np.zeros((layers, 9)), np.zeros((layers, 256), np.uint8)
        if count:
            numbers[:count], tables[:count] = found.numbers, found.tables
        boxes = np.zeros((self.erasing.max_count if self.erasing else 0, 4), np.int64)
        if found.boxes:
            boxes[: len(found.boxes)] = found.boxes
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return Drawn(
            pixels, flip, found.kinds, numbers, tables, boxes, int(torch.randint(2**62, ()))
        )


class RawBatch(NamedTuple):
    """Cropped images and their draws, as few tensors; what the host must know of the draws is plain Python."""

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
        tensors: dict[str, Any] = {
            name: value for name, value in self._asdict().items() if isinstance(value, Tensor)
        }
        return self._replace(
            **{name: value.to(device, non_blocking=non_blocking) for name, value in tensors.items()}
        )


def collate(samples: list[tuple[Drawn, int]]) -> tuple[RawBatch, Tensor]:
    """Batch what `Draw` gave, operations of one kind side by side: the raw batch and the labels (B,)."""
    images = [image for image, _ in samples]
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
    raw = RawBatch(
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
    return raw, torch.tensor([label for _, label in samples])


def augment(raw: RawBatch, mean: Tensor, std: Tensor, remode: str) -> Tensor:
    """The device's half: flip, RandAugment, normalise, erase; (B, 3, H, W) float32. It never waits for the device."""
    images = torch.where(raw.flip, raw.pixels.flip(3), raw.pixels)
    for layer, spans in enumerate(raw.spans):
        for kind, (start, stop) in spans.items():
            rows = raw.rows[layer, start:stop]
            changed = OPERATIONS[kind](
                images[rows], raw.numbers[layer, rows], raw.tables[layer, rows]
            )
            images.index_copy_(0, rows, changed)
    normal = (images.float() / 255 - mean) / std
    if len(raw.erased):
        rows = raw.erased
        normal.index_copy_(0, rows, erase(normal[rows], raw.boxes[rows], raw.seeds[rows], remode))
    return normal


def affine(images: Tensor, numbers: Tensor, _tables: Tensor, *, cubic: bool) -> Tensor:
    """PIL's affine transform of each image by its own matrix, with its fill colour outside, (n, 3, H, W) uint8.

    PIL's bicubic kernel has a = -1 (grid_sample's -0.75 would differ), repeats the edge and truncates, so that a rounding error can be
    a whole level: all is in double precision.
    """
    height, width = images.shape[-2:]
    a, b, c, d, e, f = numbers[:, :6, None, None].unbind(1)  # (n, 1, 1)
    x = torch.arange(width, dtype=numbers.dtype, device=images.device) + 0.5
    y = torch.arange(height, dtype=numbers.dtype, device=images.device)[:, None] + 0.5
    u, v = a * x + b * y + c, d * x + e * y + f  # (n, H, W) where each pixel comes from
    outside = (u < 0) | (u >= width) | (v < 0) | (v >= height)
    left, top = (u - 0.5).floor(), (v - 0.5).floor()
    dx, dy = (u - 0.5 - left)[:, None], (v - 0.5 - top)[:, None]
    left, top = left.long(), top.long()
    flat = images.flatten(2)

    def tap(i: int, j: int) -> Tensor:
        index = (top + j).clamp(0, height - 1) * width + (left + i).clamp(0, width - 1)
        return (
            flat.gather(2, index.flatten(1)[:, None].expand_as(flat))
            .view_as(images)
            .to(numbers.dtype)
        )

    def join(values: list[Tensor], t: Tensor) -> Tensor:
        if not cubic:
            return values[0] + (values[1] - values[0]) * t
        p, q, r, s = values
        return q + t * (r - p + t * (2 * (p - q) + r - s + t * (q - p + s - r)))

    taps = range(-1, 3) if cubic else range(2)
    found = (
        join([join([tap(i, j) for i in taps], dx) for j in taps], dy).clamp(0, 255).to(torch.uint8)
    )
    return torch.where(outside[:, None], numbers[:, 6:, None, None].to(torch.uint8), found)


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each level by its entry in tables (n, 1 or 3, 256) uint8, (n, 3, H, W) uint8."""
    flat = images.flatten(2)
    return tables.expand(-1, 3, -1).gather(2, flat.long()).view_as(images)


def histogram(images: Tensor) -> Tensor:
    """How often each level occurs in each channel, (n, 3, 256) int64."""
    levels = images.flatten(2).long()
    return levels.new_zeros(*levels.shape[:2], 256).scatter_add_(2, levels, torch.ones_like(levels))


def equalize(images: Tensor, _numbers: Tensor, _tables: Tensor) -> Tensor:
    """PIL's ImageOps.equalize, (n, 3, H, W) uint8."""
    counts = histogram(images)
    levels = torch.arange(256, device=images.device)
    last = (levels * (counts > 0)).amax(2, keepdim=True)
    step = (counts.sum(2, keepdim=True) - counts.gather(2, last)) // 255
    table = (step // 2 + counts.cumsum(2) - counts) // step.clamp(min=1)
    return look_up(images, torch.where(step > 0, table, levels).clamp(max=255).to(torch.uint8))


def autocontrast(images: Tensor, _numbers: Tensor, _tables: Tensor) -> Tensor:
    """PIL's ImageOps.autocontrast, (n, 3, H, W) uint8; in double precision, since the result is truncated."""
    flat = images.flatten(2)
    low, high = flat.amin(2, keepdim=True).double(), flat.amax(2, keepdim=True).double()
    levels = torch.arange(256, device=images.device, dtype=torch.float64)
    scale = torch.full_like(low, 255.0) / (high - low).clamp(
        min=1
    )  # torch divides a plain number by way of the reciprocal
    table = (levels * scale + -low * scale).clamp(0, 255)
    return look_up(images, torch.where(high > low, table, levels).to(torch.uint8))


def luma(images: Tensor) -> Tensor:
    """PIL's conversion to grey, (n, 1, H, W) int32."""
    red, green, blue = images.int().split(1, 1)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def blend(other: Tensor, images: Tensor, numbers: Tensor) -> Tensor:
    """PIL's Image.blend of an integer picture with the images by each image's factor, (n, 3, H, W) uint8."""
    factor = numbers[:, :1, None, None].float()
    return (other + factor * (images.int() - other)).clamp(0, 255).to(torch.uint8)


def color(images: Tensor, numbers: Tensor, _tables: Tensor) -> Tensor:
    """PIL's ImageEnhance.Color, (n, 3, H, W) uint8."""
    return blend(luma(images), images, numbers)


def contrast(images: Tensor, numbers: Tensor, _tables: Tensor) -> Tensor:
    """PIL's ImageEnhance.Contrast, (n, 3, H, W) uint8."""
    pixels = images.shape[2] * images.shape[3]
    mean = (2 * luma(images).sum((2, 3), keepdim=True) + pixels) // (2 * pixels)
    return blend(mean.int(), images, numbers)


def sharpness(images: Tensor, numbers: Tensor, _tables: Tensor) -> Tensor:
    """PIL's ImageEnhance.Sharpness, (n, 3, H, W) uint8: its smooth filter leaves the outermost pixels alone."""
    smooth, (height, width) = images.int(), images.shape[2:]
    inner = 4 * smooth[:, :, 1:-1, 1:-1]
    for i in range(3):
        for j in range(3):
            inner = inner + smooth[:, :, i : height - 2 + i, j : width - 2 + j]
    smooth = smooth.clone()
    smooth[:, :, 1:-1, 1:-1] = (2 * inner + 13) // 26  # the thirteenth, rounded
    return blend(smooth, images, numbers)


OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "bilinear": partial(affine, cubic=False),
    "bicubic": partial(affine, cubic=True),
    "table": lambda images, _numbers, tables: look_up(images, tables[:, None]),
    "AutoContrast": autocontrast,
    "Equalize": equalize,
    "Color": color,
    "Contrast": contrast,
    "Sharpness": sharpness,
}


def normal_noise(seeds: Tensor, count: int) -> Tensor:
    """Standard normal numbers (n, count) float32 that depend on each image's seed and their place alone.

    Differs: timm draws them from a generator, whose numbers depend on what was drawn before; here SplitMix64 hashes seed and place.
    """
    bits = (
        seeds[:, None] + torch.arange(1, count + 1, device=seeds.device) * -7046029254386353131
    )  # 2**64 / golden ratio
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685), (31, 1)):
        bits = (bits ^ (bits >> shift & (1 << 64 - shift) - 1)) * factor
    radius = ((bits >> 40 & 0xFFFFFF) + 1).float() / 2**24
    angle = (bits >> 16 & 0xFFFFFF).float() / 2**24
    return (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()  # Box and Muller


def erase(images: Tensor, boxes: Tensor, seeds: Tensor, remode: str) -> Tensor:
    """Fill each image's boxes (n, K, 4) with noise by pixel or by channel, or with 0, (n, 3, H, W) float32."""
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
            noise = normal_noise(seeds + number, channels * shape[0] * shape[1]).view(
                n, channels, *shape
            )
            images = torch.where(inside, noise, images)
    return images
