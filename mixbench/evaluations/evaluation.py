"""What every evaluation is: options, a subject that it measures, and figures in long rows."""

from __future__ import annotations

import dataclasses
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from torch import nn

from mixbench.data.sources import Source
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.values import did_you_mean, shown

EVALUATIONS = {  # name -> module and class
    "imagenet-a": "mixbench.evaluations.adversaries:ImageNetA",
    "imagenet-c": "mixbench.evaluations.corrupted:ImageNetC",
    "imagenet-o": "mixbench.evaluations.adversaries:ImageNetO",
    "imagenet-r": "mixbench.evaluations.shifted:ImageNetR",
    "imagenet-sketch": "mixbench.evaluations.shifted:ImageNetSketch",
    "imagenet-v2": "mixbench.evaluations.shifted:ImageNetV2",
    "label-error": "mixbench.evaluations.label_error:LabelError",
    "localize": "mixbench.evaluations.localize:Localize",
    "occlusion": "mixbench.evaluations.occlusion:Occlusion",
    "shuffle": "mixbench.evaluations.shuffle:Shuffle",
    "visualize": "mixbench.evaluations.visualize:Visualize",
    "voc-jaccard": "mixbench.evaluations.voc_jaccard:VocJaccard",
}


TRUE, PREDICTED = "true", "predicted"  # labels


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A trained model that is measured; without a strategy it is a checkpoint alone."""

    spec: str  # the strategy's spec text, or the checkpoint's path
    model: nn.Module  # on the runtime's device, in eval mode
    recipe: Recipe
    classes: tuple[str, ...]
    strategy: MixStrategy | None = None
    seed: int = 0
    headless: bool = False  # whether its classifier was never trained
    # what pictures call the classes, by folder; as the folders where it is empty
    titles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class EvalImages:
    """The images that an evaluation measures on."""

    name: str  # what people call them
    source: Source
    classes: tuple[str, ...]  # of their labels, in order; () where these say nothing

    @property
    def fingerprint(self) -> str:
        """Digits that tell their content from others'."""
        return self.source.fingerprint


@dataclass(frozen=True, kw_only=True)
class Given:
    """What an evaluation may choose its images from."""

    own: Callable[[], EvalImages]  # the run's validation images, or a checkpoint's --data
    place: Path | None  # --data
    image_size: int  # the subjects'


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number of n images or mixes."""

    setting: str  # what it was measured under; '' for all there is
    metric: str
    value: float | None
    n: int
    low: float | None = None  # 95 % interval over the images
    high: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """What an evaluation found: figures, and by name a value an image, (n,), for paired tests."""

    figures: tuple[Figure, ...]
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    each: np.ndarray | None = None  # (n,) whose mean is the headline's figure; NaN is left out
    groups: np.ndarray | None = None  # (n,) alike where values of `each` have a draw in common
    labels: str = TRUE  # or PREDICTED: the model's own top-1 on the clean image
    files: Mapping[str, bytes] = field(default_factory=dict)  # by ending, such as '.png'


def known(value: float) -> float | None:
    """A figure's value; None for NaN, where there is none."""
    return None if math.isnan(value) else float(value)


class Headline(NamedTuple):
    """The one figure of an evaluation that strategies are compared by."""

    setting: str
    metric: str
    higher_is_better: bool


class Evaluation(ABC):
    """A measurement; a subclass is a frozen dataclass of options (`mixbench.values.option`)."""

    name: ClassVar[str]
    section: ClassVar[str]  # of a report
    detail: ClassVar[str]  # the metric that a report shows by setting
    places: ClassVar[tuple[str, ...]] = ()  # options that say where images lie, and no more
    reads_data: ClassVar[bool] = False  # --data is a layout of its own, not the run's images
    classifies: ClassVar[bool] = True  # whether it needs a classifier

    @property
    def details(self) -> tuple[str, ...]:
        """The metrics that a report shows by setting."""
        return (self.detail,)

    @property
    @abstractmethod
    def headline(self) -> Headline | None:
        """The figure that stands for the others; None where strategies are not compared."""

    def open(self, given: Given) -> EvalImages:
        """The images to measure on; ValueError where they are not there."""
        return given.own()

    @abstractmethod
    def measure(self, subject: Subject, data: EvalImages, runtime: Runtime) -> Result:
        """The figures of a subject; `data` are what `open` gave.

        ValueError where the subject, the data or the options do not fit.
        """

    @property
    def text(self) -> str:
        """The options as text; with the images' digits it says what was measured."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        names = (each.name for each in fields if each.name not in self.places)
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


def evaluation_class(name: str) -> type[Evaluation]:
    """The evaluation called `name`; ValueError with the nearest name for an unknown one."""
    if name not in EVALUATIONS:
        raise ValueError(f"unknown evaluation {shown(name)}: {did_you_mean(name, EVALUATIONS)}")
    module, _, cls = EVALUATIONS[name].partition(":")
    return getattr(importlib.import_module(module), cls)
