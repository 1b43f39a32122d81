"""Data sets by name: a folder, one of torchvision's, or the drawn scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from PIL import Image

from mixbench.data.folders import open_folder
from mixbench.data.sources import Data, Source, balanced

TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashionmnist": "FashionMNIST"}
DATASETS = ("scenes", *TORCHVISION)


class Labelled(Protocol):
    """What is read of torchvision's data sets."""

    targets: Sequence[int]

    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...


class ArraySource(Source):
    """A torchvision data set that is held in memory."""

    def __init__(self, dataset: Labelled, name: str, split: str):
        self.dataset, self.split = dataset, split
        self.labels = [int(label) for label in dataset.targets]
        self.fingerprint = f"{name}-{split}-{len(self.labels)}"

    def load(self, index: int) -> Image.Image:
        image, _ = self.dataset[index]
        return image.convert("RGB")

    def image_name(self, index: int) -> str:
        return f"{self.split}/{index}"


def open_data(
    *,
    data: Path | None = None,
    dataset: str | None = None,
    download: bool = False,
    image_size: int = 32,
    limit_train: int | None = None,
    limit_val: int | None = None,
) -> Data:
    """The folder `data`, or the data set of that name, or the scenes at `image_size` pixels.

    At most `limit_train` and `limit_val` of its images, balanced by class. ValueError names what
    is wrong.
    """
    if data is not None:
        opened = open_folder(data)
    elif dataset is not None and dataset != "scenes":
        opened = _open_torchvision(dataset, download)
    else:
        from mixbench.data.scenes import open_scenes  # the command line reads DATASETS: no numpy

        opened = open_scenes(image_size)
    return limited(opened, limit_train, limit_val)


def limited(data: Data, limit_train: int | None, limit_val: int | None) -> Data:
    """At most so many images of each split, balanced by class; ValueError where a class is lost."""
    for option, limit in (("--limit-train", limit_train), ("--limit-val", limit_val)):
        if limit is not None and limit < len(data.classes):
            raise ValueError(
                f"{option} {limit} leaves classes out, of which there are {len(data.classes)}: "
                f"take {len(data.classes)} or more"
            )
    return replace(data, train=balanced(data.train, limit_train), val=balanced(data.val, limit_val))


def _open_torchvision(name: str, download: bool) -> Data:
    import torchvision

    root = Path.home() / ".cache" / "mixbench"
    kind = getattr(torchvision.datasets, TORCHVISION[name])
    try:
        train, val = (kind(root, train=split, download=download) for split in (True, False))
    except Exception as error:  # not there, or damaged: a pickle's reader raises anything
        raise ValueError(f"{name} is not in {root}: add --download to fetch it ({error})") from None
    return Data(
        name,
        ArraySource(train, name, "train"),
        ArraySource(val, name, "val"),
        tuple(train.classes),
    )
