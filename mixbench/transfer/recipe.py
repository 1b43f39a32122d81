"""The recipes of transfers, one a task; command line over YAML over defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from mixbench.recipe import LARGEST_SIDE, config_dir, find_file, read_fields
from mixbench.values import Option, coerce, option, read_value

DECODERS = ("linear", "segmenter")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferRecipe:
    """What the recipes of all tasks can do; each field is an option."""

    def __post_init__(self) -> None:
        hints = self.hints()
        for name, meaning in self.options().items():
            value = getattr(self, name)
            coerce(value, hints[name], name)
            meaning.check(name, value)

    @classmethod
    def options(cls) -> dict[str, Option]:
        """What each field says of itself, by its name and in order."""
        return {field.name: field.metadata["option"] for field in dataclasses.fields(cls)}

    @classmethod
    def hints(cls) -> dict[str, Any]:
        """The type of each field, by its name."""
        return get_type_hints(cls)

    @property
    def digits(self) -> str:
        """Eight hex digits of all fields."""
        values = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(values.encode()).hexdigest()[:8]


R = TypeVar("R", bound=TransferRecipe)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(TransferRecipe):
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
        super().__post_init__()
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionRecipe(TransferRecipe):
    """Everything that changes a transfer's numbers, but the weights, the data and the seed.

    The defaults are PVT's recipe of Mask R-CNN with the 1x schedule, which the paper's Table 3
    follows. Differs: PVT's code decays norms, biases and position embeddings too, by 1e-4.
    """

    fpn_channels: int = option(
        256, group="network", help="channels of the pyramid's maps", above=0, at_most=2**12
    )
    box_head_dim: int = option(
        1024,
        group="network",
        help="width of the two layers that a region's class and box are made from",
        above=0,
        at_most=2**16,
    )
    mask_layers: int = option(
        4,
        group="network",
        help="convolutions that a region's mask is made from",
        above=0,
        at_most=100,
    )
    anchor_size: int = option(
        32,
        group="network",
        help="side of the smallest anchors in pixels; it doubles from a map to the next",
        above=0,
        at_most=LARGEST_SIDE,
    )
    drop_path: float = option(
        0.1,
        group="network",
        help="share of images that skip the encoder's last block, less in earlier ones",
        at_least=0,
        below=1,
    )
    rpn_post_nms_top_n_train: int = option(
        1000,
        group="regions",
        help="proposals of a training image that are left",
        above=0,
        at_most=2**16,
    )
    rois_per_image: int = option(
        512,
        group="regions",
        help="regions of a training image that the heads learn from",
        above=0,
        at_most=2**16,
    )
    short_side: int = option(
        800,
        group="images",
        help="short side of a resized image in pixels, whose proportions stay",
        above=0,
        at_most=LARGEST_SIDE,
    )
    long_side: int = option(
        1333,
        group="images",
        help="the most that a resized image's long side has; its short one is less then",
        above=0,
        at_most=LARGEST_SIDE,
    )
    hflip: float = option(
        0.5,
        group="images",
        help="share of training images that are mirrored",
        at_least=0,
        at_most=1,
    )
    limit_classes: int = option(
        0,
        group="images",
        help="train and count the classes with most training objects alone, so many; 0 for all",
        at_least=0,
        at_most=10**4,
    )
    epochs: int = option(
        12, group="optimization", help="times that every image is seen", above=0, at_most=10**6
    )
    batch_size: int = option(
        16, group="optimization", help="images of one update", above=0, at_most=2**16
    )
    lr: float = option(
        2e-4, group="optimization", help="AdamW's learning rate after the warm-up", above=0
    )
    encoder_lr_scale: float = option(
        1.0,
        group="optimization",
        help="share of the rate that the encoder has; what is new has all of it",
        at_least=0,
        at_most=1,
    )
    milestones: tuple[int, ...] = option(
        (8, 11),
        group="optimization",
        help="epochs after which the rate is a tenth of what it was",
        above=0,
        at_most=10**6,
    )
    warmup_steps: int = option(
        500,
        group="optimization",
        help="steps in which the rate rises, in a line, to lr",
        at_least=0,
        at_most=10**9,
    )
    warmup_ratio: float = option(
        0.001,
        group="optimization",
        help="share of the rate that the first step of the warm-up has",
        above=0,
        at_most=1,
    )
    weight_decay: float = option(
        1e-4,
        group="optimization",
        help="weight decay; biases, norms and position embeddings have none",
        at_least=0,
        at_most=1000,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.short_side > self.long_side:
            raise ValueError(
                f"short_side {self.short_side} must not be above long_side {self.long_side}: take "
                f"--long-side {self.short_side * 5 // 3}"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, not {self.milestones}")
        if self.milestones and self.milestones[-1] > self.epochs:
            raise ValueError(
                f"milestones {self.milestones} must not be above epochs {self.epochs}: take "
                f"--milestones {max(1, self.epochs * 2 // 3)}"
            )


def transfer_configs() -> Path:
    """Where the shipped recipes of transfers lie."""
    return config_dir() / "transfer"


def load_recipe(kind: type[R], config: str, overrides: Mapping[str, Any]) -> R:
    """A task's recipe of a YAML file, by path or a shipped one's name, with `overrides` on top.

    ValueError for any mistake in it.
    """
    hints = kind.hints()
    values = read_fields(find_file(config, transfer_configs()), hints) | dict(overrides)
    return kind(**{name: read_value(value, hints[name], name) for name, value in values.items()})
