"""A run's directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from mixbench.files import replace_file

if TYPE_CHECKING:
    pass


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
