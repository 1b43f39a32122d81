"""Photographs in folders: train/<class>/ and val/<class>/, ImageNet's layout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    pass
from mixbench.data.sources import Data, Source, UnreadableImage

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp", ".tif", ".tiff")


class FolderSource(Source):
    """Photographs listed from one split of an image folder."""

    def __init__(self, samples: Sequence[tuple[Path, int]], root: Path):
        self.paths = [path for path, _ in samples]
        self.labels = [label for _, label in samples]
        listing = "\n".join(
            f"{path.relative_to(root).as_posix()} {path.stat().st_size}" for path in self.paths
        )
        self.fingerprint = hashlib.sha256(listing.encode()).hexdigest()[:16]

    def load(self, index: int) -> Image.Image:
        return self._read(index, lambda image: image.convert("RGB"))

    def size(self, index: int) -> tuple[int, int]:
        return self._read(index, lambda image: image.size)  # its header alone

    def _read(self, index: int, what: Callable[[Image.Image], Any]) -> Any:
        try:
            with Image.open(self.paths[index]) as image:
                return what(image)
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableImage(f"cannot read image {self.paths[index]}: {error}") from None


def check_folder(root: Path) -> tuple[str, ...]:
    """The class names of root/train and root/val; ValueError where a split is missing or the classes differ."""
    check_splits(root)
    names = {}
    for split in ("train", "val"):
        names[split] = {path.name for path in (root / split).iterdir() if path.is_dir()}
        if not names[split]:
            raise ValueError(
                f"{root / split} has no class folders: put the images in {split}/<class>/"
            )
    if names["train"] != names["val"]:
        one = sorted(names["train"] ^ names["val"])[0]
        where = "train" if one in names["train"] else "val"
        raise ValueError(
            f"train/ and val/ of {root} hold different classes: {one!r} is in {where}/ alone"
        )
    return tuple(sorted(names["train"]))


def open_folder(root: Path) -> Data:
    """An image folder with train/<class>/ and val/<class>/, ImageNet's layout; ValueError for a class without images."""
    classes = check_folder(root)
    splits = {}
    for split in ("train", "val"):
        samples: list[tuple[Path, int]] = []
        for label, name in enumerate(classes):
            files = sorted(
                p for p in (root / split / name).rglob("*") if p.suffix.lower() in EXTENSIONS
            )
            if not files:
                raise ValueError(
                    f"class folder {root / split / name} holds no images ({', '.join(EXTENSIONS)})"
                )
            samples += [(path, label) for path in files]
        splits[split] = FolderSource(samples, root)
    return Data(root.resolve().name, splits["train"], splits["val"], classes)


def check_splits(root: Path) -> None:
    """ValueError where an image folder or one of its splits is missing."""
    if not root.is_dir():
        raise ValueError(f"data directory not found: {root}")
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise ValueError(
                f"{root} has no {split}/ folder: an image folder holds train/<class>/ and val/<class>/"
            )
