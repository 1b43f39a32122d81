"""Masks and boxes from class attention, and how well they meet the truth (the paper's Table 5)."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

Maps = TypeVar("Maps", Tensor, np.ndarray)
VOID = 255  # a label of pixels that belong to no class for sure
VOIDS = ("include", "exclude")


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


def tight_box(mask: Any) -> tuple[int, int, int, int]:
    """The smallest box around a mask (h, w): top, left, bottom, right, half-open.

    ValueError where nothing is in the mask.
    """
    values = np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask).astype(bool)
    if values.ndim != 2 or not values.any():
        raise ValueError(f"a box needs a mask (h, w) that is not empty, not {values.shape}")
    rows, columns = (np.flatnonzero(values.any(axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def box_iou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """The intersection over union of two half-open boxes (top, left, bottom, right), 0..1."""
    height, width = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    common = max(height, 0) * max(width, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(areas) - common)


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
