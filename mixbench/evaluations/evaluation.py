"""What every evaluation is: options, a subject that it measures, and figures in long rows."""

from __future__ import annotations

import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from torch import nn

from mixbench.data.sources import Data
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.values import did_you_mean, shown

EVALUATIONS = {  # name -> module and class
    "label-error": "mixbench.evaluations.label_error:LabelError",
    "occlusion": "mixbench.evaluations.occlusion:Occlusion",
    "shuffle": "mixbench.evaluations.shuffle:Shuffle",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A trained model that is measured; without a strategy it is a checkpoint alone."""

    spec: str  # the strategy's spec text, or the checkpoint's path
    model: nn.Module  # on the runtime's device, in eval mode
    recipe: Recipe
    classes: tuple[str, ...]
    strategy: MixStrategy | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number of n images or mixes."""

    setting: str  # what it was measured under; '' for all there is
    metric: str
    value: float | None
    n: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """What an evaluation found: figures, and by name a value an image, (n,), for paired tests."""

    figures: tuple[Figure, ...]
    images: Mapping[str, np.ndarray] = field(default_factory=dict)


class Headline(NamedTuple):
    """The one figure of an evaluation that strategies are compared by."""

    setting: str
    metric: str
    higher_is_better: bool


class Evaluation(ABC):
    """A measurement; a subclass is a frozen dataclass of options (`mixbench.values.option`)."""

    name: ClassVar[str]
    detail: ClassVar[str]  # the metric that a report shows by setting

    @property
    @abstractmethod
    def headline(self) -> Headline:
        """The figure that stands for the others."""

    @abstractmethod
    def measure(self, subject: Subject, data: Data, runtime: Runtime) -> Result:
        """The figures of a subject; `data` are those that it was trained on or that were named.

        ValueError where the subject, the data or the options do not fit.
        """

    @property
    def text(self) -> str:
        """The options as text, by which a repeated evaluation knows what is done."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return ", ".join(f"{each.name}={getattr(self, each.name)}" for each in fields)


def evaluation_class(name: str) -> type[Evaluation]:
    """The evaluation called `name`; ValueError with the nearest name for an unknown one."""
    if name not in EVALUATIONS:
        raise ValueError(f"unknown evaluation {shown(name)}: {did_you_mean(name, EVALUATIONS)}")
    module, _, cls = EVALUATIONS[name].partition(":")
    return getattr(importlib.import_module(module), cls)
