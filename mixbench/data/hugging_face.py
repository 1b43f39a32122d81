"""Hugging Face's map-style data sets, as timm's create_dataset reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mixbench.data.encoded import EncodedSource
from mixbench.data.folders import listing_hash
from mixbench.data.sources import VALIDATION, Data, UnreadableImage
from mixbench.errors import reason
from mixbench.values import shown

IMAGE, LABEL = "image", "label"  # the columns that timm reads


class HuggingFaceSource(EncodedSource):
    """The rows of a split; they are known by their number, file name, bytes and label."""

    def __init__(self, rows: Any, name: str, split: str):
        self.rows, self.name, self.split = rows, name, split
        self.labels = [_label(label, f"{split} of {name}") for label in rows[LABEL]]
        self.fingerprint = listing_hash(
            (f"{split}/{index} {file} {label}", length)
            for index, (label, (file, length)) in enumerate(
                zip(self.labels, _files(rows), strict=True)
            )
        )

    def image_name(self, index: int) -> str:
        return f"{self.split}/{index}"

    def described(self, index: int) -> str:
        return f"{self.image_name(index)} of {self.name}"

    def encoded(self, index: int) -> bytes:
        try:
            image = self.rows[index][IMAGE]
            content = image["bytes"] or Path(image["path"]).read_bytes()
        except Exception as error:  # an empty cell, a file that is gone, a damaged table
            raise UnreadableImage(
                f"cannot read image {self.described(index)}: {reason(error)}"
            ) from None
        assert isinstance(content, bytes)
        return content


def _files(rows: Any) -> Iterator[tuple[str, int]]:
    """The name and the length in bytes of each row's image, none of which is read."""
    import pyarrow.compute as pc

    images = rows.with_format("arrow")[:][IMAGE]
    lengths = pc.binary_length(pc.struct_field(images, "bytes")).to_pylist()
    for path, length in zip(pc.struct_field(images, "path").to_pylist(), lengths, strict=True):
        if length is None and path and os.path.isfile(path):
            length = os.path.getsize(path)
        yield os.path.basename(path or ""), length or 0


def _label(label: Any, where: str) -> int:
    if type(label) is not int or label < 0:
        raise ValueError(
            f"a label of {where} is {shown(label)}, where the number of a class must be, from 0: "
            "take a data set whose labels are given (test splits often hide theirs)"
        )
    return label


def check_package(name: str) -> None:
    """ValueError where Hugging Face's library is not installed."""
    if not find_spec("datasets"):
        raise ValueError(
            f"--dataset {name} needs Hugging Face's library of data sets: pip install datasets"
        )


def open_hugging_face(name: str, download: bool) -> Data:
    """The data set hfds/`name`; nothing is fetched without `download`.

    ValueError where it cannot be had, or is no data set of images and classes.
    """
    full = f"hfds/{name}"
    check_package(full)
    with _opening(full, download):
        train = _reader(full, "train")
    splits = train.dataset.info.splits or {}
    val = next((split for split in VALIDATION if split in splits), None)
    if val is None:
        raise ValueError(
            f"{full} has no split {', '.join(VALIDATION)}: it has {', '.join(splits) or 'train'}; "
            "split it yourself and give mixbench.compare(data=(train, val))"
        )
    with _opening(full, download):
        held_out = _reader(full, val)
    sources = (
        HuggingFaceSource(train.dataset, full, "train"),
        HuggingFaceSource(held_out.dataset, full, val),
    )
    classes = _classes(full, sources, train.class_to_idx, held_out.class_to_idx)
    return Data(name, *sources, classes, remarks=(f"validates on the split {val!r}",))


@contextmanager
def _opening(name: str, download: bool) -> Iterator[None]:
    """Fetching is off without `download`; whatever goes wrong becomes a ValueError."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or not download
    try:
        yield
    except ValueError as error:
        raise ValueError(f"cannot open {name}: {reason(error, 300)}") from None
    except Exception as error:  # of whichever of its libraries
        hint = "" if download else ": add --download to fetch it"
        raise ValueError(f"cannot open {name}{hint} ({reason(error, 300)})") from None
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _reader(name: str, split: str) -> Any:
    """timm's reader of a split; ValueError where it lacks the columns of images and labels."""
    from timm.data import create_dataset

    reader = create_dataset(name, root=None, split=split).reader  # type: ignore[no-untyped-call]
    columns = reader.dataset.column_names
    if LABEL not in columns:
        raise ValueError(
            f"it has the columns {', '.join(columns)}, and must have {IMAGE} and {LABEL}: rename "
            "them and give mixbench.compare(data=(train, val))"
        )
    return reader


def _classes(
    name: str,
    sources: tuple[HuggingFaceSource, HuggingFaceSource],
    train_names: dict[str, int],
    val_names: dict[str, int],
) -> tuple[str, ...]:
    """The class names in the order of the labels, or the numbers; ValueError where they differ."""
    train, val = (set(source.labels) for source in sources)
    if train_names != val_names or not val <= train:
        lonely = min(set(train_names) ^ set(val_names), default=None)
        which = lonely if lonely is not None else min(val - train, default="their order")
        raise ValueError(f"the splits of {name} hold different classes: {shown(which)}")
    count = max(train, default=-1) + 1
    classes = tuple(sorted(train_names, key=train_names.__getitem__)) or tuple(
        map(str, range(count))
    )
    if len(classes) < max(2, count):
        raise ValueError(f"{name} has {len(classes)} class: a classifier needs two or more")
    return classes
