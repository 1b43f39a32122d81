"""Photographs in folders: train/<class>/ and val/<class>/, ImageNet's layout."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from PIL import Image

from mixbench.data.images import decoded_bytes, image_size, open_image
from mixbench.data.masks import ENDING, FOLDER, read_mask
from mixbench.data.names import Names
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
HASHED = 10_000  # files whose lines are hashed at once


class FolderSource(Source):
    """Photographs below a folder, by class; `names` are their paths within it, with slashes."""

    def __init__(self, root: Path, names: Names, labels: list[int], fingerprint: str):
        self.root, self.names, self.labels = root, names, labels
        self.fingerprint = fingerprint

    def path(self, index: int) -> Path:
        """Where the file of image `index` is."""
        return self.root / self.names[index]

    def load(self, index: int) -> Image.Image:
        return open_image(self.path(index))

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self.path(index))

    def content(self, index: int) -> bytes:
        return decoded_bytes(self.path(index))

    def image_name(self, index: int) -> str:
        return self.names[index]

    def has_mask(self, index: int) -> bool:
        return self._mask_path(self.names[index]).is_file()

    def mask(self, index: int) -> Image.Image | None:
        path = self._mask_path(self.names[index])
        return read_mask(path) if path.is_file() else None

    def check_masks(self) -> None:
        by_mask: dict[Path, str] = {}
        for name in self.names:
            other = by_mask.setdefault(self._mask_path(name), name)
            if other != name:
                raise ValueError(
                    f"{self.root / other} and {Path(name).name} would both have the mask "
                    f"{self._mask_path(name)}: rename one of the images"
                )
        [split] = {name.partition("/")[0] for name in self.names}
        folder = self.root / FOLDER / split
        found = sorted(
            path
            for path in folder.rglob(f"*{ENDING}")
            if all(map(is_data, path.relative_to(folder).parts))
        )
        lonely = [path for path in found if path not in by_mask]
        if lonely:
            raise ValueError(
                f"{len(lonely)} of {len(found)} masks belong to no image, such as {lonely[0]}: "
                "name each like its image, or remove it"
            )

    def _mask_path(self, name: str) -> Path:
        return self.root / FOLDER / Path(name).with_suffix(ENDING)


def listing_hash(files: Iterable[tuple[str, int]]) -> str:
    """16 hexadecimal digits of the names and sizes of a split's files."""
    digest, between, left = hashlib.sha256(), "", iter(files)
    while lines := [f"{name} {size}" for name, size in islice(left, HASHED)]:
        text = between + "\n".join(lines)
        digest.update(text.encode("utf-8", "surrogateescape"))
        between = "\n"
    return digest.hexdigest()[:16]


def sizes(files: Sequence[Path]) -> list[tuple[str, int]]:
    """The names of files with their sizes in bytes; UnreadableImage where one is not there."""
    for file in files:
        if not file.is_file():
            raise UnreadableImage(f"cannot read {file}: it is listed, and there is no such file")
    return [(file.name, file.stat().st_size) for file in files]


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


def check_folder(root: Path, met: Met | None = None) -> tuple[str, ...]:
    """The class names of root/train and root/val, in the order of the labels.

    ValueError where a split is missing or the classes differ.
    """
    check_splits(root)
    met = met or Met()
    names = {}
    for split in SPLITS:
        with _reading(root):
            names[split] = _folders_in(root / split, met)
        if not names[split]:
            raise ValueError(
                f"{root / split} has no class folders: put the images in {split}/<class>/"
            )
    return common_classes(root, names["train"], names["val"])


def _folders_in(folder: Path, met: Met) -> set[str]:
    """The names of the class folders in a split; files beside them are met, and no images.

    ValueError for a link that leads nowhere: the class would be lost without a word.
    """
    names = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_data(entry.name):
                continue
            if entry.is_dir():
                names.add(entry.name)
            elif entry.is_file():
                met.count(entry.name)
            else:
                raise ValueError(
                    f"{entry.path} is no folder of images, or a link that leads nowhere; remove it"
                )
    return names


def common_classes(root: Path, train: set[str], val: set[str]) -> tuple[str, ...]:
    """The class names of both splits in the order of the labels; ValueError where they differ."""
    if train != val:
        lonely = min(train ^ val)
        where = "train" if lonely in train else "val"
        if _composed(train) == _composed(val):
            raise ValueError(
                f"train/ and val/ of {root} write the accents of {lonely!r} with other characters, "
                "which look alike: rename one of the two folders like the other"
            )
        raise ValueError(
            f"train/ and val/ of {root} hold different classes: {lonely!r} is in {where}/ alone"
        )
    if len(train) < 2:
        raise ValueError(
            f"{root} has one class folder, {min(train)!r}: a classifier needs two or more"
        )
    return tuple(sorted(train))


