"""Photographs in folders: train/<class>/ and val/<class>/, ImageNet's layout."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from mixbench.data.images import decoded_bytes, image_size, open_image
from mixbench.data.masks import ENDING, FOLDER, read_mask
from mixbench.data.sources import Data, Source, UnreadableImage
from mixbench.files import trouble

SPLITS = ("train", "val")
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".ppm", ".pgm", ".pbm", ".pnm", ".bmp"),
    *(".webp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".tga"),
)
# What systems put into folders; names that begin with a dot are no data either.
SYSTEM = frozenset(
    {"@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "desktop.ini"}
)


class FolderSource(Source):
    """Photographs listed from one split of an image folder."""

    def __init__(self, samples: Sequence[tuple[Path, int]], root: Path):
        self.paths = [path for path, _ in samples]
        self.root = root
        self.labels = [label for _, label in samples]
        self.fingerprint = listing_hash(
            (path.relative_to(root).as_posix(), path.stat().st_size) for path in self.paths
        )

    def load(self, index: int) -> Image.Image:
        return open_image(self.paths[index])

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self.paths[index])

    def content(self, index: int) -> bytes:
        return decoded_bytes(self.paths[index])

    def image_name(self, index: int) -> str:
        return self.paths[index].relative_to(self.root).as_posix()

    def has_mask(self, index: int) -> bool:
        return self._mask_path(index).is_file()

    def mask(self, index: int) -> Image.Image | None:
        path = self._mask_path(index)
        return read_mask(path) if path.is_file() else None

    def check_masks(self) -> None:
        by_mask: dict[Path, Path] = {}
        for index, path in enumerate(self.paths):
            other = by_mask.setdefault(self._mask_path(index), path)
            if other != path:
                raise ValueError(
                    f"{other} and {path.name} would both have the mask "
                    f"{self._mask_path(index)}: rename one of the images"
                )
        [split] = {path.relative_to(self.root).parts[0] for path in self.paths}
        found = sorted((self.root / FOLDER / split).rglob(f"*{ENDING}"))
        lonely = [path for path in found if path not in by_mask]
        if lonely:
            raise ValueError(
                f"{len(lonely)} of {len(found)} masks belong to no image, such as {lonely[0]}: "
                "name each like its image, or remove it"
            )

    def _mask_path(self, index: int) -> Path:
        name = self.paths[index].relative_to(self.root).with_suffix(ENDING)
        return self.root / FOLDER / name


def listing_hash(files: Iterable[tuple[str, int]]) -> str:
    """16 hexadecimal digits of the names and sizes of a split's files."""
    listing = "\n".join(f"{name} {size}" for name, size in files)
    return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def check_splits(root: Path) -> None:
    """ValueError where an image folder or one of its splits is missing or cannot be read."""
    with _reading(root):
        if not root.is_dir():
            raise ValueError(f"data directory not found: {root}")
        for split in SPLITS:
            if not (root / split).is_dir():
                raise ValueError(
                    f"{root} has no {split}/ folder: an image folder holds train/<class>/ and "
                    "val/<class>/"
                )


@contextmanager
def _reading(root: Path) -> Iterator[None]:
    """What the system refuses below `root` becomes a ValueError that names the place."""
    try:
        yield
    except OSError as error:
        place = error.filename or root
        raise ValueError(
            f"cannot read {place}: {trouble(error)}; make it readable, remove it, or choose "
            "another --data"
        ) from None
    except RecursionError:
        raise ValueError(
            f"cannot read {root}: its folders lie too deep in one another; lay the images nearer "
            "to train/<class>/ and val/<class>/"
        ) from None


def check_folder(root: Path) -> tuple[str, ...]:
    """The class names of root/train and root/val, in the order of the labels.

    ValueError where a split is missing or the classes differ.
    """
    check_splits(root)
    names = {}
    for split in SPLITS:
        with _reading(root), os.scandir(root / split) as entries:
            names[split] = {
                entry.name for entry in entries if is_data(entry.name) and entry.is_dir()
            }
        if not names[split]:
            raise ValueError(
                f"{root / split} has no class folders: put the images in {split}/<class>/"
            )
    return common_classes(root, names["train"], names["val"])


