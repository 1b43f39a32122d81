"""Photographs in folders: train/<class>/ and val/<class>/, ImageNet's layout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image

from mixbench.data.sources import Data, Source, UnreadableImage

SPLITS = ("train", "val")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp", ".tif", ".tiff")

T = TypeVar("T")


class FolderSource(Source):
    """Photographs listed from one split of an image folder."""

    def __init__(self, samples: Sequence[tuple[Path, int]], root: Path):
        self.paths = [path for path, _ in samples]
        self.root = root
        self.labels = [label for _, label in samples]
        listing = "\n".join(
            f"{path.relative_to(root).as_posix()} {path.stat().st_size}" for path in self.paths
        )
        self.fingerprint = hashlib.sha256(listing.encode()).hexdigest()[:16]

    def load(self, index: int) -> Image.Image:
        return self._read(index, lambda image: image.convert("RGB"))

    def size(self, index: int) -> tuple[int, int]:
        return self._read(index, lambda image: image.size)  # its header alone

    def image_name(self, index: int) -> str:
        return self.paths[index].relative_to(self.root).as_posix()

    def _read(self, index: int, what: Callable[[Image.Image], T]) -> T:
        try:
            with Image.open(self.paths[index]) as image:
                return what(image)
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableImage(f"cannot read image {self.paths[index]}: {error}") from None


def check_splits(root: Path) -> None:
    """ValueError where an image folder or one of its splits is missing."""
    if not root.is_dir():
        raise ValueError(f"data directory not found: {root}")
    for split in SPLITS:
        if not (root / split).is_dir():
            raise ValueError(
                f"{root} has no {split}/ folder: an image folder holds train/<class>/ and "
                "val/<class>/"
            )


def check_folder(root: Path) -> tuple[str, ...]:
    """The class names of root/train and root/val, in the order of the labels.

    ValueError where a split is missing or the classes differ.
    """
    check_splits(root)
    names = {}
    for split in SPLITS:
        names[split] = {path.name for path in (root / split).iterdir() if path.is_dir()}
        if not names[split]:
            raise ValueError(
                f"{root / split} has no class folders: put the images in {split}/<class>/"
            )
    if names["train"] != names["val"]:
        lonely = min(names["train"] ^ names["val"])
        where = "train" if lonely in names["train"] else "val"
        raise ValueError(
            f"train/ and val/ of {root} hold different classes: {lonely!r} is in {where}/ alone"
        )
    return tuple(sorted(names["train"]))


def open_folder(root: Path) -> Data:
    """The data set of an image folder; ValueError for a class without images."""
    classes = check_folder(root)
    train, val = (FolderSource(_samples(root / split, classes), root) for split in SPLITS)
    return Data(root.resolve().name, train, val, classes)


def _samples(split: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """The images of a split with their labels, by class and then by path."""
    samples = []
    for label, name in enumerate(classes):
        paths = (split / name).rglob("*")
        files = sorted(path for path in paths if path.suffix.lower() in EXTENSIONS)
        if not files:
            raise ValueError(
                f"class folder {split / name} holds no images ({', '.join(EXTENSIONS)})"
            )
        samples += [(path, label) for path in files]
    return samples
