"""What a run keeps of single images: what was said of each, a sample of shares, the gallery."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from mixbench.errors import reason
from mixbench.files import replace_file, replacing


@dataclass(frozen=True, eq=False)
class Bitmap:
    """Which validation images were right, in the order of the data set, and which images they are.

    `names` are joined by zero bytes; None where an older file has none.
    """

    right: np.ndarray  # (N,) bool
    names: bytes | None = None

    def pairs_with(self, other: Bitmap) -> bool:
        """Whether both are of the same images; by their number alone where a file has no names."""
        if self.right.shape != other.right.shape:
            return False
        return None in (self.names, other.names) or self.names == other.names

    def image_names(self) -> list[str] | None:
        """The names of the images, in order."""
        if self.names is None:
            return None
        return self.names.decode("utf-8", "surrogateescape").split("\0")


Correct = Mapping[tuple[str, int], Bitmap]  # by strategy and seed


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageResults:
    """What a trained network says of each validation image, (N,) each in the data set's order."""

    label: np.ndarray  # int32, the true class
    predicted: np.ndarray  # int32, the class of the highest score; -1 where one is not finite
    confidence: np.ndarray  # float32, probability of the predicted class
    nll: np.ndarray  # float32, nats
    brier: np.ndarray  # float32 in [0, 2], sum over the classes of (probability - one-hot)^2
    names: bytes | None = None  # of the images, joined by zero bytes

    @property
    def bitmap(self) -> Bitmap:
        """Which images were right."""
        return Bitmap(self.predicted == self.label, self.names)


IMAGE_FIGURES = {  # arrays of images.npz and their types
    "label": np.int32,
    "predicted": np.int32,
    "confidence": np.float32,
    "nll": np.float32,
    "brier": np.float32,
}


def joined_names(names: Sequence[str]) -> bytes:
    """Names of images as a file keeps them."""
    return "\0".join(names).encode("utf-8", "surrogateescape")


def write_images(path: Path, results: ImageResults) -> None:
    """Write what was said of each validation image, whole or not at all.

    An image takes 20 bytes before compression, and its name.
    """
    arrays: dict[str, Any] = {
        name: getattr(results, name).astype(kind) for name, kind in IMAGE_FIGURES.items()
    }
    if results.names is not None:
        arrays["names"] = np.frombuffer(results.names, np.uint8)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_images(path: Path) -> ImageResults:
    """What was said of each validation image; ValueError where the file does not hold it."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in IMAGE_FIGURES}
            names = file["names"].tobytes() if "names" in file else None
        count = len(arrays["label"])
        for name, kind in IMAGE_FIGURES.items():
            if arrays[name].shape != (count,) or arrays[name].dtype != kind:
                raise ValueError(f"{name} is not {count} values of {np.dtype(kind)}")
        if count and (arrays["label"].min() < 0 or arrays["predicted"].min() < -1):
            raise ValueError("a class is negative")
        _check_names(names, count)
        return ImageResults(**arrays, names=names)
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise ValueError(f"{path} does not hold results of images: {reason(error, 100)}") from None


def _check_names(names: bytes | None, count: int) -> None:
    """ValueError where names are those of another number of images."""
    if count and names is not None and names.count(0) + 1 != count:
        raise ValueError(f"{names.count(0) + 1} names are not those of {count} images")


def read_correct(path: Path) -> Bitmap:
    """Which validation images were right, of a run before images.npz.

    The file is a packed bitmap with names. ValueError where it is none.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            bits, count = file["bits"], int(file["count"])
            if not 0 <= 8 * len(bits) - count < 8:
                raise ValueError(f"{len(bits)} bytes are not {count} images")
            names = file["names"].tobytes() if "names" in file else None
            _check_names(names, count)
            return Bitmap(np.unpackbits(bits, count=count).astype(bool), names)
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise ValueError(f"{path} is not a bitmap of right images: {reason(error, 100)}") from None


def write_lam(path: Path, area: np.ndarray, used: np.ndarray) -> None:
    """Write a sample of A's share by area and in the label, (N,) each, as CSV."""
    lines = [
        "area,used",
        *(f"{a:.5f},{u:.5f}" for a, u in zip(np.asarray(area), np.asarray(used), strict=True)),
    ]
    replace_file(path, "\n".join(lines) + "\n")


def read_lam(path: Path) -> np.ndarray:
    """A sample of A's share by area and in the label, (N, 2); ValueError where there is none."""
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        if header != "area,used":
            raise ValueError("it does not begin with area,used")
        shares = np.array([line.split(",") for line in lines], float)
        if len(shares) and (shares.shape[1:] != (2,) or not np.isfinite(shares).all()):
            raise ValueError("a line is not two numbers")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no sample of shares: {error}") from None
    return shares.reshape(-1, 2)


@dataclass(frozen=True)
class GalleryEntry:
    """One mixed image of the paper's Figure 5; pictures are file names beside the index."""

    strategy: str
    image_a: str
    image_b: str
    mixed: str
    mask: str  # white is A
    map: str  # what `map_name` says, laid over the mixed image
    map_name: str
    class_a: str
    class_b: str
    lam_area: float  # A's share of the pixels
    lam_used: float  # A's share of the label


def write_gallery(folder: Path, entries: Sequence[GalleryEntry]) -> None:
    """Write a gallery's index.json beside its pictures."""
    replace_file(folder / "index.json", json.dumps([asdict(entry) for entry in entries], indent=1))


def read_gallery(folder: Path) -> list[GalleryEntry]:
    """The entries of a gallery's index.json, none where there is no such file.

    ValueError where it is damaged, or a picture of it is not there.
    """
    index = folder / "index.json"
    if not index.exists():
        return []
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        return [_entry(folder, fields) for fields in entries]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{index} is no index of a gallery: {reason(error, 100)}") from None


def _entry(folder: Path, fields: Mapping[str, Any]) -> GalleryEntry:
    """An entry of the index; ValueError or TypeError where it is none."""
    for name, hint in get_type_hints(GalleryEntry).items():
        if hint is float and isinstance(fields[name], float | int):
            continue
        if not isinstance(fields[name], hint):
            raise ValueError(f"{name} cannot be {fields[name]!r}")
    entry = GalleryEntry(**fields)
    for picture in (entry.image_a, entry.image_b, entry.mixed, entry.mask, entry.map):
        if Path(picture).name != picture or not (folder / picture).is_file():
            raise ValueError(f"there is no picture {picture[:60]!r} beside it")
    return entry
