"""Fine-grained saliency equal to OpenCV's, on any device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

SCALES = (12, 24, 48, 28, 56, 112)  # half sides of the surrounding windows, in OpenCV's order
REACH = max(SCALES)
CHUNK = 4  # images a pass on a CPU, so that what is at work stays in the cache


def fine_grained(pixels: Tensor) -> Tensor:
    """Fine-grained saliency of uint8 RGB images (B, 3, H, W), float32 (B, H, W) in [0, 1].

    It is 0 where an image is flat. Equal to OpenCV's StaticSaliencyFineGrained on the same image in
    BGR, whose sums lose digits above 256 x 256, as these then do. ValueError for anything but uint8
    with three channels. Source: Montabone and Soto, 2010.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(
            f"saliency needs uint8 RGB images (B, 3, H, W), not {pixels.dtype} "
            f"{tuple(pixels.shape)}"
        )
    size, areas = len(pixels), _areas(pixels)
    if pixels.device.type == "cpu" and not torch.compiler.is_compiling():
        size = CHUNK
    return torch.cat([_fine_grained(chunk, areas) for chunk in pixels.split(size)])


def _fine_grained(pixels: Tensor, areas: list[Tensor]) -> Tensor:
    red, green, blue = pixels.int().unbind(1)  # (B, H, W) each
    gray = 3735 * blue + 19235 * green + 9798 * red + (1 << 14) >> 15  # OpenCV's cvtColor
    for _ in range(2):
        gray = _neighbours(gray, 2).add_(gray, alpha=2)
        gray = _neighbours(gray, 1).add_(gray, alpha=2).add_(8) >> 4
    sums = gray.cumsum(2, dtype=torch.int32)
    # float32 holds every sum, and then rounds where OpenCV adds two of them
    if 255 * sums[0].numel() < 2**24:
        sums = sums.cumsum(1, dtype=torch.int32).float()
    else:  # OpenCV adds row after row in float32, and loses the digits that this loses
        sums = sums.float()
        for row in range(1, sums.shape[1]):
            sums[:, row] += sums[:, row - 1]
    return _combine(contrast.int() for contrast in _contrasts(gray.float(), sums, areas))


def _neighbours(gray: Tensor, dim: int) -> Tensor:
    """The sum of the two neighbours along `dim`, (B, H, W) as `gray`.

    The border is mirrored without repeating its last pixel.
    """
    size = gray.shape[dim]
    total = torch.cat([gray.narrow(dim, 1, size - 1), gray.narrow(dim, max(size - 2, 0), 1)], dim)
    total.narrow(dim, 1, size - 1).add_(gray.narrow(dim, 0, size - 1))
    total.narrow(dim, 0, 1).add_(gray.narrow(dim, min(1, size - 1), 1))
    return total


def _areas(images: Tensor) -> list[Tensor]:
    """For each scale the size of the window around each pixel, (H, W) float32.

    The pixel itself is left out, and the size is at least 1.
    """
    areas = []
    for reach in SCALES:
        rows, cols = (
            ((at + reach + 1).clamp(max=side) - (at - reach + 1).clamp(min=0)).float()
            for side in images.shape[-2:]
            for at in [torch.arange(side, device=images.device)]
        )
        areas.append((rows[:, None] * cols).sub_(1).clamp_(min=1))
    return areas


def _contrasts(center: Tensor, sums: Tensor, areas: list[Tensor]) -> Iterator[Tensor]:
    """For each scale the mean around each pixel less the pixel itself, float32 (B, H, W).

    It is rounded as OpenCV does. center (B, H, W) and sums, of all pixels above and to the left,
    inclusive, are float32.
    """
    batch, height, width = sums.shape
    # zeros before and the last sum after: a slice is then the window clipped to the image
    padded = sums.new_zeros(batch, height + 2 * REACH, width + 2 * REACH)
    padded[:, REACH : REACH + height, REACH : REACH + width] = sums
    padded[:, REACH : REACH + height, REACH + width :] = sums[:, :, -1:]
    padded[:, REACH + height :] = padded[:, REACH + height - 1 : REACH + height]
    for reach, area in zip(SCALES, areas, strict=True):
        # the window's first row or column and that past its last
        before, after = REACH - reach, REACH + reach
        top, bottom = padded[:, before : before + height], padded[:, after : after + height]
        left, right = slice(before, before + width), slice(after, after + width)
        window = bottom[:, :, right] + top[:, :, left]  # in this order, as OpenCV
        window.sub_(bottom[:, :, left]).sub_(top[:, :, right])
        yield window.sub_(center).div_(area).sub_(center)


