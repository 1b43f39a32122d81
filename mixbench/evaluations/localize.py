"""How well the class attention's box meets that of an object (the paper's Table 5, right)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from mixbench.data.annotated import annotated_name
from mixbench.data.boxes import BOX_KINDS, Box, Boxed, open_boxes, shown_window, tight_box
from mixbench.data.transforms import eval_transform, squash_transform
from mixbench.evaluations.class_maps import HEADS, SUBJECT, by_setting, class_maps
from mixbench.evaluations.evaluation import (
    EvalImages,
    Evaluation,
    Figure,
    Given,
    Headline,
    Result,
    Subject,
)
from mixbench.evaluations.localization import (
    MULTI,
    area,
    attention_mask,
    box_score,
    centre_box,
    largest_part,
    placed,
)
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.values import option

CENTRES = {"full image": 1.0, "centre box .5": 0.5, "centre box .25": 0.25}  # of the area


@dataclass(frozen=True, kw_only=True)
class Localize(Evaluation):
    """The intersection over union of the attention's box with an object's, in percent.

    The box is around the patches that hold `mass` of the last block's class attention, its heads
    averaged. Nobody published code for the paper's figure, and it says no more than that; flat
    attention has a box as large as the image, so what a model has learned is what it is better by
    than the boxes that know nothing and than an untrained model.
    """

    name: ClassVar[str] = "localize"
    section: ClassVar[str] = "Attention"
    detail: ClassVar[str] = "box_iou"
    places: ClassVar[tuple[str, ...]] = ("boxes",)
    classifies: ClassVar[bool] = False

    boxes: str = option(
        "scenes", group="localize", help=f"images with boxes: {', '.join(BOX_KINDS)}"
    )
    allow_missing: bool = option(
        False,
        group="localize",
        help="whether images without a file of boxes, or with another image's, are left out",
    )
    mass: float = option(
        0.9,
        group="localize",
        above=0,
        at_most=1,
        help="share of the attention that the box's patches hold",
    )
    heads: str = option(
        "mean",
        group="localize",
        choices=HEADS,
        help="the attention: each head's, of which the best counts, or their mean",
    )
    component: str = option(
        "all",
        group="localize",
        choices=("all", "largest"),
        help="which patches the box is around: all, or the largest part of those that touch",
    )
    multi: str = option(
        "max",
        group="localize",
        choices=MULTI,
        help="of several true boxes in an image: the best, the mean, or the box around all",
    )
    resize: str = option(
        "squash",
        group="localize",
        choices=("squash", "crop"),
        help="what the model sees: the whole image as a square, or the recipe's centre crop",
    )

    @property
    def headline(self) -> Headline:
        return Headline(SUBJECT, self.detail, higher_is_better=True)

    def open(self, given: Given) -> EvalImages:
        """Images with boxes, scenes as large as the subjects'."""
        source, classes = open_boxes(self.boxes, given.image_size, self.allow_missing)
        return EvalImages(name=annotated_name(self.boxes), source=source, classes=classes)

    def measure(self, subject: Subject, data: EvalImages, runtime: Runtime) -> Result:
        """Intersection over union, share of .5 or more and area of the boxes, all in percent.

        The subject's, an untrained model's, and boxes that know nothing. Images without a box are
        left out and counted.
        """
        assert isinstance(data.source, Boxed)
        ious: dict[str, list[float]] = defaultdict(list)
        areas: dict[str, list[float]] = defaultdict(list)
        samples = _Samples(data.source, subject.recipe, self.resize)
        left_out = 0
        for maps, sample in class_maps(subject, subject.recipe, samples, self.heads, runtime):
            (height, width), window, truth = sample
            left_out += not truth
            for setting, boxes in self._boxes(maps, window, height, width).items():
                scores = [box_score(box, truth, self.multi) if truth else np.nan for box in boxes]
                best = int(np.argmax(scores))
                ious[setting].append(100 * scores[best])
                areas[setting].append(100 * area(boxes[best]) / (height * width))
        if left_out == len(samples):
            raise ValueError(f"no image of {data.name} has a box")
        figures = [
            figure
            for setting in ious
            for figure in _figures(setting, ious[setting], areas[setting])
        ]
        count = len(samples)
        figures.append(Figure(setting=SUBJECT, metric="left_out", value=float(left_out), n=count))
        images = by_setting("box_iou", ious) | by_setting("box_area", areas)
        return Result(figures=tuple(figures), images=images, each=images["box_iou"])

    def _boxes(
        self, maps: Mapping[str, np.ndarray], window: Box, height: int, width: int
    ) -> dict[str, list[Box]]:
        """The boxes in an image by setting, one a head, in its pixels."""
        found: dict[str, list[Box]] = {}
        for setting, each in maps.items():
            masks = attention_mask(each, self.mass)
            if self.component == "largest":
                masks = np.stack([largest_part(mask) for mask in masks])
            grid = (masks.shape[-2], masks.shape[-1])
            found[setting] = [placed(tight_box(mask), grid, window) for mask in masks]
        for setting, share in CENTRES.items():
            found[setting] = [centre_box(share, height, width)]
        return found


def _figures(setting: str, ious: Sequence[float], areas: Sequence[float]) -> list[Figure]:
    iou = np.array(ious)
    seen = ~np.isnan(iou)
    values = {
        "box_iou": iou[seen].mean(),
        "corloc": 100 * (iou[seen] >= 50).mean(),
        "box_area": np.array(areas)[seen].mean(),
    }
    n = int(seen.sum())
    return [
        Figure(setting=setting, metric=metric, value=float(value), n=n)
        for metric, value in values.items()
    ]


class _Samples(Dataset[tuple[Any, ...]]):
    """Images, their height and width, the window that the model sees of them, and their boxes."""

    def __init__(self, source: Boxed, recipe: Recipe, resize: str):
        self.source = source
        self.transform = squash_transform(recipe) if resize == "squash" else eval_transform(recipe)

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image = self.source.load(index)
        width, height = image.size
        window = shown_window(self.transform, height, width)
        boxes = self.source.boxes(index, height, width)
        return self.transform(image), (height, width), window, boxes
