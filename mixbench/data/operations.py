"""Pillow's operations on batches of images, to the bit.

Each takes images (n, 3, H, W) uint8, for each image nine numbers (n, 9) float64 (a matrix and a
fill color, or a factor) and a table of levels (n, 256) uint8, and gives the changed images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor


def affine(images: Tensor, numbers: Tensor, _tables: Tensor, *, cubic: bool) -> Tensor:
    """PIL's affine transform, with the fill color outside, (n, 3, H, W) uint8.

    PIL's bicubic kernel has a = -1 (grid_sample's -0.75 would differ), repeats the edge and
    truncates, so that a rounding error can be a whole level: all is in double precision.
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
        values = flat.gather(2, index.flatten(1)[:, None].expand_as(flat))
        return values.view_as(images).to(numbers.dtype)

    def join(values: list[Tensor], t: Tensor) -> Tensor:
        if not cubic:
            return values[0] + (values[1] - values[0]) * t
        p, q, r, s = values
        return q + t * (r - p + t * (2 * (p - q) + r - s + t * (q - p + s - r)))

    taps = range(-1, 3) if cubic else range(2)
    values = join([join([tap(i, j) for i in taps], dx) for j in taps], dy)
    fill = numbers[:, 6:, None, None].to(torch.uint8)
    return torch.where(outside[:, None], fill, values.clamp(0, 255).to(torch.uint8))


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
    """PIL's ImageOps.autocontrast, (n, 3, H, W) uint8.

    In double precision, since the result is truncated.
    """
    flat = images.flatten(2)
    low, high = flat.amin(2, keepdim=True).double(), flat.amax(2, keepdim=True).double()
    levels = torch.arange(256, device=images.device, dtype=torch.float64)
    # a tensor of 255s, since torch divides a plain number by way of the reciprocal
    scale = torch.full_like(low, 255.0) / (high - low).clamp(min=1)
    table = (levels * scale + -low * scale).clamp(0, 255)
    return look_up(images, torch.where(high > low, table, levels).to(torch.uint8))


def luma(images: Tensor) -> Tensor:
    """PIL's conversion to grey, (n, 1, H, W) int32."""
    red, green, blue = images.int().split(1, 1)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def blend(other: Tensor, images: Tensor, numbers: Tensor) -> Tensor:
    """PIL's Image.blend of an integer picture with the images, (n, 3, H, W) uint8.

    Each image's factor is its first number.
    """
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
    """PIL's ImageEnhance.Sharpness, (n, 3, H, W) uint8.

    Its smooth filter leaves the outermost pixels alone.
    """
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
