"""What to compare and where to write it, checked before anything heavy is imported."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from mixbench.files import replace_file
from mixbench.recipe import Recipe, recipe_text

if TYPE_CHECKING:
    from mixbench.mix import MixStrategy


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to compare and where to write it."""

    strategies: list[MixStrategy]
    recipe: Recipe
    seeds: tuple[int, ...]
    out: Path
    command: str
    data: Path | None = None
    dataset: str | None = None
    download: bool = False
    limit_train: int | None = None
    limit_val: int | None = None
    mode: str = "both"
    rounds: int = 5
    device: str = "auto"
    workers: int | None = None
    cache: str | None = None
    csv: Path | None = None
    resume: bool = False
    profile: bool = False
    peers: bool = False
    log: str | None = None

    @property
    def stamp(self) -> str:
        """What an output directory is of: the recipe and the data; others' rows would not be comparable."""
        source = {
            "data": str(self.data or self.dataset or "scenes"),
            "limit_train": self.limit_train,
            "limit_val": self.limit_val,
        }
        return f"# data: {json.dumps(source)}\n{recipe_text(self.recipe)}"


def check_splits(root: Path) -> None:
    """ValueError where an image folder or one of its splits is missing."""
    if not root.is_dir():
        raise ValueError(f"data directory not found: {root}")
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise ValueError(
                f"{root} has no {split}/ folder: an image folder holds train/<class>/ and val/<class>/"
            )


def holds_results(out: Path) -> bool:
    """Whether figures or a state of training would be lost by starting anew in `out`."""
    return any(out.glob("*/seed*/result.json")) or any(out.glob("state-seed*.pt"))


def numbered(out: Path, resume: bool) -> Path:
    """`out`, or out-2, out-3, ...: the first that holds no results, or to resume the last that does."""
    last = out
    for number in count(1):
        place = out if number == 1 else out.with_name(f"{out.name}-{number}")
        if not holds_results(place):
            break
        last = place
    return last if resume else place


def check_out(out: Path, stamp: str, *, csv: Path | None = None, resume: bool = False) -> None:
    """ValueError where `out` or `csv` cannot take this run: results that would be lost, another recipe's, not writable."""
    recipe_file = out / "recipe.yaml"
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: name a directory")
    if recipe_file.is_file() and recipe_file.read_text(encoding="utf-8") != stamp:
        raise ValueError(f"{out} holds a run of another recipe or other data: choose another --out")
    if not resume and holds_results(out):
        raise ValueError(
            f"{out} holds results of this recipe: add --resume to keep them and go on, or choose another --out"
        )
    if csv is not None and csv.is_dir():
        raise ValueError(f"--csv {csv} is a directory: name a file")
    for option, path in (("--out", out), ("--csv", csv.parent if csv is not None else out)):
        parent = next(place for place in (path, *path.absolute().parents) if place.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise ValueError(
                f"cannot write to {path}: {parent} is not writable; choose another {option}"
            )


@contextmanager
def claimed(out: Path, stamp: str, resume: bool) -> Iterator[None]:
    """Hold `out` for this process alone, by a lock that dies with it; ValueError where that cannot be."""
    check_out(out, stamp, resume=resume)
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((out / ".lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            replace_file(out / "recipe.yaml", stamp)
        except BlockingIOError:
            raise ValueError(
                f"{out} is in use by another process: wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise ValueError(
                f"cannot write to {out}: {error.strerror}; choose another --out"
            ) from None
        yield
