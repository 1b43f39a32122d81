"""Top-1 on images as they are and as each of several perturbations leaves them, in one pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mixbench.data.loaders import eval_loader, readable
from mixbench.data.normalisation import Normalisation
from mixbench.evaluations.evaluation import PREDICTED, TRUE, EvalImages, Subject
from mixbench.evaluations.robustness import random_permutation
from mixbench.runtime import Runtime


class Batch(NamedTuple):
    """The images of one batch."""

    pixels: Tensor  # (B, 3, H, W) in [0, 1]
    images: Tensor  # the same, normalised
    first: int  # the number of the first within the split


PROTOCOLS = ("recipe", "ipvit")
IPVIT = "ipvit"

Perturb = Callable[[Batch], Tensor]  # pixels (B, 3, H, W) in [0, 1]


@torch.no_grad()
def right_under(
    subject: Subject,
    data: EvalImages,
    runtime: Runtime,
    perturbations: Mapping[str, Perturb],
    watch: Callable[[Batch], None] | None = None,
) -> dict[str, np.ndarray]:
    """Which images are right as they are, '', and under each perturbation, (n,) bool.

    Each batch is loaded once; `watch` sees it first. Bools alone are kept of it. Where the images
    are not of the model's classes, right is what the model says of the clean image.
    """
    recipe, model = subject.recipe, subject.model
    normalisation = Normalisation.of(recipe.mean, recipe.std, runtime.device)
    right: dict[str, list[np.ndarray]] = {name: [] for name in ("", *perturbations)}
    loader, first = eval_loader(data.source, recipe, runtime.workers, runtime.device), 0
    for images, labels in readable(loader):
        images, labels = images.to(runtime.device), labels.to(runtime.device)
        pixels = (images * normalisation.std + normalisation.mean).clamp(0, 1)
        batch = Batch(pixels, images, first)
        if watch is not None:
            watch(batch)
        clean = predictions(model, images, recipe.amp)
        labels = labels if labels_of(subject, data) == TRUE else clean
        right[""].append((clean == labels).cpu().numpy())
        for name, perturb in perturbations.items():
            changed = predictions(model, normalisation.apply(perturb(batch)), recipe.amp)
            right[name].append((changed == labels).cpu().numpy())
        first += len(labels)
        runtime.tick(first, len(data.source.labels))
    return {name: np.concatenate(parts) for name, parts in right.items()}


def labels_of(subject: Subject, data: EvalImages) -> str:
    """Whether the images' labels are the model's classes, or the model has to predict them."""
    return TRUE if data.classes == subject.classes else PREDICTED


def predictions(model: nn.Module, images: Tensor, amp: bool) -> Tensor:
    """The class that a model gives each of images (B, C, H, W), (B,)."""
    return logits_of(model, images, amp).argmax(1)


@torch.no_grad()
def logits_of(model: nn.Module, images: Tensor, amp: bool) -> Tensor:
    """What a model says of images (B, C, H, W), (B, K); in bfloat16 where `amp` has it so."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
        logits = model(images)
    return getattr(logits, "logits", logits)


def permutations(batch: Batch, draw: int, cells: int, *, alike: bool = False) -> Tensor:
    """An order of `cells` patches for each image, by its number and `draw` alone, (B, cells).

    alike: all have the order of the batch's first.
    """
    count = len(batch.pixels)
    numbers = [batch.first] * count if alike else range(batch.first, batch.first + count)
    orders = [random_permutation(draw, number, cells) for number in numbers]
    return torch.stack(orders).to(batch.pixels.device)


def as_ipvit(subject: Subject) -> Subject:
    """A subject whose images are prepared as IPViT's: resized bilinearly to 256, 224 cropped.

    ValueError for a model of another size.
    """
    if subject.recipe.image_size != 224:
        raise ValueError(
            f"--protocol ipvit is of models at 224 px, and {subject.spec} is at "
            f"{subject.recipe.image_size}: take --protocol recipe"
        )
    recipe = dataclasses.replace(subject.recipe, crop_pct=224 / 256, interpolation="bilinear")
    return dataclasses.replace(subject, recipe=recipe)


def drop_of_each(right: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """How much right is lost of each image, mean over perturbations, in points, (n,)."""
    lost = np.mean([right[name].astype(float) for name in names], 0)
    return 100 * (right[""] - lost)


def percent(right: np.ndarray) -> float:
    """Top-1 in percent."""
    return 100 * float(right.mean())
