"""The embedded data set: drawn objects of ten classes on textured backgrounds that say nothing of the class."""

from __future__ import annotations

import colorsys
import math
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from mixbench.data.sources import Source
from mixbench.mix import hashed_seed


@cache
def _scene(stream: int, index: int, size: int) -> np.ndarray:
    pass

    return draw_scene(stream, index, size).image


class SceneSource(Source):
    """Drawn objects, rendered on demand and kept."""

    def __init__(self, stream: str, count: int, size: int):
        pass

        self.stream, self.side = hashed_seed("scenes", stream), size
        self.labels = [index % len(CLASSES) for index in range(count)]
        self.fingerprint = f"scenes-{stream}-{count}-{size}"

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(_scene(self.stream, index, self.side))


CLASSES = (
    "disc",
    "square",
    "triangle",
    "ring",
    "cross",
    "star",
    "crescent",
    "bar",
    "heart",
    "hexagon",
)


CANVAS = 64  # drawn at this size and reduced


class Scene(NamedTuple):
    """One drawn image: (size, size, 3) uint8 RGB, its class, the object's pixels (size, size) and their tight half-open box."""

    image: np.ndarray
    label: int
    mask: np.ndarray
    box: tuple[int, int, int, int]  # top, left, bottom, right


def _shape(label: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where the class's shape is, in object coordinates of about -1 .. 1 (u right, v down)."""
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    au, av = np.abs(u), np.abs(v)
    if label == 0:
        return radius < 0.85
    if label == 1:
        return np.maximum(au, av) < 0.75
    if label == 2:
        return (v < 0.7) & (au < (v + 0.9) * 0.55)
    if label == 3:
        return (radius < 0.95) & (radius > 0.5)
    if label == 4:
        return (np.minimum(au, av) < 0.3) & (np.maximum(au, av) < 0.95)
    if label == 5:
        return radius < 0.65 + 0.33 * np.cos(5 * (angle + math.pi / 2))
    if label == 6:
        return (radius < 0.95) & (np.hypot(u - 0.45, v) > 0.7)
    if label == 7:
        return (au < 0.98) & (av < 0.38)
    if label == 8:
        return (np.hypot(au - 0.42, v + 0.3) < 0.5) | ((v > -0.3) & (au * 0.95 + v * 0.98 < 0.72))
    return np.maximum(au * 0.866 + av * 0.5, av) < 0.8


def _pattern(label: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The class's surface pattern, -1 .. 1."""
    angle = math.pi * label / 10
    waves = np.sin((4 + 1.2 * (label % 4)) * math.pi * (u * math.cos(angle) + v * math.sin(angle)))
    return waves * np.cos(3 * math.pi * (v - u)) if label % 2 else waves


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A textured background at half saturation, (size, size, 3) in 0 .. 1, independent of the class."""
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


def draw_scene(seed: int, index: int, size: int = 32) -> Scene:
    """Scene `index` of stream `seed` at size x size pixels; its class is index % 10."""
    label = index % len(CLASSES)
    rng = np.random.default_rng(hashed_seed("scene", seed, index))
    side = size * max(1, round(CANVAS / size))
    image = _background(rng, side)
    half = 0.5 * math.sqrt(
        rng.uniform(0.12, 0.5)
    )  # of the object's square; shapes fill 40 to 90 % of it
    center = rng.uniform(half, 1 - half, 2)
    turn = math.radians(rng.uniform(-20, 20))
    rows, cols = (np.mgrid[:side, :side] + 0.5) / side
    y, x = (rows - center[0]) / half, (cols - center[1]) / half
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    shape = _shape(label, u, v)
    hue = (label + rng.uniform(-0.5, 0.5)) / len(CLASSES)
    color = np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.6, 1), rng.uniform(0.6, 1)))
    image = np.where(shape[..., None], color + 0.2 * _pattern(label, u, v)[..., None], image)
    image = image.clip(0, 1).reshape(size, side // size, size, side // size, 3).mean((1, 3))
    cover = shape.reshape(size, side // size, size, side // size).mean((1, 3))
    mask = cover >= min(0.5, cover.max())
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (int(ys[0]), int(xs[0]), int(ys[-1]) + 1, int(xs[-1]) + 1)
    return Scene((image * 255).round().astype(np.uint8), label, mask, box)
