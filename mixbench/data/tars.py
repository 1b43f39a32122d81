"""Photographs in tar files: train.tar and val.tar, or folders train/ and val/ of tar files."""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mixbench.data.encoded import EncodedSource
from mixbench.data.folders import EXTENSIONS, Met, common_classes, is_data, left_out, listing_hash
from mixbench.data.sources import VALIDATION, Data, UnreadableImage
from mixbench.files import trouble

LAYOUT = "a data set of tar files holds train.tar and val.tar, or train/*.tar and val/*.tar"


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a tar file: where its bytes lie."""

    path: str  # within the split, that of a tar file standing as a folder
    tar: Path
    start: int  # bytes from the tar file's begin
    length: int  # bytes


class TarSource(EncodedSource):
    """Photographs listed from the tar files of one split.

    Each read opens the tar file anew, since processes and threads that share an open file also
    share its position.
    """

    def __init__(self, members: Sequence[Member], labels: Sequence[int], split: str):
        self.members, self.labels, self.split = members, list(labels), split
        self.fingerprint = listing_hash(
            (self.image_name(index), member.length) for index, member in enumerate(members)
        )

    def image_name(self, index: int) -> str:
        return f"{self.split}/{self.members[index].path}"

    def described(self, index: int) -> str:
        return f"{self.members[index].path} of {self.members[index].tar}"

    def encoded(self, index: int) -> bytes:
        member = self.members[index]
        try:
            with member.tar.open("rb") as file:
                file.seek(member.start)
                return file.read(member.length)
        except OSError as error:
            raise UnreadableImage(
                f"cannot read image {self.described(index)}: {trouble(error)}"
            ) from None


def tar_splits(root: Path) -> dict[str, list[Path]]:
    """The tar files of `train` and of the first validation split that is there, by split.

    ValueError where a split is missing.
    """
    with _reading(root):
        if not root.is_dir():
            raise ValueError(f"data directory not found: {root}")
        splits = {split: _tar_files(root, split) for split in ("train", *VALIDATION)}
    val = next((split for split in VALIDATION if splits[split]), None)
    if val is None or not splits["train"]:
        missing = "training" if not splits["train"] else "validation"
        raise ValueError(f"{root} has no {missing} images in tar files: {LAYOUT}")
    return {split: splits[split] for split in ("train", val)}


def _tar_files(root: Path, split: str) -> list[Path]:
    if (root / f"{split}.tar").is_file():
        return [root / f"{split}.tar"]
    folder = root / split
    if not folder.is_dir():
        return []
    names = (name for name in os.listdir(folder) if is_data(name) and name.endswith(".tar"))
    return [folder / name for name in sorted(names)]


def open_tars(root: Path) -> Data:
    """The data set of a folder of tar files, the same as if they were unpacked to an image folder.

    ValueError where a tar file is damaged, or the classes of the splits differ. Differs: timm's
    reader takes the folder next to an image as its class and passes over links without a word.
    """
    met = Met()
    splits = tar_splits(root)
    train, val = (_of_split(root, files, met) for files in splits.values())
    classes = common_classes(root, set(train), set(val))
    in_train, in_val = (
        TarSource(
            [member for name in classes for member in split[name]],
            [label for label, name in enumerate(classes) for _ in split[name]],
            role,  # not the split's own name: identity is that of the same images in folders
        )
        for split, role in ((train, "train"), (val, "val"))
    )
    remarks = [f"validates on the split {list(splits)[1]!r}"]
    if met.others:
        remarks.append(left_out(met.others))
    return Data(root.resolve().name, in_train, in_val, classes, remarks=tuple(remarks))


def _of_split(root: Path, files: Sequence[Path], met: Met) -> dict[str, list[Member]]:
    """The images of a split's tar files by class; files that are no images are counted in `met`.

    Of a path that is there twice the last counts, as for who unpacks it.
    """
    members: dict[str, Member] = {}
    folders: set[str] = set()
    for file in files:
        prefix = "" if file.parent == root else f"{file.stem}/"
        with _reading(file), tarfile.open(file, "r:") as tar:
            for member in _walk(tar, file, prefix, 0, met, folders):
                members[member.path] = member
    if not members:
        raise ValueError(f"{files[0]} holds no images ({', '.join(EXTENSIONS)})")
    return _by_class(list(members.values()), folders)


@contextmanager
def _reading(place: Path) -> Iterator[None]:
    """What the system or the tar format refuses becomes a ValueError that names the place."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"cannot read {place}: {trouble(error)}; make it readable") from None
    except tarfile.TarError as error:
        raise ValueError(
            f"{place} is damaged, or no tar file without compression ({error}): pack it again"
        ) from None


def _walk(
    tar: tarfile.TarFile, file: Path, prefix: str, start: int, met: Met, folders: set[str]
) -> Iterator[Member]:
    """The images of a tar file that begins at byte `start` of `file`, tar files within it too.

    Folders that hold something else, or nothing, are added to `folders`.
    """
    for entry in tar:
        path = posixpath.normpath(prefix + entry.name).lstrip("/")
        if path == "." or not all(map(is_data, path.split("/"))):
            continue
        if entry.isdir():
            folders.add(path)
            continue
        stem, ending = posixpath.splitext(path)
        ending = ending.lower()
        if ending not in (*EXTENSIONS, ".tar"):
            met.count(path)
            folders.add(posixpath.dirname(path))
        elif not entry.isreg() or entry.sparse is not None:
            raise ValueError(
                f"{path} of {file} is a link, a sparse file or no file, and has no bytes of its "
                "own: pack it with tar --dereference --hard-dereference"
            )
        elif ending == ".tar":
            with tarfile.open(fileobj=tar.extractfile(entry), mode="r:") as inner:
                yield from _walk(inner, file, f"{stem}/", start + entry.offset_data, met, folders)
        else:
            yield Member(path, file, start + entry.offset_data, entry.size)
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        # tarfile takes what is no header for the end
        raise tarfile.ReadError(f"no entry at byte {start + tar.offset}, where one must be")


def _by_class(members: Sequence[Member], others: set[str]) -> dict[str, list[Member]]:
    """The images of each class, in the order of their paths.

    A class is a folder, below the folders in which all images lie; as an image folder has it.
    ValueError where one of the `others`, folders that hold no images themselves, is such a class.
    """
    folders = {posixpath.dirname(member.path) for member in members}
    shared = posixpath.commonpath(folders)
    if len(folders) == 1:  # of one class
        shared = posixpath.dirname(shared)
    classes: dict[str, list[Member]] = {}
    for member in members:
        path = posixpath.relpath(member.path, shared or ".")
        name, slash, _ = path.partition("/")
        if not slash:
            raise ValueError(
                f"{member.path} of {member.tar} lies in no class folder: put it into <class>/"
            )
        classes.setdefault(name, []).append(Member(path, member.tar, member.start, member.length))
    for folder in sorted(others):
        name = posixpath.relpath(folder, shared or ".").partition("/")[0]
        if name not in (".", "..") and name not in classes:
            raise ValueError(
                f"class folder {folder} of {members[0].tar} holds no images "
                f"({', '.join(EXTENSIONS)})"
            )
    return {
        name: sorted(images, key=lambda member: member.path.split("/"))
        for name, images in classes.items()
    }
