"""A data set of anyone's own in Python: two sequences of (image, label)."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from mixbench.data.check import unreadable_words
from mixbench.data.images import in_rgb
from mixbench.data.sources import Data, Source, UnreadableImage
from mixbench.errors import reason
from mixbench.values import shown

READ_TWICE = 8  # items that are read again, to see that they do not change


class Items(Protocol):
    """A map-style data set, such as torch's: item i is an image and the number of its class."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class ItemSource(Source):
    """The items of a data set, known by their pixels and labels.

    An image is a PIL image, or uint8 as an array (H, W) or (H, W, 3) or a tensor (3, H, W). All are
    read once; what cannot be is left out, and `problems` says why. ValueError names the item that
    is no such pair, and items that change.
    """

    def __init__(self, items: Items, split: str):
        self.items, self.split = items, split
        self.labels: list[int] = []
        self.numbers: list[int] = []  # of the items
        self.problems: list[str] = []
        digest = hashlib.sha256()
        for index in range(_length(items, split)):
            try:
                image, label = self._item(index)
            except UnreadableImage as error:
                self.problems.append(str(error))
                continue
            content = _content(image)
            if index < READ_TWICE and content != _content(self._item(index)[0]):
                raise ValueError(
                    f"{self.split}/{index} of the data set is another image each time: leave "
                    "its random transforms out, mixbench augments images itself"
                )
            self.labels.append(label)
            self.numbers.append(index)
            digest.update(content + f" {label}\n".encode())
        self.fingerprint = f"items-{len(self.labels)}-{digest.hexdigest()[:16]}"

    def load(self, index: int) -> Image.Image:
        return self._item(self.numbers[index])[0]

    def image_name(self, index: int) -> str:
        return f"{self.split}/{self.numbers[index]}"

    def _item(self, number: int) -> tuple[Image.Image, int]:
        name = f"{self.split}/{number} of the data set"
        try:
            item = self.items[number]
        except Exception as error:  # whatever a data set finds wrong with its own files
            raise UnreadableImage(f"cannot read {name}: {reason(error)}") from None
        try:
            image, label = item
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be a pair (image, label), not {shown(item)}") from None
        return _image(image, name), _label(label, name)


def _length(items: Items, split: str) -> int:
    try:
        count = len(items)
    except TypeError:
        raise ValueError(
            f"the {split} data set has no length: an iterable one has no item of a number, so "
            "neither the same order for a seed nor an equal resume; give a map-style data set"
        ) from None
    if not count:
        raise ValueError(f"the {split} data set is empty: give at least one image a class")
    return count


def _label(label: Any, name: str) -> int:
    try:
        number = operator.index(label)  # of torch's and numpy's scalars too
    except TypeError:
        number = -1
    if number < 0 or isinstance(label, bool):
        raise ValueError(
            f"the label of {name} must be the number of a class, from 0, not {shown(label)}"
        )
    return number


def _image(image: Any, name: str) -> Image.Image:
    if isinstance(image, Image.Image):
        try:
            return in_rgb(image)  # of a file that was opened alone, read here
        except Exception as error:  # decoders raise anything for a damaged file
            raise UnreadableImage(f"cannot read {name}: {reason(error)}") from None
    if isinstance(image, torch.Tensor) and image.ndim == 3 and image.shape[0] == 3:
        image = image.permute(1, 2, 0)
    pixels = np.asarray(image) if isinstance(image, (torch.Tensor, np.ndarray)) else np.empty(0)
    if pixels.dtype != np.uint8 or (pixels.ndim != 2 and pixels.shape[2:] != (3,)):
        kind = type(image).__name__
        form = f" of {pixels.dtype}, {tuple(pixels.shape)}" if pixels.size else ""
        raise ValueError(
            f"{name} must be a PIL image or uint8 pixels (H, W, 3), not {kind}{form}: leave "
            "ToTensor and Normalize out of its transforms"
        )
    return Image.fromarray(pixels).convert("RGB")


def _content(image: Image.Image) -> bytes:
    return f"{image.width} {image.height} ".encode() + image.tobytes()


def data_of_items(train: Items, val: Items, *, skip: bool = False) -> Data:
    """Two data sets of (image, label) as a training and a validation split.

    Class names are the training set's `classes` where it has them, else the numbers. ValueError
    where labels and names do not agree, and of images that cannot be read, which `skip` leaves out.
    """
    splits = ItemSource(train, "train"), ItemSource(val, "val")
    problems = [problem for split in splits for problem in split.problems]
    if problems and not skip:
        total = len(train) + len(val)
        raise ValueError(f"{unreadable_words(problems, total)}, or give skip_unreadable=True")
    for split in splits:
        if not split.labels:
            raise ValueError(f"no image of the {split.split} data set can be read: mend them")
    count = max(max(split.labels) for split in splits) + 1
    unseen = set(splits[1].labels) - set(splits[0].labels)
    if unseen:
        raise ValueError(
            f"label {min(unseen)} is in the val data set alone: nothing can be learned of it"
        )
    classes, val_classes = _names(train), _names(val)
    for label, (ours, theirs) in enumerate(zip(classes, val_classes, strict=False)):
        if ours != theirs:
            raise ValueError(
                f"label {label} is {ours!r} in the train data set and {theirs!r} in the val data "
                "set: give both the same `classes`"
            )
    if classes:
        if len(set(classes)) != len(classes):
            raise ValueError("the data set's `classes` has a name twice: give each class its own")
        if len(classes) < count:
            raise ValueError(
                f"the data set's `classes` has {len(classes)} names, and label {count - 1} is in it"
            )
    else:
        classes = tuple(map(str, range(count)))
    if len(classes) < 2:
        raise ValueError("a data set of one class has nothing to tell apart: give two or more")
    left_out = [f"left out {len(problems)} images that cannot be read"] if problems else []
    return Data(type(train).__name__, *splits, classes, remarks=tuple(left_out))


def _names(items: Items) -> tuple[str, ...]:
    """What a data set calls its classes, in the order of the labels; nothing where it does not."""
    names = getattr(items, "classes", None)
    return tuple(map(str, names)) if isinstance(names, Sequence) and type(names) is not str else ()