def _composed(names: set[str]) -> set[str]:
    """Names with each accent in its letter: systems store them in either way."""
    return {unicodedata.normalize("NFC", name) for name in names}


def is_data(name: str) -> bool:
    """Whether a file or folder of that name is the user's, not the system's."""
    return not name.startswith(".") and name not in SYSTEM


def open_folder(root: Path) -> Data:
    """The data set of an image folder; ValueError for a class without images.

    Classes and images are sorted by their names as text, so 10 comes before 2, as torchvision has
    it. Differs: timm's reader sorts 2 before 10. Links are followed.
    """
    return list_folder(root)[0]


@dataclass
class Met:
    """What else is met where images are looked for."""

    others: Counter[str] = field(default_factory=Counter)  # files that are no images, by ending
    folders: dict[str, int] = field(default_factory=dict)  # when each changed, in ns since 1970

    def count(self, name: str) -> None:
        """Count a file that is no image."""
        self.others[os.path.splitext(name)[1].lower() or "without an ending"] += 1


def list_folder(root: Path) -> tuple[Data, Met]:
    """As open_folder, and what else was met on the way."""
    met = Met()
    classes = check_folder(root, met)
    with _reading(root):
        train, val = (_source(root, root / split, classes, met) for split in SPLITS)
        name = root.resolve().name
    remarks = () if not met.others else (left_out(met.others),)
    return Data(name, train, val, classes, remarks=remarks), met


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
        names = _folders_in(folder, Met())
    if not names:
        raise ValueError(f"{folder} has no class folders: expected {folder}/<class>/")
    return tuple(sorted(names))


def open_classes(root: Path, split: str, classes: Sequence[str]) -> FolderSource:
    """The images of these class folders, whose labels are their numbers in `classes`.

    As open_split; other class folders are not read.
    """
    with _reading(root):
        return _source(root, root / split, classes, Met())


def left_out(others: Counter[str]) -> str:
    """How many files are no images, by their endings."""
    ranked = sorted(others.items(), key=lambda pair: (-pair[1], pair[0]))
    endings = ", ".join(f"{count} {ending}" for ending, count in ranked[:5])
    more = ", ..." if len(others) > 5 else ""
    return f"left out: {sum(others.values()):,} files that are no images by name ({endings}{more})"


def _source(root: Path, split: Path, classes: Sequence[str], met: Met) -> FolderSource:
    """The images of a split below `root`, by class and then by path."""
    names, labels = Names(), list[int]()
    for label, name in enumerate(classes):
        folder = split / name
        images = image_names(folder, met)
        if not images:
            raise ValueError(f"class folder {folder} holds no images ({', '.join(EXTENSIONS)})")
        within = folder.relative_to(root).as_posix()
        names.extend(f"{within}/{image}" for image in images)
        labels += [label] * len(images)
    return FolderSource(root, names, labels, listing_hash(_sizes(root, names)))


def _sizes(root: Path, names: Iterable[str]) -> Iterator[tuple[str, int]]:
    """The names of files below `root` with their sizes in bytes."""
    before = str(root / "_").removesuffix("_")
    stat = os.stat
    for name in names:
        yield name, stat(before + name).st_size


def image_names(folder: Path, met: Met) -> list[str]:
    """The images below a folder, sorted part by part of their paths within it.

    UnreadableImage for one that is no regular file, such as a link that leads nowhere.
    """
    names: list[str] = []
    _walk(str(folder), "", frozenset(), names, met)
    names.sort()
    if "/" in "".join(names):
        names.sort(key=lambda name: name.split("/"))
    return names


def _walk(
    folder: str, prefix: str, above: frozenset[tuple[int, int]], names: list[str], met: Met
) -> None:
    """Add the names of the images below `folder`; `above` are the folders that it lies in.

    A link to one of those would never end, and is passed over.
    """
    place = os.stat(folder)
    identity = (place.st_dev, place.st_ino)
    if identity in above:
        return
    met.folders[folder] = place.st_mtime_ns
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if not is_data(name):
                continue
            image = name.lower().endswith(EXTENSIONS)
            if entry.is_file():  # first, since nearly all are
                if image:
                    names.append(prefix + name)
                    continue
            elif entry.is_dir():
                _walk(entry.path, f"{prefix}{name}/", above | {identity}, names, met)
                continue
            elif image:
                raise UnreadableImage(
                    f"cannot read image {entry.path}: it is no regular file, or a link that leads "
                    "nowhere; remove it"
                )
            met.count(name)
