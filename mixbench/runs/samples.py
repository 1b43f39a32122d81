"""What a run keeps of single images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixbench.files import replace_file, replacing

if TYPE_CHECKING:
    pass


# Which images were right: one file a run, an eighth of a byte an image.


def write_correct(path: Path, correct: Iterable[bool] | np.ndarray) -> None:
    """Write which validation images were right, (N,) in the order of the data set, as a packed bitmap; whole or not at all."""
    flags = np.asarray(correct, bool)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, bits=np.packbits(flags), count=np.int64(len(flags)))


def read_correct(path: Path) -> np.ndarray:
    """Which validation images were right, (N,) bool; ValueError where the file is not such a bitmap."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return np.unpackbits(file["bits"], count=int(file["count"])).astype(bool)
    except (KeyError, ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a bitmap of right images: {error}") from None


def write_lam(path: Path, area: np.ndarray, used: np.ndarray) -> None:
    """Write a sample of A's share by area and in the label, (N,) each, as CSV with a row an image."""
    lines = [
        "area,used",
        *(f"{a:.5f},{u:.5f}" for a, u in zip(np.asarray(area), np.asarray(used), strict=True)),
    ]
    replace_file(path, "\n".join(lines) + "\n")
