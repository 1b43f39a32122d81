"""What timm draws for an image, written down and not yet done.

The draws are timm's own, made by its RandAugment and RandomErasing on a stand-in that takes the
image's place, from the same streams as in the loader's transform.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from torchvision.transforms import Compose

LEVELS = np.arange(256)


def _rotation(width: int, height: int, degrees: float) -> tuple[float, ...]:
    """PIL's matrix of a rotation about the centre, with its rounding.

    It gives the source's position for one of the output, as six numbers.
    """
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

# what becomes of each level, (256,); brightness is truncated, as PIL does
TABLES: dict[str, Callable[..., np.ndarray]] = {
    "Invert": lambda: 255 - LEVELS,
    "Posterize": lambda bits: LEVELS >> max(8 - bits, 0) << max(8 - bits, 0),
    "Solarize": lambda threshold: np.where(threshold > LEVELS, LEVELS, 255 - LEVELS),
    "SolarizeAdd": lambda add: np.where(LEVELS < 128, np.minimum(LEVELS + add, 255), LEVELS),
    "Brightness": lambda factor: np.minimum(np.float32(factor) * LEVELS.astype(np.float32), 255),
}

FACTORS = ("Color", "Contrast", "Sharpness")  # blended with a picture made from the image


def plain_name(name: str) -> str:
    """timm's name of an operation without the word on how its strength is scaled."""
    return name.removesuffix("Increasing").removesuffix("Original")


class StandIn:
    """Takes an image's place in timm's RandAugment and RandomErasing, and notes what they do."""

    dtype = torch.float32

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.kinds: list[str] = []
        self.numbers: list[list[float]] = []  # nine each: a matrix and a fill colour, or a factor
        self.tables: list[np.ndarray] = []
        self.boxes: list[tuple[int, int, int, int]] = []

    def size(self) -> tuple[int, int, int]:
        """As a tensor's: channels, height and width in pixels."""
        return 3, self.height, self.width

    def __setitem__(self, where: tuple[slice, slice, slice], value: Tensor) -> None:
        _, rows, columns = where
        self.boxes.append((rows.start, columns.start, rows.stop, columns.stop))


def _write_down(
    name: str,
    image: StandIn,
    *level: float,
    resample: int | Sequence[int],
    fillcolor: Sequence[float],
) -> StandIn:
    """One of timm's operations, with the draw of the interpolation that it makes itself."""
    kind, table = name, LEVELS
    numbers = [0.0] * 9
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
    kinds: list[str]  # operations, in order, up to L
    numbers: np.ndarray  # (L, 9) float64
    tables: np.ndarray  # (L, 256) uint8
    boxes: np.ndarray  # (K, 4) int64: top, left, bottom, right
    seed: int  # of the noise in erased boxes


class Draw:
    """The loader's half: crop a PIL image by timm's transform, and draw what the device is to do.

    Every draw is from the global generators.
    """

    def __init__(self, transform: Compose):
        steps = {type(step).__name__: step for step in transform.transforms}
        self.crop = transform.transforms[0]
        self.hflip = steps["RandomHorizontalFlip"].p if "RandomHorizontalFlip" in steps else 0.0
        self.randaugment = copy.deepcopy(steps.get("RandAugment"))
        for op in self.randaugment.ops if self.randaugment else ():
            op.aug_fn = partial(_write_down, plain_name(op.name))
        self.erasing = copy.copy(steps.get("RandomErasing"))
        if self.erasing:
            # the noise is made on the device
            self.erasing.rand_color = self.erasing.per_pixel = False

    def __call__(self, image: Image.Image) -> Drawn:
        return self.drawn(image)[1]

    def drawn(self, image: Image.Image) -> tuple[Image.Image, Drawn]:
        """The cropped image, and it with what is to be done to it."""
        image = self.crop(image)
        drawn = StandIn(*image.size)
        flip = self.hflip > 0 and bool(torch.rand(1) < self.hflip)
        if self.randaugment:
            self.randaugment(drawn)
        if self.erasing:
            self.erasing(drawn)
        count, layers = len(drawn.kinds), self.randaugment.num_layers if self.randaugment else 0
        numbers, tables = np.zeros((layers, 9)), np.zeros((layers, 256), np.uint8)
        if count:
            numbers[:count], tables[:count] = drawn.numbers, drawn.tables
        boxes = np.zeros((self.erasing.max_count if self.erasing else 0, 4), np.int64)
        if drawn.boxes:
            boxes[: len(drawn.boxes)] = drawn.boxes
        pixels = torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1).contiguous()
        seed = int(torch.randint(2**62, ()))
        return image, Drawn(pixels, flip, drawn.kinds, numbers, tables, boxes, seed)
