"""The embedded data set: drawn objects of ten classes on textured backgrounds.

The backgrounds say nothing of the class.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from mixbench.data.scene_area import AREA, Area, scenes_name
from mixbench.data.sources import Data, Source
from mixbench.mix import hashed_seed

TRAIN_IMAGES, VAL_IMAGES = 3000, 1000
CANVAS = 64  # pixels; drawn at about this size and reduced
LEAST = 4  # of the canvas's pixels across an object, so that every shape has some

# where each class's shape is, in object coordinates of about -1 .. 1 (u right, v down)
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda u, v: np.hypot(u, v) < 0.85,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) < 0.75,
    "triangle": lambda u, v: (v < 0.7) & (np.abs(u) < (v + 0.9) * 0.55),
    "ring": lambda u, v: (np.hypot(u, v) < 0.95) & (np.hypot(u, v) > 0.5),
    "cross": lambda u, v: (
        (np.minimum(np.abs(u), np.abs(v)) < 0.3) & (np.maximum(np.abs(u), np.abs(v)) < 0.95)
    ),
    "star": lambda u, v: (
        np.hypot(u, v) < 0.65 + 0.33 * np.cos(5 * (np.arctan2(v, u) + math.pi / 2))
    ),
    "crescent": lambda u, v: (np.hypot(u, v) < 0.95) & (np.hypot(u - 0.45, v) > 0.7),
    "bar": lambda u, v: (np.abs(u) < 0.98) & (np.abs(v) < 0.38),
    "heart": lambda u, v: (
        (np.hypot(np.abs(u) - 0.42, v + 0.3) < 0.5)
        | ((v > -0.3) & (np.abs(u) * 0.95 + v * 0.98 < 0.72))
    ),
    "hexagon": lambda u, v: np.maximum(np.abs(u) * 0.866 + np.abs(v) * 0.5, np.abs(v)) < 0.8,
}
CLASSES = tuple(SHAPES)


class Scene(NamedTuple):
    """A drawn image with what is in it."""

    image: np.ndarray  # (size, size, 3) uint8 RGB
    label: int
    mask: np.ndarray  # (size, size) bool, the object's pixels
    box: tuple[int, int, int, int]  # around them: top, left, bottom, right, the last two outside


def _pattern(label: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The class's surface pattern, -1 .. 1 of the shape of u."""
    angle = math.pi * label / 10
    waves = np.sin((4 + 1.2 * (label % 4)) * math.pi * (u * math.cos(angle) + v * math.sin(angle)))
    return waves * np.cos(3 * math.pi * (v - u)) if label % 2 else waves


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A textured background at half saturation, (size, size, 3) of about 0 .. 1."""
    color = np.array(
        colorsys.hsv_to_rgb(rng.random(), 0.5 * rng.random(), 0.3 + 0.5 * rng.random())
    )
    rows, cols = np.mgrid[:size, :size] / size
    texture = np.zeros((size, size))
    for _ in range(3):
        angle, frequency, phase = rng.random() * math.pi, 2 + 10 * rng.random(), rng.random() * 7
        texture += np.sin(
            2 * math.pi * frequency * (rows * math.sin(angle) + cols * math.cos(angle)) + phase
        )
    return color + 0.05 * texture[..., None]


def _canvas(size: int) -> int:
    """The pixels across what an image of that size is reduced from."""
    return size * max(1, round(CANVAS / size))


def draw_scene(seed: int, index: int, size: int = 32, area: Area = AREA) -> Scene:
    """Scene `index` of stream `seed` at size x size pixels; its class is index % 10.

    The same scene of another area differs in its object's size and place alone.
    """
    label = index % len(CLASSES)
    rng = np.random.default_rng(hashed_seed("scene", seed, index))
    side = _canvas(size)
    image = _background(rng, side)
    # half the side of the object's square, of which shapes fill 35 to 57 %
    half = 0.5 * math.sqrt(rng.uniform(*area))
    center = rng.uniform(half, 1 - half, 2)
    turn = math.radians(rng.uniform(-20, 20))
    rows, cols = (np.mgrid[:side, :side] + 0.5) / side
    y, x = (rows - center[0]) / half, (cols - center[1]) / half
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    shape = SHAPES[CLASSES[label]](u, v)
    hue = (label + rng.uniform(-0.5, 0.5)) / len(CLASSES)
    color = np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.6, 1), rng.uniform(0.6, 1)))
    image = np.where(shape[..., None], color + 0.2 * _pattern(label, u, v)[..., None], image)
    image = image.clip(0, 1).reshape(size, side // size, size, side // size, 3).mean((1, 3))
    cover = shape.reshape(size, side // size, size, side // size).mean((1, 3))
    mask = cover >= min(0.5, cover.max())
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (int(ys[0]), int(xs[0]), int(ys[-1]) + 1, int(xs[-1]) + 1)
    return Scene((image * 255).round().astype(np.uint8), label, mask, box)


@cache
def _image(stream: int, index: int, size: int, area: Area) -> np.ndarray:
    return draw_scene(stream, index, size, area).image


@cache
def _mask(stream: int, index: int, size: int, area: Area) -> np.ndarray:
    return draw_scene(stream, index, size, area).mask.astype(np.uint8)


class SceneSource(Source):
    """Drawn objects, rendered on demand and kept."""

    def __init__(self, stream: str, count: int, size: int, area: Area = AREA):
        """ValueError where objects would be too small to be drawn."""
        least = (LEAST / _canvas(size)) ** 2
        if area[0] < least:
            raise ValueError(
                f"scenes of {size} px cannot show objects of {area[0]} of the image: take "
                f"{math.ceil(least * 1e4) / 1e4} or more, or a larger image_size"
            )
        self.split, self.stream, self.side = stream, hashed_seed("scenes", stream), size
        self.area = area
        self.labels = [index % len(CLASSES) for index in range(count)]
        self.fingerprint = f"{scenes_name(area)}-{stream}-{count}-{size}"

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(_image(self.stream, index, self.side, self.area))

    def image_name(self, index: int) -> str:
        return f"{self.split}/{index}"

    def has_mask(self, index: int) -> bool:
        return True

    def mask(self, index: int) -> Image.Image:
        return Image.fromarray(_mask(self.stream, index, self.side, self.area))


def open_scenes(image_size: int, area: Area = AREA) -> Data:
    """The drawn data set at image_size x image_size pixels; ValueError as of SceneSource."""
    train = SceneSource("train", TRAIN_IMAGES, image_size, area)
    val = SceneSource("val", VAL_IMAGES, image_size, area)
    return Data(scenes_name(area), train, val, CLASSES, scene_area=area)
