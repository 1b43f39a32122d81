"""Top-1 on images of ImageNet's classes that were gathered otherwise than its own."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from mixbench.data.folders import class_folders, open_classes
from mixbench.data.loaders import eval_loader, readable
from mixbench.data.sources import Source
from mixbench.data.wnids import COUNT, imagenet_classes, subset_classes
from mixbench.evaluations.evaluation import (
    EvalImages,
    Evaluation,
    Figure,
    Given,
    Headline,
    Result,
    Subject,
)
from mixbench.evaluations.perturbed import logits_of, percent
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.values import option, shown

PROTOCOLS = ("recipe", "official")
OFFICIAL_SIDE = 224  # pixels


class Answers(NamedTuple):
    """What a model says of images, a value an image."""

    right: np.ndarray  # (n,) bool
    confidence: np.ndarray  # (n,) float32, its largest probability


@dataclass(frozen=True, kw_only=True)
class Shifted(Evaluation):
    """Top-1 on a folder of ImageNet's classes; a subclass says which and among what it chooses."""

    section: ClassVar[str] = "Robustness"
    detail: ClassVar[str] = "top1"
    reads_data: ClassVar[bool] = True
    count: ClassVar[int]  # class folders
    among: ClassVar[bool]  # whether the folder's classes alone are chosen among
    official_crop: ClassVar[float] = OFFICIAL_SIDE / 256  # `crop_pct` of its authors' code

    protocol: str = option(
        "recipe",
        group="images",
        choices=PROTOCOLS,
        help="how images are prepared: as for the model's own, or as the data set's authors did, "
        "at 224 px",
    )
    allow_partial: bool = option(
        False, group="images", help="measure also where class folders are missing"
    )

    @property
    def headline(self) -> Headline:
        return Headline("", "top1", higher_is_better=True)

    @property
    @abstractmethod
    def known(self) -> Collection[str]:
        """The wnids that it has folders of."""

    def open(self, given: Given) -> EvalImages:
        """The images of --data, `<wnid>/*`."""
        place = place_of(given)
        folders = self.folders(place)
        source = open_classes(place, "", folders)
        return EvalImages(name=place.resolve().name, source=source, classes=self.wnids(folders))

    def folders(self, place: Path, split: str = "") -> tuple[str, ...]:
        """The class folders; ValueError where they are others than the evaluation's, or too few."""
        folders = class_folders(place, split)
        known = set(self.known)
        unknown = [
            folder
            for folder, wnid in zip(folders, self.wnids(folders), strict=True)
            if wnid not in known
        ]
        where = f"{self.name}: {place / split}"
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise ValueError(
                f"{where} holds {shown(unknown[0])}{more}, no class of it: expected {self.layout}"
            )
        if len(folders) < self.count and not self.allow_partial:
            raise ValueError(
                f"{where} holds {len(folders)} class folders: expected {self.layout}; "
                "--allow-partial true measures what is there"
            )
        return folders

    def wnids(self, folders: Sequence[str]) -> tuple[str, ...]:
        """The wnid of each class folder, '' for one that is none."""
        return tuple(folders)

    @property
    def layout(self) -> str:
        """The class folders that it has, in words."""
        return f"{self.count} by WordNet number, such as {next(iter(self.known))}"

    def measure(self, subject: Subject, data: EvalImages, runtime: Runtime) -> Result:
        """Top-1 and what else the evaluation makes of the answers."""
        found = self.answers(subject, data.source, data, runtime)
        top1 = Figure(setting="", metric="top1", value=percent(found.right), n=len(found.right))
        return Result(
            figures=(top1, *self.more_figures(found, runtime)),
            images=dict(found._asdict()),
            each=100 * found.right.astype(float),
        )

    def more_figures(self, found: Answers, runtime: Runtime) -> Iterable[Figure]:
        """What is measured beside top-1."""
        return ()

    def answers(
        self, subject: Subject, source: Source, data: EvalImages, runtime: Runtime
    ) -> Answers:
        """The model's answers to a source's images, whose labels are numbers in data.classes.

        ValueError where the model has not got these classes.
        """
        recipe = prepared(subject.recipe, self.protocol, self.official_crop)
        columns = torch.tensor(columns_of(subject, data), device=runtime.device)
        loader, done = eval_loader(source, recipe, runtime.workers, runtime.device), 0
        right, confidence = [], []
        for images, labels in readable(loader):
            labels = labels.to(runtime.device)
            logits = logits_of(subject.model, images.to(runtime.device), recipe.amp).float()
            if self.among:
                logits = logits[:, columns]
            else:
                labels = columns[labels]
            top, predicted = logits.softmax(1).max(1)
            right.append((predicted == labels).cpu().numpy())
            confidence.append(top.cpu().numpy())
            done += len(labels)
            runtime.tick(done, len(source.labels))
        return Answers(np.concatenate(right), np.concatenate(confidence))