def common_classes(root: Path, train: set[str], val: set[str]) -> tuple[str, ...]:
    """The class names of both splits in the order of the labels; ValueError where they differ."""
    if train != val:
        lonely = min(train ^ val)
        where = "train" if lonely in train else "val"
        raise ValueError(
            f"train/ and val/ of {root} hold different classes: {lonely!r} is in {where}/ alone"
        )
    if len(train) < 2:
        raise ValueError(
            f"{root} has one class folder, {min(train)!r}: a classifier needs two or more"
        )
    return tuple(sorted(train))


def is_data(name: str) -> bool:
    """Whether a file or folder of that name is the user's, not the system's."""
    return not name.startswith(".") and name not in SYSTEM


def open_folder(root: Path) -> Data:
    """The data set of an image folder; ValueError for a class without images.

    Classes and images are sorted by their names as text, so 10 comes before 2, as torchvision has
    it. Differs: timm's reader sorts 2 before 10. Links are followed.
    """
    classes = check_folder(root)
    others: Counter[str] = Counter()
    with _reading(root):
        train, val = (
            FolderSource(_samples(root / split, classes, others), root) for split in SPLITS
        )
        name = root.resolve().name
    remarks = () if not others else (left_out(others),)
    return Data(name, train, val, classes, remarks=remarks)


def open_split(root: Path, split: str = "") -> tuple[FolderSource, tuple[str, ...]]:
    """The images of one split of a folder, `split`/<class>/ or <class>/, and its classes.

    As open_folder. ValueError where there are no such folders or one holds no images.
    """
    classes = class_folders(root, split)
    return open_classes(root, split, classes), classes


def class_folders(root: Path, split: str = "") -> tuple[str, ...]:
    """The names of the folders in `split`/ of a folder, sorted as text; ValueError without any."""
    folder = root / split
    with _reading(root):
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}: expected {folder}/<class>/")
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if is_data(entry.name) and entry.is_dir()]
    if not names:
        raise ValueError(f"{folder} has no class folders: expected {folder}/<class>/")
    return tuple(sorted(names))


def open_classes(root: Path, split: str, classes: Sequence[str]) -> FolderSource:
    """The images of these class folders, whose labels are their numbers in `classes`.

    As open_split; other class folders are not read.
    """
    with _reading(root):
        return FolderSource(_samples(root / split, classes, Counter()), root)


def left_out(others: Counter[str]) -> str:
    """How many files are no images, by their endings."""
    ranked = sorted(others.items(), key=lambda pair: (-pair[1], pair[0]))
    endings = ", ".join(f"{count} {ending}" for ending, count in ranked[:5])
    more = ", ..." if len(others) > 5 else ""
    return f"left out: {sum(others.values()):,} files that are no images by name ({endings}{more})"


def _samples(split: Path, classes: Sequence[str], others: Counter[str]) -> list[tuple[Path, int]]:
    """The images of a split with their labels, by class and then by path.

    Other files are counted in `others` by their endings.
    """
    samples = []
    for label, name in enumerate(classes):
        files = _files(split / name, others)
        if not files:
            raise ValueError(
                f"class folder {split / name} holds no images ({', '.join(EXTENSIONS)})"
            )
        samples += [(path, label) for path in files]
    return samples


def _files(folder: Path, others: Counter[str]) -> list[Path]:
    """The images below a folder, sorted part by part of their paths.

    UnreadableImage for one that is no regular file, such as a link that leads nowhere.
    """
    names: list[str] = []
    _walk(str(folder), "", frozenset(), names, others)
    names.sort(key=lambda name: name.split("/"))
    return [folder / name for name in names]


def _walk(
    folder: str,
    prefix: str,
    above: frozenset[tuple[int, int]],
    names: list[str],
    others: Counter[str],
) -> None:
    """Add the names of the images below `folder`; `above` are the folders that it lies in.

    A link to one of those would never end, and is passed over.
    """
    place = os.stat(folder)
    identity = (place.st_dev, place.st_ino)
    if identity in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_data(entry.name):
                continue
            if entry.is_dir():
                _walk(entry.path, f"{prefix}{entry.name}/", above | {identity}, names, others)
            elif not entry.name.lower().endswith(EXTENSIONS):
                others[os.path.splitext(entry.name)[1].lower() or "without an ending"] += 1
            elif entry.is_file():
                names.append(prefix + entry.name)
            else:
                raise UnreadableImage(
                    f"cannot read image {entry.path}: it is no regular file, or a link that leads "
                    "nowhere; remove it"
                )
