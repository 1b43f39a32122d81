"""Boxes of the objects in images: (top, left, bottom, right) in pixels, the last two outside."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from mixbench.data.annotated import (
    KINDS,
    Annotated,
    instances_of,
    kind_and_folder,
    open_annotated,
)
from mixbench.data.folders import FolderSource, listing_hash, open_split, sizes
from mixbench.data.sources import Source, Subset, UnreadableImage, UnreadableMask
from mixbench.errors import reason

if TYPE_CHECKING:
    from torchvision.transforms import Compose

Box = tuple[float, float, float, float]
BOX_KINDS = (*KINDS[:2], "imagenet:DIR", *KINDS[2:])
FILES = Path("bbox", "val")


def tight_box(mask: Any) -> tuple[int, int, int, int]:
    """The smallest box around a mask (h, w): top, left, bottom, right, half-open.

    ValueError where nothing is in the mask.
    """
    values = np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask).astype(bool)
    if values.ndim != 2 or not values.any():
        raise ValueError(f"a box needs a mask (h, w) that is not empty, not {values.shape}")
    rows, columns = (np.flatnonzero(values.any(axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


class Boxed(Subset):
    """The images of a source with the boxes of their objects."""

    def __init__(self, source: Source):
        super().__init__(source, range(len(source.labels)))
        self.fingerprint = source.fingerprint

    @abstractmethod
    def boxes(self, index: int, height: int, width: int) -> list[Box]:
        """The boxes in image `index`, which has so many pixels; [] where none is known."""


class MaskBoxes(Boxed):
    """A source with masks: each instance has the box around it."""

    def boxes(self, index: int, height: int, width: int) -> list[Box]:
        instances: list[np.ndarray] = []
        if isinstance(self.source, Annotated):
            instances, _ = self.source.instances(index)
        elif (mask := self.source.mask(index)) is not None:
            instances, _ = instances_of(np.asarray(mask))
        if instances and instances[0].shape != (height, width):
            rows, columns = instances[0].shape
            raise UnreadableMask(
                f"{self.image_name(index)} has {width} x {height} pixels, and its masks have "
                f"{columns} x {rows}: a mask is as large as its image, turned upright"
            )
        return [tight_box(instance) for instance in instances if instance.any()]


class FileBoxes(Boxed):
    """ImageNet's validation images, each with the .xml file of its name in `bbox/val/`.

    ValueError where images have none; with allow_missing these have no box, nor have those whose
    file is of an image of another size.
    """

    def __init__(self, source: FolderSource, allow_missing: bool = False):
        super().__init__(source)
        folder, self.allow_missing = source.root / FILES, allow_missing
        self.files = [folder / f"{Path(name).stem}.xml" for name in source.names]
        there = [file for file in self.files if file.is_file()]
        missing = len(self.files) - len(there)
        if not there or (missing and not allow_missing):
            first = next(file for file in self.files if not file.is_file())
            raise ValueError(
                f"{missing:,} of {len(self.files):,} images have no file of boxes, such as {first}:"
                " lay them there, or leave such images out with --allow-missing true"
            )
        self.fingerprint = listing_hash([(source.fingerprint, 0), *sizes(there)])

    def boxes(self, index: int, height: int, width: int) -> list[Box]:
        file = self.files[index]
        if self.allow_missing and not file.is_file():
            return []
        size, found = read_boxes(file)
        if size in (None, (height, width)):
            return found
        if self.allow_missing:
            return []
        assert size is not None
        raise UnreadableImage(
            f"{file} is of an image of {size[1]} x {size[0]} pixels, and "
            f"{self.image_name(index)} has {width} x {height}: take ImageNet's own images, or "
            "leave such images out with --allow-missing true"
        )


def read_boxes(path: Path) -> tuple[tuple[int, int] | None, list[Box]]:
    """The height and width that a file of VOC's or ImageNet's XML names, and its boxes.

    The files count pixels from 1, and their last lies within the box; some of ImageNet's begin at
    0, which is taken for 1. UnreadableImage where it is no such file.
    """
    try:
        root = ElementTree.parse(path).getroot()
        boxes = [_box(each) for each in root.iter("bndbox")]
        size = root.find("size")
        if size is None:
            return None, boxes
        return (_number(size, "height"), _number(size, "width")), boxes
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise UnreadableImage(f"cannot read boxes {path}: {reason(error, 200)}") from None


def _box(element: ElementTree.Element) -> Box:
    left, top, right, bottom = (_number(element, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    box = max(top - 1, 0), max(left - 1, 0), bottom, right
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError(f"no pixel is within {left}..{right} x {top}..{bottom}")
    return box


def _number(element: ElementTree.Element, name: str) -> int:
    text = element.findtext(name)
    if text is None:
        raise ValueError(f"its {element.tag} has no {name}")
    return round(float(text))


def open_boxes(text: str, image_size: int, allow_missing: bool) -> tuple[Boxed, tuple[str, ...]]:
    """The source that --boxes names, and the classes of its labels; () where they have none.

    'scenes' are drawn at image_size pixels. ValueError names what was expected and what is there.
    """
    kind, root = kind_and_folder(text, "--boxes", BOX_KINDS)
    if kind == "imagenet":
        photographs, classes = open_split(root, "val")
        return FileBoxes(photographs, allow_missing), classes
    source, classes = open_annotated(text, "union", image_size)
    return MaskBoxes(source), classes


def shown_window(transform: Compose, height: int, width: int) -> Box:
    """What of an image of so many pixels an evaluation transform shows."""
    from torchvision.transforms import CenterCrop, Resize

    rows, columns, window = height, width, (0.0, 0.0, float(height), float(width))
    for step in transform.transforms:
        if isinstance(step, Resize):
            rows, columns = _resized(step.size, height, width)
        elif isinstance(step, CenterCrop):
            (high, wide), down, across = step.size, height / rows, width / columns
            top, left = round((rows - high) / 2), round((columns - wide) / 2)
            window = top * down, left * across, (top + high) * down, (left + wide) * across
    return window


def _resized(size: Any, height: int, width: int) -> tuple[int, int]:
    """The pixels that an image has once torchvision resized it; its shorter side by one number."""
    if not isinstance(size, int) and len(size) == 2:
        return tuple(size)
    side = size if isinstance(size, int) else size[0]
    short = min(height, width)
    return math.floor(side * height / short), math.floor(side * width / short)