def _combine(contrasts: Iterable[Tensor]) -> Tensor:
    """The map in [0, 1], float32 (B, H, W), of whole contrasts, int32 (B, H, W) each.

    Darker pixels and brighter ones are summed apart.
    """
    total: Any = 0
    off: Any = 0
    for contrast in contrasts:
        total = contrast + total
        off = contrast.clamp_(min=0) + off
    on, off = _to_bytes(off - total), _to_bytes(off)
    peak = torch.maximum(on.amax((1, 2), keepdim=True), off.amax((1, 2), keepdim=True))
    peak = peak.clamp_(min=1)
    both = on.add_(off).mul_(255).div_(peak)
    return both.int().bitwise_and_(255) * (1 / 255)  # it can pass 255, and OpenCV's byte then wraps


def _to_bytes(sums: Tensor) -> Tensor:
    """255 * (sums / their maximum) cut to whole numbers, float32 (B, H, W).

    As in OpenCV the quotient alone is rounded to float32.
    """
    share = sums / sums.amax((1, 2), keepdim=True).clamp_(min=1)
    whole = (share * 255).int().float()
    # 1 less where float32 rounded the product up to a whole number: 255 * share - whole is then
    # below 0, by 2**-32 or more
    return whole.add_((share * 256).sub_(whole).sub_(share).mul_(2**32).clamp_(-1, 0))


def official_saliency(images: Tensor) -> Tensor:
    """What SaliencyMix's released code takes for saliency, float32 (B, H, W) in [0, 1].

    images (B, 3, H, W) are normalised. The code hands OpenCV normalised floats, red and blue
    swapped; OpenCV then takes the bytes of each row's left quarter for its brightness. Equal to
    OpenCV's own answer, on processors with fused multiply-add, but for about one pixel in a
    million.
    """
    blue, green, red = images.float().unbind(1)
    gray = _fused(red, 0.299, _fused(blue, 0.114, green * 0.587))
    for _ in range(2):
        for dim in (2, 1):
            gray = _neighbours(gray, dim) * 0.25 + gray * 0.5
    center = gray.contiguous().view(torch.uint8)[..., : gray.shape[-1]].float()
    sums = gray.double().cumsum(2).cumsum(1).float()
    contrasts = _contrasts(center, sums, _areas(images))
    return _combine(contrast.fmod(256).int() for contrast in contrasts)  # OpenCV's bytes wrap


def _fused(factor: Tensor, weight: float, term: Tensor) -> Tensor:
    """factor * weight + term rounded once to float32."""
    return (factor.double() * float(np.float32(weight)) + term).float()


def opencv_saliency(pixels: Tensor) -> Tensor:
    """OpenCV's own fine-grained saliency of uint8 RGB images (B, 3, H, W), float32 (B, H, W).

    It waits for the device. ValueError where OpenCV cannot be imported or lacks the detector.
    """
    try:
        import cv2
    except ImportError as error:
        raise ValueError(
            f"OpenCV cannot be imported ({error}): install opencv-contrib-python, and libgl1 and "
            "libglib2.0-0 from the system"
        ) from error
    # OpenCV that overwrote opencv-contrib's has an empty module
    create = getattr(getattr(cv2, "saliency", None), "StaticSaliencyFineGrained_create", None)
    if create is None:
        raise ValueError(
            f"OpenCV {cv2.__version__} has no saliency detector: pip uninstall opencv-python "
            "opencv-python-headless, then pip install --force-reinstall opencv-contrib-python"
        )
    detector = create()
    images = pixels.flip(1).permute(0, 2, 3, 1).contiguous().cpu().numpy()  # (B, H, W, 3) BGR
    return torch.stack(
        [torch.from_numpy(detector.computeSaliency(image)[1]) for image in images]
    ).to(pixels.device)
