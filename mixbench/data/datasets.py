"""Data sets by name: a folder, tar files, a library's, or the drawn scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from PIL import Image

from mixbench.data.folders import open_folder
from mixbench.data.hugging_face import check_package, open_hugging_face
from mixbench.data.scene_area import SCENES, area_of, is_scenes
from mixbench.data.sources import Data, Source, balanced
from mixbench.data.tars import open_tars, tar_splits
from mixbench.values import did_you_mean, shown

TORCHVISION = {  # name -> timm's, behind torch/
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "fashionmnist": "fashion_mnist",
}
DATASETS = {  # name -> what it is
    "scenes": "drawn here, no download: 3,000 + 1,000 images of ten classes of objects, with "
    "masks; scenes:LOW,HIGH with objects of another area",
    "cifar10": "50,000 + 10,000 images of 32 px, ten classes",
    "cifar100": "50,000 + 10,000 images of 32 px, 100 classes",
    "fashionmnist": "60,000 + 10,000 grey images of 28 px, ten classes of clothes",
}
TORCH = (*TORCHVISION.values(), "mnist", "kmnist", "qmnist")
IN_FOLDERS = ("imagenet", "image_folder", "folder", "places365", "inaturalist", "inat")
PREFIXES = {  # what begins a name -> what stands behind it
    "tar/": "DIR, with train.tar and val.tar",
    "hfds/": "NAME of a Hugging Face data set",
    "torch/": "NAME of a torchvision data set",
}
ITERABLE = ("hfids/", "tfds/", "wds/")


class Labelled(Protocol):
    """What is read of torchvision's data sets."""

    targets: Sequence[int]

    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...


class ArraySource(Source):
    """A torchvision data set that is held in memory."""

    def __init__(self, dataset: Labelled, name: str, split: str):
        self.dataset, self.split = dataset, split
        try:
            self.labels = [int(label) for label in dataset.targets]
        except (TypeError, ValueError, RuntimeError):  # QMNIST's are more than the class
            self.labels = [int(dataset[index][1]) for index in range(len(dataset.targets))]
        self.fingerprint = f"{name}-{split}-{len(self.labels)}"

    def load(self, index: int) -> Image.Image:
        image, _ = self.dataset[index]
        return image.convert("RGB")

    def image_name(self, index: int) -> str:
        return f"{self.split}/{index}"


def check_dataset(name: str) -> None:
    """ValueError where a data set's name is unknown or is not there, before torch is imported."""
    prefix, slash, rest = name.partition("/")
    prefix += slash
    if prefix in ITERABLE:
        raise ValueError(
            f"--dataset {shown(name)} is an iterable source: it has no item of a number, so "
            "neither the same order for a seed nor an equal resume; take the same data by tar/DIR "
            "or hfds/NAME"
        )
    if name in DATASETS:
        return
    if is_scenes(name):
        area_of(name)
        return
    if prefix not in PREFIXES:
        known = [*DATASETS, *(f"{start}..." for start in PREFIXES)]
        raise ValueError(f"unknown data set {shown(name)}: {did_you_mean(name, known)}")
    if not rest or "\0" in rest:
        raise ValueError(f"--dataset {shown(name)} must be {prefix}{PREFIXES[prefix]}")
    if prefix == "tar/":
        tar_splits(Path(rest))
    elif prefix == "hfds/":
        check_package(name)
    elif rest in IN_FOLDERS:
        raise ValueError(
            f"{name} lies in folders of images: unpack it to train/<class>/ and val/<class>/, and "
            "give that folder as --data DIR"
        )
    elif rest not in TORCH:
        known = [f"torch/{each}" for each in TORCH]
        raise ValueError(f"unknown data set {shown(name)}: {did_you_mean(name, known)}")


def is_dataset(text: str) -> bool:
    """Whether a text is meant as a data set's name, not as a folder."""
    return text in DATASETS or is_scenes(text) or text.startswith((*PREFIXES, *ITERABLE))


def open_data(
    *,
    data: Path | None = None,
    dataset: str | None = None,
    download: bool = False,
    image_size: int = 32,
    limit_train: int | None = None,
    limit_val: int | None = None,
    listing: Callable[[Path], Data] = open_folder,
) -> Data:
    """The folder `data`, or the data set of that name, or the scenes at `image_size` pixels.

    At most `limit_train` and `limit_val` of its images, balanced by class. `listing` opens a
    folder. ValueError names what is wrong.
    """
    if data is not None:
        opened = listing(data)
    elif dataset is not None and not is_scenes(dataset):
        opened = _open_named(dataset, download)
    else:
        from mixbench.data.scenes import open_scenes  # the command line reads DATASETS: no numpy

        opened = open_scenes(image_size, area_of(dataset or SCENES))
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


def _open_named(name: str, download: bool) -> Data:
    check_dataset(name)
    prefix, _, rest = name.partition("/")
    if prefix == "tar":
        return open_tars(Path(rest))
    if prefix == "hfds":
        return open_hugging_face(rest, download)
    short = {timms: ours for ours, timms in TORCHVISION.items()}.get(rest, rest)
    return _open_torchvision(short or name, download)


def _open_torchvision(name: str, download: bool) -> Data:
    from timm.data import create_dataset

    root = Path.home() / ".cache" / "mixbench"
    of_timm = f"torch/{TORCHVISION.get(name, name)}"
    try:
        train, val = (
            create_dataset(of_timm, str(root), split=split, download=download)  # type: ignore[no-untyped-call]
            for split in ("train", "validation")
        )
    except Exception as error:  # not there, or damaged: a pickle's reader raises anything
        raise ValueError(f"{name} is not in {root}: add --download to fetch it ({error})") from None
    return Data(
        name,
        ArraySource(train, name, "train"),
        ArraySource(val, name, "val"),
        tuple(train.classes),
    )
