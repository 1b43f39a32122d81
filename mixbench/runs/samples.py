"""What a run keeps of single images: which were right, a sample of shares, and the gallery."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mixbench.files import replace_file, replacing

# by strategy and seed: (N,) bool, the validation images that were right
Correct = Mapping[tuple[str, int], np.ndarray]


def write_correct(path: Path, correct: Iterable[bool] | np.ndarray) -> None:
    """Write which validation images were right as a packed bitmap, whole or not at all.

    correct (N,) is in the order of the data set; an image takes an eighth of a byte.
    """
    flags = np.asarray(correct, bool)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, bits=np.packbits(flags), count=np.int64(len(flags)))


def read_correct(path: Path) -> np.ndarray:
    """Which validation images were right, (N,) bool; ValueError where the file is no bitmap."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return np.unpackbits(file["bits"], count=int(file["count"])).astype(bool)
    except (KeyError, ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a bitmap of right images: {error}") from None


def write_lam(path: Path, area: np.ndarray, used: np.ndarray) -> None:
    """Write a sample of A's share by area and in the label, (N,) each, as CSV."""
    lines = [
        "area,used",
        *(f"{a:.5f},{u:.5f}" for a, u in zip(np.asarray(area), np.asarray(used), strict=True)),
    ]
    replace_file(path, "\n".join(lines) + "\n")


def read_lam(path: Path) -> np.ndarray:
    """A sample of A's share by area and in the label, (N, 2)."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return np.array([line.split(",") for line in lines], float).reshape(-1, 2)


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
    """The entries of a gallery's index.json; none where there is no such file."""
    index = folder / "index.json"
    if not index.is_file():
        return []
    return [GalleryEntry(**entry) for entry in json.loads(index.read_text(encoding="utf-8"))]
