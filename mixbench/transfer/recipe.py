"""The recipe of a transfer to segmentation; command line over YAML over defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from mixbench.recipe import LARGEST_SIDE, config_dir, find_file, read_fields
from mixbench.values import Option, coerce, option, read_value

DECODERS = ("linear", "segmenter")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationRecipe:
    """Everything that changes a transfer's numbers, but the weights, the data and the seed.

    The defaults are Segmenter's recipe for Pascal Context, which the paper's Table 2 follows.
    """

    decoder: str = option(
        "linear",
        group="network",
        help="what makes classes of the encoder's tokens: a linear layer, or Segmenter's mask "
        "transformer",
        choices=DECODERS,
    )
    decoder_depth: int = option(
        2, group="network", help="blocks of the mask transformer", above=0, at_most=100
    )
    decoder_drop: float = option(
        0.1,
        group="network",
        help="share of activations that the mask transformer drops",
        at_least=0,
        below=1,
    )
    drop_path: float = option(
        0.1,
        group="network",
        help="share of images that skip the encoder's last block, less in earlier ones",
        at_least=0,
        below=1,
    )
    short_side: int = option(
        520,
        group="images",
        help="short side of a resized image in pixels, whose proportions stay",
        above=0,
        at_most=LARGEST_SIDE,
    )
    crop_size: int = option(
        480,
        group="images",
        help="side of a training crop and of the window that slides over an image",
        above=0,
        at_most=LARGEST_SIDE,
    )
    window_stride: int = option(
        320,
        group="images",
        help="pixels from a window to the next; the last one ends at the image's edge",
        above=0,
        at_most=LARGEST_SIDE,
    )
    scale: tuple[float, float] = option(
        (0.5, 2.0),
        group="images",
        help="least and largest factor of a training image's size",
        at_least=0.1,
        at_most=10,
    )
    cat_max_ratio: float = option(
        0.75,
        group="images",
        help="share of a crop's labelled pixels that one class stays below, in ten tries",
        above=0,
        at_most=1,
    )
    hflip: float = option(
        0.5,
        group="images",
        help="share of training images that are mirrored",
        at_least=0,
        at_most=1,
    )
    photometric: bool = option(
        True, group="images", help="change brightness, contrast, saturation and hue"
    )
    limit_classes: int = option(
        0,
        group="images",
        help="train and count the classes with most training pixels alone, so many; 0 for all",
        at_least=0,
        at_most=255,
    )
    epochs: int = option(
        256, group="optimization", help="times that every image is seen", above=0, at_most=10**6
    )
    batch_size: int = option(
        16, group="optimization", help="crops of one update", above=0, at_most=2**16
    )
    opt: str = option(
        "sgd",
        group="optimization",
        help="the optimizer; sgd has momentum 0.9",
        choices=("sgd", "adamw"),
    )
    lr: float = option(1e-3, group="optimization", help="learning rate of the first step", above=0)
    min_lr: float = option(
        1e-5, group="optimization", help="learning rate after the last step", at_least=0
    )
    poly_power: float = option(
        0.9,
        group="optimization",
        help="power of the share of steps that are left, by which the rate falls",
        above=0,
        at_most=10,
    )
    weight_decay: float = option(
        0.0,
        group="optimization",
        help="weight decay; biases, norms, position and class embeddings have none",
        at_least=0,
        at_most=1000,
    )

    def __post_init__(self) -> None:
        for name, meaning in self.options().items():
            value = getattr(self, name)
            coerce(value, HINTS[name], name)
            meaning.check(name, value)
        if self.min_lr > self.lr:
            raise ValueError(
                f"min_lr {self.min_lr:g} must not be above lr {self.lr:g}: take --min-lr "
                f"{self.lr / 100:g}"
            )
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must be two numbers in order, not {self.scale}")
        if self.window_stride > self.crop_size:
            raise ValueError(
                f"window_stride {self.window_stride} must not be above crop_size "
                f"{self.crop_size}, or pixels are left out: take --window-stride {self.crop_size}"
            )
        if self.limit_classes == 1:
            raise ValueError("limit_classes 1 leaves nothing to tell apart: take 2 or more")

    @classmethod
    def options(cls) -> dict[str, Option]:
        """What each field says of itself, by its name and in order."""
        return {field.name: field.metadata["option"] for field in dataclasses.fields(cls)}

    @property
    def digits(self) -> str:
        """Eight hex digits of all fields."""
        values = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(values.encode()).hexdigest()[:8]


HINTS: dict[str, Any] = get_type_hints(SegmentationRecipe)


def transfer_configs() -> Path:
    """Where the shipped recipes of transfers lie."""
    return config_dir() / "transfer"


def load_segmentation_recipe(config: str, overrides: Mapping[str, Any]) -> SegmentationRecipe:
    """The recipe of a YAML file, by path or a shipped one's name, with `overrides` on top.

    ValueError for any mistake in it.
    """
    values = read_fields(find_file(config, transfer_configs()), HINTS) | dict(overrides)
    read = {name: read_value(value, HINTS[name], name) for name, value in values.items()}
    return SegmentationRecipe(**read)
