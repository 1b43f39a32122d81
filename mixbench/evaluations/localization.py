"""Masks and boxes from class attention, and how well they meet the truth (the paper's Table 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mixbench.data.boxes import Box, tight_box

__all__ = ["attention_mask", "box_iou", "box_score", "jaccard", "tight_box"]

Maps = TypeVar("Maps", Tensor, np.ndarray)
VOID = 255  # a label of pixels that belong to no class for sure
VOIDS = ("include", "exclude")
MULTI = ("max", "mean", "union")


def attention_mask(attn: Maps, mass: float = 0.9) -> Maps:
    """The patches that hold `mass` of the attention, the least attended left out, (..., h, w) bool.

    attn (..., h, w) is not negative; a map of NumPy gives one. Source: DINO's and IPViT's masks.
    ValueError for a mass outside (0, 1] and for a map that sums to 0.
    """
    if not 0 < mass <= 1:
        raise ValueError(f"mass must be above 0 and at most 1, not {mass}")
    maps = np.asarray(attn.detach().cpu() if isinstance(attn, Tensor) else attn, np.float64)
    flat = maps.reshape(*maps.shape[:-2], -1)
    totals = flat.sum(-1, keepdims=True)
    if not (np.isfinite(totals).all() and (flat >= 0).all() and (totals > 0).all()):
        raise ValueError("attention must be finite, not negative, and above 0 somewhere")
    order = np.argsort(flat, -1, kind="stable")
    below = np.take_along_axis(flat / totals, order, -1).cumsum(-1)
    kept = np.empty(flat.shape, bool)
    np.put_along_axis(kept, order, below > 1 - mass + 1e-12, -1)
    mask = kept.reshape(maps.shape)
    return torch.from_numpy(mask).to(attn.device) if isinstance(attn, Tensor) else mask


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The part of a mask (h, w) with most patches, which touch at their sides; of equals the first.

    ValueError where nothing is in the mask.
    """
    from scipy.ndimage import label

    parts, count = label(mask)
    if not count:
        raise ValueError(f"a mask {mask.shape} without a patch has no part")
    return parts == 1 + np.bincount(parts.ravel())[1:].argmax()


def placed(box: Box, grid: tuple[int, int], window: Box) -> Box:
    """A box of patches in a grid (rows, columns) that lies over a window of an image, in pixels."""
    top, left, bottom, right = window
    rows, columns = (bottom - top) / grid[0], (right - left) / grid[1]
    return (
        top + box[0] * rows,
        left + box[1] * columns,
        top + box[2] * rows,
        left + box[3] * columns,
    )


def centre_box(share: float, height: int, width: int) -> Box:
    """The box in the middle of an image, of its shape and with so much of its area."""
    margin = (1 - math.sqrt(share)) / 2
    return margin * height, margin * width, (1 - margin) * height, (1 - margin) * width


def area(box: Box) -> float:
    """The pixels in a box."""
    return (box[2] - box[0]) * (box[3] - box[1])


def box_score(box: Box, truth: Sequence[Box], multi: str = "max") -> float:
    """The intersection over union of a box with true ones, 0..1; ValueError without any.

    multi 'max' is the best of them, 'mean' their mean, 'union' with the box around all.
    """
    if multi not in MULTI:
        raise ValueError(f"multi must be one of {', '.join(MULTI)}, not {multi!r}")
    if not truth:
        raise ValueError("no true box: leave such images out")
    if multi == "union":
        tops, lefts, bottoms, rights = zip(*truth, strict=True)
        return box_iou(box, (min(tops), min(lefts), max(bottoms), max(rights)))
    scores = [box_iou(box, each) for each in truth]
    return max(scores) if multi == "max" else sum(scores) / len(scores)


def box_iou(a: Box, b: Box) -> float:
    """The intersection over union of two half-open boxes (top, left, bottom, right), 0..1."""
    height, width = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    common = max(height, 0) * max(width, 0)
    return common / (area(a) + area(b) - common)


def enlarged(masks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Masks (..., h, w) to the nearest at (..., height, width)."""
    rows = np.arange(height) * masks.shape[-2] // height
    columns = np.arange(width) * masks.shape[-1] // width
    return masks[..., rows[:, None], columns]


def image_jaccard(masks: np.ndarray, labels: np.ndarray, void: str = "include") -> float:
    """The mean over an image's labels (H, W) of the best jaccard of masks (n, H, W).

    Labels 0 and 255 are none; NaN where there is no other.
    """
    known = [number for number in np.unique(labels) if number not in (0, VOID)]
    best = [max(jaccard(mask, labels, number, void) for mask in masks) for number in known]
    return sum(best) / len(best) if best else math.nan


def jaccard(mask: ArrayLike, labels: ArrayLike, label: int, void: str = "include") -> float:
    """The intersection over union of a mask (H, W) with the pixels of a label in (H, W), 0..1.

    void 'include' counts pixels of label 255 as another class's, as the released code does in
    effect; 'exclude' leaves them out. ValueError where no pixel has the label.
    Source: IPViT's evaluation on Pascal VOC.
    """
    if void not in VOIDS:
        raise ValueError(f"void must be one of {', '.join(VOIDS)}, not {void!r}")
    ours, numbers = np.asarray(mask).astype(bool), np.asarray(labels)
    if ours.shape != numbers.shape:
        raise ValueError(f"mask is of shape {ours.shape} and labels of {numbers.shape}")
    theirs = numbers == label
    if not theirs.any():
        raise ValueError(f"no pixel has label {label}: leave such images out")
    if void == "exclude":
        ours = ours & (numbers != VOID)
    return float((ours & theirs).sum() / (ours | theirs).sum())
