"""The data set that was asked for: a folder, one of torchvision's, or the drawn scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from mixbench.data.folders import open_folder
from mixbench.data.scenes import SceneSource
from mixbench.data.sources import Data, Source, balanced

TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashionmnist": "FashionMNIST"}


SCENES_TRAIN, SCENES_VAL = 3000, 1000


class ArraySource(Source):
    """A torchvision data set that is held in memory."""

    def __init__(self, dataset: Any, name: str):
        self.dataset = dataset
        self.labels = [int(label) for label in dataset.targets]
        self.fingerprint = f"{name}-{len(self.labels)}"

    def load(self, index: int) -> Image.Image:
        return self.dataset[index][0].convert("RGB")


def open_data(
    *,
    data: Path | None = None,
    dataset: str | None = None,
    download: bool = False,
    image_size: int = 32,
    limit_train: int | None = None,
    limit_val: int | None = None,
) -> Data:
    """The data set that was asked for: a folder, one of torchvision's, or the drawn scenes; ValueError names what is wrong."""
    if data is not None:
        opened = open_folder(data)
    elif dataset is not None and dataset != "scenes":
        opened = _open_torchvision(dataset, download)
    else:
        from mixbench.data.scenes import CLASSES

        opened = Data(
            "scenes",
            SceneSource("train", SCENES_TRAIN, image_size),
            SceneSource("val", SCENES_VAL, image_size),
            tuple(CLASSES),
        )
    return replace(
        opened, train=balanced(opened.train, limit_train), val=balanced(opened.val, limit_val)
    )


def _open_torchvision(name: str, download: bool) -> Data:
    import torchvision

    root = Path.home() / ".cache" / "mixbench"
    kind = getattr(torchvision.datasets, TORCHVISION[name])
    try:
        train, val = (kind(root, train=split, download=download) for split in (True, False))
    except RuntimeError as error:
        raise ValueError(f"{name} is not in {root}: add --download to fetch it ({error})") from None
    return Data(
        name,
        ArraySource(train, f"{name}-train"),
        ArraySource(val, f"{name}-val"),
        tuple(train.classes),
    )
