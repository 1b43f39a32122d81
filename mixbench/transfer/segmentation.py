"""The transfer to segmentation: the network, its training on crops, and what is measured of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mixbench.data.joint import JointAugmentation, crop_loader
from mixbench.data.label_maps import (
    IGNORED,
    LabelledData,
    open_labelled,
    pixels_by_class,
    with_most_pixels,
)
from mixbench.evaluations.evaluation import Figure, Result, known
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.transfer.candidates import Start, say_absent
from mixbench.transfer.drawing import DRAWN, painted, palette, side_by_side
from mixbench.transfer.inference import RATIOS, probabilities
from mixbench.transfer.network import SegmentationNetwork, segmentation_network
from mixbench.transfer.recipe import SegmentationRecipe
from mixbench.transfer.scores import Scores, confusion
from mixbench.transfer.tasks import MULTI, SINGLE, TASKS
from mixbench.transfer.training import Training, build_optimizer


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """How models are transferred to segmentation and measured; a `transferring.Transfer`."""

    recipe: SegmentationRecipe
    ms: bool = False  # also at several sizes, mirrored
    name: str = TASKS["seg"].name

    @property
    def text(self) -> str:
        """The options as text."""
        recipe = self.recipe
        text = f"decoder={recipe.decoder}, epochs={recipe.epochs}, recipe={recipe.digits}"
        return f"{text}, ms=True" if self.ms else text

    @property
    def of_training(self) -> Segmentation:
        """The training alone: one serves every way to measure."""
        return Segmentation(recipe=self.recipe)

    def network(self, start: Start, data: LabelledData, seed: int) -> SegmentationNetwork:
        """An encoder from the start's weights, and a decoder of the data's classes."""
        return segmentation_network(start, self.recipe, len(data.classes), seed)

    def training(
        self,
        network: SegmentationNetwork,
        data: LabelledData,
        model: Recipe,
        seed: int,
        runtime: Runtime,
    ) -> Training:
        """Crops of the training images, cross-entropy of their pixels, the poly rate."""
        recipe = self.recipe
        augmentation = augmentation_of(recipe, model)
        loader = crop_loader(
            data.train, augmentation, recipe.batch_size, seed, runtime.workers, runtime.device
        )
        return Training(
            loader=loader,
            loss=crop_loss,
            optimizer=build_optimizer(network, recipe.opt, recipe.lr, recipe.weight_decay),
            rate=partial(poly_rate, recipe),
            epochs=recipe.epochs,
        )

    @torch.inference_mode()
    def measure(
        self, network: SegmentationNetwork, data: LabelledData, model: Recipe, runtime: Runtime
    ) -> Result:
        """mIoU, mean and pixel accuracy of the validation images, and IoU and accuracy by class.

        The picture shows the first images, each beside its true and its predicted classes.
        """
        network.eval()
        settings: dict[str, tuple[Sequence[float], bool]] = {SINGLE: ((1.0,), False)}
        if self.ms:
            settings[MULTI] = RATIOS, True
        classes, count = len(data.classes), len(data.val.labels)
        counts = {setting: np.zeros((classes, classes), np.int64) for setting in settings}
        per_image = np.full(count, math.nan)
        colours, drawn = palette(classes), []
        for index in range(count):
            image, labels = data.val.load(index), np.asarray(data.val.mask(index))
            for setting, (ratios, mirrored) in settings.items():
                shares = probabilities(
                    network,
                    image,
                    self.recipe,
                    model.mean,
                    model.std,
                    runtime.device,
                    ratios,
                    mirrored,
                )
                predicted = shares.argmax(0).cpu().numpy()
                counted = confusion(labels, predicted, classes)
                counts[setting] += counted
                if setting != SINGLE:
                    continue
                per_image[index] = Scores(counted).pixel_accuracy
                if index < DRAWN:
                    maps = (labels, predicted)
                    drawn.append([image, *(painted(image, each, colours) for each in maps)])
        figures = [
            figure
            for setting in settings
            for figure in _figures(Scores(counts[setting]), setting, data.classes, count)
        ]
        return Result(
            figures=tuple(figures),
            images={"pixel_accuracy": per_image},
            files={".png": side_by_side(drawn)},
        )


def augmentation_of(recipe: SegmentationRecipe, model: Recipe) -> JointAugmentation:
    """The augmentation of a recipe with the normalisation of a model's."""
    return JointAugmentation(
        short_side=recipe.short_side,
        crop_size=recipe.crop_size,
        scale=recipe.scale,
        cat_max_ratio=recipe.cat_max_ratio,
        hflip=recipe.hflip,
        photometric=recipe.photometric,
        mean=model.mean,
        std=model.std,
    )


def poly_rate(recipe: SegmentationRecipe, step: int, steps: int) -> float:
    """The learning rate of a step where `steps` make an epoch, from lr towards min_lr."""
    left = (1 - step / (steps * recipe.epochs)) ** recipe.poly_power
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * left


def crop_loss(
    network: SegmentationNetwork, batch: tuple[Tensor, Tensor], device: torch.device
) -> Tensor:
    """The loss of a batch of crops and their labels."""
    images, labels = (each.to(device, non_blocking=True) for each in batch)
    return pixel_loss(network(images), labels)


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of the pixels that count; 0 where none does, never NaN."""
    total = nn.functional.cross_entropy(
        logits.float(), labels, ignore_index=IGNORED, reduction="sum"
    )
    return total / (labels != IGNORED).sum().clamp(min=1)


def open_segmentation_data(
    root: Path, recipe: SegmentationRecipe, runtime: Runtime
) -> LabelledData:
    """The labelled images of a folder, with the recipe's classes; every label map is read.

    The runtime hears of classes that no image has. ValueError where something is missing or wrong.
    """
    data = open_labelled(root)
    pixels = pixels_by_class(data.train, len(data.classes))
    if recipe.limit_classes:
        data = with_most_pixels(data, pixels, recipe.limit_classes)
        runtime.say(f"{data.name}: the classes are {', '.join(data.classes)}")
        pixels = pixels_by_class(data.train, len(data.classes))
    splits = {"training": pixels, "validation": pixels_by_class(data.val, len(data.classes))}
    for split, counts in splits.items():
        if not counts.any():
            raise ValueError(f"no pixel of the {split} images of {root} has a class")
        say_absent(data.name, split, data.classes, counts, runtime)
    return data


def _figures(scores: Scores, setting: str, classes: Sequence[str], n: int) -> Iterator[Figure]:
    """The means under a setting, and at a single scale what each class has."""
    for metric in ("miou", "macc", "pixel_accuracy"):
        yield Figure(setting=setting, metric=metric, value=getattr(scores, metric), n=n)
    for metric in ("iou", "accuracy") if setting == SINGLE else ():
        for name, value in zip(classes, getattr(scores, metric), strict=True):
            yield Figure(setting=name, metric=f"class_{metric}", value=known(value), n=n)