def place_of(given: Given) -> Path:
    """The folder that --data names."""
    if given.place is None:
        raise ValueError("there is no folder of images: say --data DIR")
    return given.place


def prepared(recipe: Recipe, protocol: str, official_crop: float) -> Recipe:
    """The recipe with the images' preparation as a protocol has it.

    'official' resizes bilinearly to 224 px / official_crop and takes the centre; mean and standard
    deviation stay the model's. ValueError for a model of another size.
    """
    if protocol == "recipe":
        return recipe
    if recipe.image_size != OFFICIAL_SIDE:
        raise ValueError(
            f"--protocol official prepares images of {OFFICIAL_SIDE} px, and the model's have "
            f"{recipe.image_size}: take --protocol recipe"
        )
    return dataclasses.replace(recipe, interpolation="bilinear", crop_pct=official_crop)


def columns_of(subject: Subject, data: EvalImages) -> list[int]:
    """The numbers of the images' classes among the model's; ValueError where it lacks some."""
    numbers = {name: number for number, name in enumerate(subject.classes)}
    missing = [name for name in data.classes if name not in numbers]
    if missing:
        raise ValueError(
            f"{subject.spec} has not got {len(missing)} of the {len(data.classes)} classes of "
            f"{data.name}, such as {missing[0]}: measure a model of ImageNet's classes, named by "
            "their WordNet numbers"
        )
    return [numbers[name] for name in data.classes]


class ImageNetV2(Shifted):
    """Top-1 on one of ImageNetV2's sets, `<0..999>/*`, among all classes of the model.

    Source: Recht et al., 2019.
    """

    name: ClassVar[str] = "imagenet-v2"
    count: ClassVar[int] = COUNT
    among: ClassVar[bool] = False

    @property
    def known(self) -> Collection[str]:
        return imagenet_classes()

    @property
    def layout(self) -> str:
        return f"0 to {self.count - 1}, the numbers of ImageNet's classes"

    def wnids(self, folders: Sequence[str]) -> tuple[str, ...]:
        by_number = {str(number): wnid for number, wnid in enumerate(self.known)}
        return tuple(by_number.get(folder, "") for folder in folders)


class ImageNetR(Shifted):
    """Top-1 on ImageNet-R's renditions, `<wnid>/*`, among their 200 classes.

    Source: Hendrycks et al., 2021 (The Many Faces of Robustness).
    """

    name: ClassVar[str] = "imagenet-r"
    count: ClassVar[int] = 200
    among: ClassVar[bool] = True

    @property
    def known(self) -> Collection[str]:
        return subset_classes("r")


class ImageNetSketch(Shifted):
    """Top-1 on ImageNet-Sketch's drawings, `<wnid>/*`, among all classes of the model.

    Source: Wang et al., 2019.
    """

    name: ClassVar[str] = "imagenet-sketch"
    count: ClassVar[int] = COUNT
    among: ClassVar[bool] = False

    @property
    def known(self) -> Collection[str]:
        return imagenet_classes()
