"""Damaged files of a run that goes on: named, kept under another name, and made anew.

Nothing of them is lost, every writer finds its place free, and the rest goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from mixbench.data.class_names import read_class_names
from mixbench.runs.directory import RunDirectory, SeedFolder
from mixbench.runs.merge import read_command
from mixbench.runs.rows import EpochRow, RunRow, SpeedRow, read_table
from mixbench.runs.samples import read_correct, read_gallery, read_images, read_lam


def mend(directory: RunDirectory, recipe_hash: str) -> list[str]:
    """Set damaged files aside before a run goes on; a sentence for each.

    A finished row whose file is damaged is taken from runs.csv. ValueError where something that is
    no file stands in a file's place.
    """
    return [*_mend_results(directory, recipe_hash), *_mend_others(directory)]


def _mend_results(directory: RunDirectory, recipe_hash: str) -> Iterator[str]:
    """Set aside damaged result.json, before the table that still has their rows."""
    for file in directory.result_files():
        _check_file(file)
        try:
            directory.result(file)
        except ValueError as error:
            row = _tabled(directory, file, recipe_hash)
            name = _set_aside(file)
            if row is None:
                yield f"{error}: kept as {name}, this strategy and seed count as unfinished"
            else:
                directory.keep(row)
                yield f"{error}: kept as {name}, its row is taken from {directory.runs.name}"


def _tabled(directory: RunDirectory, file: Path, recipe_hash: str) -> RunRow | None:
    """The row of a result's file as runs.csv has it, rounded; None where it has none."""
    try:
        rows = read_table(directory.runs, RunRow)
    except ValueError:
        return None
    for row in rows:
        finished = row.status == "ok" and row.top1 is not None and row.recipe_hash == recipe_hash
        if finished and directory.seed(row.strategy, row.seed).result == file:
            return row
    return None


def _mend_others(directory: RunDirectory) -> Iterator[str]:
    for file, read, consequence in _files(directory):
        if not file.exists():
            continue
        _check_file(file)
        try:
            read(file)
        except ValueError as error:
            yield f"{error}: kept as {_set_aside(file)}, {consequence}"


def _files(directory: RunDirectory) -> Iterator[tuple[Path, Callable[[Path], object], str]]:
    """The files that are read, how, and what follows where that fails."""
    yield directory.environment, read_command, "written anew"
    yield (
        directory.runs,
        lambda path: read_table(path, RunRow),
        "written anew with the rows of the strategies' result.json",
    )
    yield (
        directory.speed,
        lambda path: read_table(path, SpeedRow),
        "speeds are missing until they are measured anew",
    )
    yield directory.class_names, read_class_names, "classes are called as their folders"
    yield (
        directory.gallery / "index.json",
        lambda path: read_gallery(path.parent),
        "the page has no gallery",
    )
    for folder in sorted(directory.path.glob("*/seed*")):
        seed = SeedFolder(folder)
        yield seed.log, lambda path: read_table(path, EpochRow), "its curve is left out"
        yield seed.lam, read_lam, "its shares are left out"
        yield seed.images, read_images, "its single images are left out"
        yield seed.correct, read_correct, "its single images are left out"


def _check_file(path: Path) -> None:
    """ValueError where something else stands in a file's place."""
    if not path.is_file():
        raise ValueError(f"{path} is no file: move it away, or choose another --out")


def _set_aside(path: Path) -> str:
    """Give a damaged file another name beside its own; that name."""
    names = (f"{path.name}.damaged{number if number > 1 else ''}" for number in count(1))
    name = next(name for name in names if not path.with_name(name).exists())
    os.replace(path, path.with_name(name))
    return name
