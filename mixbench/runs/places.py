"""Whether a run may write where it was told to: found before anything is measured.

Nothing is replaced but files of ours, and no link is followed.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mixbench.files import FULL, WriteError, not_regular, partial_of, trouble

HEAD = 65536  # bytes of a file that are read to know it
# columns that stand together in comparison.csv alone, of every schema
COMPARISON = {"schema_version", "strategy", "top1", "im_per_sec"}
DOCUMENT = re.compile(r'\s*\{\s*"schema_version"\s*:\s*\d+\s*,\s*"command"\s*:')
FILES = (
    *("recipe.yaml", "data.json", "environment.json", "classes.txt", ".lock", "jobs.json"),
    "class-names.txt",
    *("runs.csv", "speed.csv", "comparison.csv", "comparison.md", "report.html", "mixed.png"),
    *("profile.txt", "peers.md", "evaluations.csv", "checkpoint.txt"),
)
MARKS = ("recipe.yaml", "data.json", "environment.json", ".lock", "jobs.json", "checkpoint.txt")
FOLDERS = ("gallery", "tensorboard", "wandb", "submitit", "jobs")
NUMBERED = re.compile(r"state-seed.*\.pt|trace-.*\.json|.*-[0-9a-f]{8}")  # seeds and strategies
# links of submitit and Weights & Biases; directories with a check of their own
ELSEWHERE = ("submitit", "wandb", "jobs")


@dataclass(frozen=True)
class Target:
    """A file outside the output directory that an option names."""

    option: str
    path: Path

    @property
    def name(self) -> str:
        """The option with its value."""
        return f"{self.option} {self.path}"


def check_places(out: Path, files: Mapping[str, Path | None]) -> None:
    """ValueError where `out`, or one of the files by option, must not or cannot be written."""
    targets = [Target(option, path) for option, path in files.items() if path is not None]
    for target in (Target("--out", out), *targets):
        if "\0" in str(target.path):
            raise ValueError(f"{target.option} must not contain a NUL character")
    try:
        check_directory(out)
        for target in targets:
            _check_target(target, out)
        for first, second in pairwise(targets):
            if _above(first.path, second.path) or _above(second.path, first.path):
                raise ValueError(
                    f"{first.name} and {second.name} lie in one another: name two files"
                )
            if _same(first.path, second.path):
                raise ValueError(
                    f"{first.name} and {second.option} are the same file: name another"
                )
        check_writable(out / "x", str(out), "--out")
        for target in targets:
            check_writable(target.path, str(target.path), target.option)
    except WriteError:
        raise
    except OSError as error:  # a name that is too long, a folder that may not be seen
        raise ValueError(f"cannot write to {error.filename}: {trouble(error)}") from None


def check_page(page: Path) -> None:
    """ValueError where the page of a report cannot be written."""
    try:
        kind = not_regular(page)
    except OSError as error:
        raise ValueError(f"cannot write to {error.filename}: {trouble(error)}") from None
    if kind is not None:
        raise ValueError(f"{page} is {kind}: remove it, or choose another --out")
    check_writable(page, str(page), "--out")


def check_directory(out: Path) -> None:
    """ValueError where something in the directory is neither file nor folder, or out of place."""
    if not out.is_dir():
        if out.exists():
            raise ValueError(f"--out {out} is a file: name a directory")
        return
    for path in _entries(out):
        kind = not_regular(path)
        name = path.name.removesuffix(".partial")
        if kind not in (None, "a directory"):
            raise ValueError(
                f"{path} is {kind}, and mixbench writes nothing but files of its own: remove it, "
                "or choose another --out"
            )
        if path.parent == out and kind and (name in FILES or name.endswith(".pt")):
            raise ValueError(f"{path} is a directory: move it away, or choose another --out")
        if path.parent == out and not kind and name in FOLDERS:
            raise ValueError(f"{path} is a file: move it away, or choose another --out")
    if not is_ours(out):
        for name in FILES:
            if (out / name).is_file() and (out / name).stat().st_size:
                raise ValueError(
                    f"{out / name} is there, and no run that wrote it: move it away, or choose "
                    "another --out"
                )


def is_ours(out: Path) -> bool:
    """Whether something in a directory says that mixbench wrote there before."""
    if any((out / name).exists() for name in MARKS) or any(out.glob("*/seed*/")):
        return True
    return any(is_table(out / name) for name in FILES if name.endswith(".csv"))


def is_table(path: Path) -> bool:
    """Whether a file is a table that mixbench wrote."""
    return path.is_file() and {"strategy", "schema_version"} <= _columns(_head(path))


def _entries(out: Path) -> Iterator[Path]:
    """Everything in a run's directory, but in the folders that others look after."""
    for folder, folders, names in os.walk(out):
        if Path(folder) == out:
            folders[:] = [name for name in folders if name not in ELSEWHERE]
        yield from (Path(folder, name) for name in sorted([*folders, *names]))


