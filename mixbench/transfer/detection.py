"""The transfer to detection: the network, its training on photographs, and what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.transforms.v2 import functional

from mixbench.data.coco import DetectionData, open_detection, with_most_instances
from mixbench.data.instances import Batch, DetectionAugmentation, instance_loader
from mixbench.evaluations.evaluation import Figure, Result, known
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.transfer.average_precision import (
    AveragePrecision,
    Detections,
    average_precision,
    detections_of,
)
from mixbench.transfer.candidates import Start, say_absent
from mixbench.transfer.detector import detection_loss, detector, learning_rate
from mixbench.transfer.drawing import DRAWN, OBJECTS_HEIGHT, outlined, side_by_side
from mixbench.transfer.recipe import DetectionRecipe
from mixbench.transfer.tasks import BOXES, MASKS, TASKS
from mixbench.transfer.training import Training, build_optimizer


@dataclass(frozen=True, kw_only=True)
class Detection:
    """How models are transferred to detection and measured; a `transferring.Transfer`."""

    recipe: DetectionRecipe
    name: str = TASKS["det"].name

    @property
    def text(self) -> str:
        """The options as text."""
        return f"epochs={self.recipe.epochs}, recipe={self.recipe.digits}"

    @property
    def of_training(self) -> Detection:
        """The training alone: it depends on everything."""
        return self

    def network(self, start: Start, data: DetectionData, seed: int) -> MaskRCNN:
        """Mask R-CNN of the data's classes on the pyramid of the start's weights."""
        return detector(start, self.recipe, len(data.classes), seed)

    def training(
        self, network: MaskRCNN, data: DetectionData, model: Recipe, seed: int, runtime: Runtime
    ) -> Training:
        """The training photographs, the five losses, AdamW, a warm-up and milestones."""
        recipe = self.recipe
        augmentation = DetectionAugmentation(
            short_side=recipe.short_side, long_side=recipe.long_side, hflip=recipe.hflip
        )
        loader = instance_loader(
            data.train, augmentation, recipe.batch_size, seed, runtime.workers, runtime.device
        )
        return Training(
            loader=loader,
            loss=batch_loss,
            optimizer=build_optimizer(
                network, "adamw", recipe.lr, recipe.weight_decay, recipe.encoder_lr_scale
            ),
            rate=partial(learning_rate, recipe),
            epochs=recipe.epochs,
        )

    @torch.inference_mode()
    def measure(
        self, network: MaskRCNN, data: DetectionData, model: Recipe, runtime: Runtime
    ) -> Result:
        """AP, AP50 and AP75 of boxes and masks on the validation images, and AP by class.

        The picture shows the first images with an object, the true ones beside those predicted.
        """
        network.eval()
        found: list[Detections] = []
        drawn: list[list[Image.Image]] = []
        for index in range(len(data.val.labels)):
            image = data.val.load(index)
            pixels = functional.to_dtype(functional.pil_to_tensor(image), torch.float32, scale=True)
            [output] = network([pixels.to(runtime.device)])
            found.append(detections_of(output))
            true = data.val.instances(index)
            if len(drawn) < DRAWN and len(true.labels):
                truth = outlined(image, true.boxes, true.labels, true.masks, data.classes)
                drawn.append([truth, _outlined(image, found[-1], data.classes)])
        figures = [
            figure
            for setting in (BOXES, MASKS)
            for figure in _figures(setting, average_precision(data.val, found, setting), data)
        ]
        return Result(
            figures=tuple(figures),
            images={"detections": np.array([len(each.scores) for each in found])},
            files={".png": side_by_side(drawn, OBJECTS_HEIGHT)},
        )


def batch_loss(network: MaskRCNN, batch: Batch, device: torch.device) -> Tensor:
    """The loss of a batch of images and their targets."""
    images, targets = batch
    return detection_loss(
        network,
        [each.to(device, non_blocking=True) for each in images],
        [
            {name: each.to(device, non_blocking=True) for name, each in target.items()}
            for target in targets
        ],
    )


def open_detection_data(root: Path, recipe: DetectionRecipe, runtime: Runtime) -> DetectionData:
    """The photographs and objects of a folder, with the recipe's classes.

    The runtime hears what is left out, and of classes that no image has. ValueError where
    something is missing or wrong.
    """
    data = open_detection(root)
    if recipe.limit_classes and recipe.limit_classes < len(data.classes):
        data = with_most_instances(data, recipe.limit_classes)
        runtime.say(f"{data.name}: the classes are {', '.join(data.classes)}")
    for split, source in (("training", data.train), ("validation", data.val)):
        out = source.left_out
        for count, what in (
            (out.images, "images without an object"),
            (out.crowds, "crowds"),
            (out.degenerate, "objects without a pixel, or narrower than one"),
        ):
            if count:
                runtime.say(f"left out of the {split} of {data.name}: {count:,} {what}")
        say_absent(data.name, split, data.classes, source.counts, runtime)
    return data


def _outlined(image: Image.Image, found: Detections, classes: tuple[str, ...]) -> Image.Image:
    return outlined(image, found.boxes, found.labels, found.masks(), classes, found.scores)


def _figures(setting: str, scores: AveragePrecision, data: DetectionData) -> Iterator[Figure]:
    """The means of boxes or masks, and what each class has."""
    count = len(data.val.labels)
    for metric in ("ap", "ap50", "ap75"):
        yield Figure(setting=setting, metric=metric, value=known(getattr(scores, metric)), n=count)
    for name, value in zip(data.classes, scores.by_class, strict=True):
        yield Figure(setting=name, metric=f"class_ap_{setting}", value=known(value), n=count)
