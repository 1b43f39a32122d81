"""How well the class attention segments the objects of images (the paper's Table 5, left)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from mixbench.data.annotated import KINDS, annotated_name, open_label_maps
from mixbench.data.sources import Source
from mixbench.data.transforms import squash_transform
from mixbench.evaluations.class_maps import HEADS, SUBJECT, at_size, by_setting, class_maps
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
    VOIDS,
    attention_mask,
    enlarged,
    image_jaccard,
)
from mixbench.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe
from mixbench.runtime import Runtime
from mixbench.values import option

FULL = "full image"
IPVIT = {"mass": 0.9, "void": "include", "heads": "best", "size": 0}
IPVIT_SIZE = 512


@dataclass(frozen=True, kw_only=True)
class VocJaccard(Evaluation):
    """The Jaccard index of attention masks with the objects of an image, in percent.

    The mask is of the patches that hold `mass` of the last block's class attention. Of each label
    in an image the best head counts; these are averaged in the image, and then over the images.
    Images are squashed to a square, and their maps with them. Source: IPViT's evaluation, which
    `protocol` ipvit follows: 512 px, bilinear, ImageNet's normalisation whatever the model's.
    """

    name: ClassVar[str] = "voc-jaccard"
    section: ClassVar[str] = "Attention"
    detail: ClassVar[str] = "jaccard"
    places: ClassVar[tuple[str, ...]] = ("masks",)
    classifies: ClassVar[bool] = False

    masks: str = option(
        "scenes", group="voc-jaccard", help=f"images with masks: {', '.join(KINDS)}"
    )
    protocol: str = option(
        "recipe",
        group="voc-jaccard",
        choices=("recipe", "ipvit"),
        help="how images are prepared: as the recipe says, or as in IPViT's released code, at "
        f"{IPVIT_SIZE} px",
    )
    mass: float = option(
        0.9,
        group="voc-jaccard",
        above=0,
        at_most=1,
        help="share of the attention that the mask's patches hold",
    )
    void: str = option(
        "include",
        group="voc-jaccard",
        choices=VOIDS,
        help="whether pixels of label 255 count as another class's or are left out",
    )
    heads: str = option(
        "best",
        group="voc-jaccard",
        choices=HEADS,
        help="the attention: each head's, of which the best counts, or their mean",
    )
    size: int = option(
        0,
        group="voc-jaccard",
        at_least=0,
        at_most=4096,
        help="side of the images in pixels; 0 is the model's own",
    )

    def __post_init__(self) -> None:
        for name, value in IPVIT.items() if self.protocol == "ipvit" else ():
            if getattr(self, name) != value:
                raise ValueError(
                    f"--protocol ipvit says itself what --{name} is, and {getattr(self, name)} is "
                    f"another: leave --{name} out, or take --protocol recipe"
                )

    @property
    def headline(self) -> Headline:
        return Headline(SUBJECT, self.detail, higher_is_better=True)

    def open(self, given: Given) -> EvalImages:
        """Images with label maps, scenes as large as the subjects'."""
        source, classes = open_label_maps(self.masks, given.image_size)
        return EvalImages(name=annotated_name(self.masks), source=source, classes=classes)

    def measure(self, subject: Subject, data: EvalImages, runtime: Runtime) -> Result:
        """Jaccard index and area of the masks: the subject's, an untrained model's, all patches.

        Images without an object are left out and counted.
        """
        recipe = self._recipe(subject.recipe)
        found: dict[str, list[float]] = defaultdict(list)
        areas: dict[str, list[float]] = defaultdict(list)
        samples = _Samples(data.source, recipe)
        for maps, (labels,) in class_maps(subject, recipe, samples, self.heads, runtime):
            masks = {setting: attention_mask(each, self.mass) for setting, each in maps.items()}
            masks[FULL] = np.ones((1, 1, 1), bool)
            for setting, each in masks.items():
                large = enlarged(each, *labels.shape)
                found[setting].append(100 * image_jaccard(large, labels, self.void))
                areas[setting].append(100 * float(each.mean()))
        seen = ~np.isnan(found[SUBJECT])
        if not seen.any():
            raise ValueError(f"no image of {data.name} has an object")
        images = by_setting("jaccard", found) | by_setting("mask_area", areas)
        n = int(seen.sum())
        figures = [
            Figure(setting=setting, metric=metric, value=float(np.array(values)[seen].mean()), n=n)
            for setting in found
            for metric, values in (("jaccard", found[setting]), ("mask_area", areas[setting]))
        ]
        left_out = float((~seen).sum())
        figures.append(Figure(setting=SUBJECT, metric="left_out", value=left_out, n=len(seen)))
        return Result(figures=tuple(figures), images=images, each=images["jaccard"])

    def _recipe(self, recipe: Recipe) -> Recipe:
        """How images are prepared."""
        if self.protocol == "recipe":
            return at_size(recipe, self.size)
        return at_size(
            recipe, IPVIT_SIZE, interpolation="bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD
        )


class _Samples(Dataset[tuple[Any, ...]]):
    """Images squashed to a square, with their label maps (H, W) uint8."""

    def __init__(self, source: Source, recipe: Recipe):
        self.source, self.side = source, recipe.image_size
        self.transform = squash_transform(recipe)

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image, labels = self.source.load(index), self.source.mask(index)
        square = self.side, self.side
        labels = labels or Image.new("L", image.size)
        return self.transform(image), np.asarray(labels.resize(square, Image.Resampling.NEAREST))