def _check_target(target: Target, out: Path) -> None:
    """ValueError where something else than a file of ours stands there."""
    path = target.path
    kind = not_regular(path)
    if kind == "a directory":
        raise ValueError(f"{target.name} is a directory: name a file")
    if kind == "a symbolic link":
        raise ValueError(f"{target.name} is a symbolic link: name the file itself")
    if kind is not None:
        raise ValueError(f"{target.name} is {kind}: name a file")
    if _plain(path) == _plain(out) or _above(path, out):
        raise ValueError(f"{target.name} is where the run's directory {out} goes: name a file")
    if _of_run(path, out):
        raise ValueError(f"{target.name} is a file of the run itself: name another")
    partial = partial_of(path)
    if not_regular(partial) is not None:
        raise ValueError(
            f"{target.name}: {partial} is {not_regular(partial)}, and is written first: remove it, "
            "or name another file"
        )
    for file in (path, partial):
        if file.exists() and not _ours(file, target.option):
            raise ValueError(
                f"{target.name}: {file.name} holds something else than mixbench writes there, and "
                "is not replaced: name another file"
            )


def _of_run(path: Path, out: Path) -> bool:
    """Whether a path is that of a file that the run in `out` writes, or the same file as one."""
    resolved, root = _plain(path), _plain(out)
    if resolved[: len(root)] == root and len(resolved) > len(root):
        name = resolved[len(root)].removesuffix(".partial")
        if name in (*FILES, *FOLDERS) or NUMBERED.fullmatch(name):
            return True
    return path.exists() and any(path.samefile(file) for file in _entries(out) if file.is_file())


def _above(path: Path, other: Path) -> bool:
    """Whether a path would be a folder that another lies in."""
    upper, lower = _plain(path), _plain(other)
    return lower[: len(upper)] == upper and len(upper) < len(lower)


def _plain(path: Path) -> tuple[str, ...]:
    """The parts of a path without links and `..`, alike where a system knows no case."""
    return tuple(part.casefold() for part in Path(os.path.realpath(path)).parts)


def _same(first: Path, second: Path) -> bool:
    if _plain(first) == _plain(second):
        return True
    return first.exists() and second.exists() and first.samefile(second)


def _ours(path: Path, option: str) -> bool:
    """Whether a file is empty, or what this option writes."""
    head = _head(path)
    return not head or KNOWN[option](head)


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(HEAD).decode("utf-8-sig", errors="replace")


def _columns(head: str) -> set[str]:
    return set(next(csv.reader(head.splitlines()[:1]), []))


def _is_comparison(head: str) -> bool:
    return _columns(head) >= COMPARISON


def _is_document(head: str) -> bool:
    return DOCUMENT.match(head) is not None


KNOWN: dict[str, Callable[[str], bool]] = {"--csv": _is_comparison, "--json": _is_document}


def check_writable(path: Path, name: str, option: str) -> None:
    """ValueError where no file can be made at `path`, which a trial beside it shows.

    A system may say that a folder is writable that is not, as of a mount that is only read.
    WriteError where the disk is full.
    """
    folder = path.absolute().parent
    parent = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    beside = path.name if parent == folder else "x"
    trial = parent / f"{beside}.{os.urandom(4).hex()[1:]}"  # as long as its `.partial`
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(trial, flags, 0o600)
        try:
            os.write(descriptor, b"\n")
        finally:
            os.close(descriptor)
            trial.unlink()
    except OSError as error:
        line = f"cannot write to {name}: {parent}: {trouble(error)}; choose another {option}"
        if error.errno in FULL:
            raise WriteError(error.errno, line) from None
        raise ValueError(line) from None
