"""Several runs as one: their tables, and all that a report shows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from os.path import lexists
from pathlib import Path
from typing import TypeVar

import numpy as np

from mixbench.files import read_json
from mixbench.runs import schema2
from mixbench.runs.directory import RunDirectory, SeedFolder
from mixbench.runs.rows import EpochRow, RunRow, SpeedRow, read_table
from mixbench.runs.samples import GalleryEntry, read_correct, read_gallery, read_lam

T = TypeVar("T")


@dataclass(frozen=True)
class Tables:
    """The rows of one run, or of several."""

    runs: list[RunRow]
    speed: list[SpeedRow]
    damaged: list[str] = field(default_factory=list)  # a sentence for each file left out


@dataclass(frozen=True)
class ReportData:
    """All that the page shows; only the tables are needed. Keys are strategy and seed."""

    tables: Tables
    commands: list[str] = field(default_factory=list)
    logs: dict[tuple[str, int], list[EpochRow]] = field(default_factory=dict)
    # (N, 2): A's share by area, and in the label
    lam: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    # (N,) bool, validation images that were right
    correct: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    # by the folder of the pictures
    gallery: dict[Path, list[GalleryEntry]] = field(default_factory=dict)
    # a sentence for each file that is left out
    damaged: list[str] = field(default_factory=list)


def trained(runs: Iterable[RunRow]) -> list[RunRow]:
    """The rows of runs that began to train, whether or not they finished."""
    return [row for row in runs if row.dataset is not None]


def read_tables(directory: Path) -> Tables:
    """The rows of a run's directory, also of one that an older mixbench wrote.

    A damaged table is left out, and runs.csv stands in the finished rows' own files. ValueError
    where there are no rows.
    """
    places = RunDirectory(directory)
    if lexists(places.runs) or lexists(places.speed):
        damaged: list[str] = []
        runs = _read(lambda path: read_table(path, RunRow), places.runs, damaged)
        if damaged:
            runs = list(places.results().values())
            damaged[-1] += f"; {len(runs)} of its rows are in result.json"
        speed = _read(lambda path: read_table(path, SpeedRow), places.speed, damaged)
        if damaged and not (runs or speed):
            raise ValueError(damaged[0])
        return Tables(runs or [], speed or [], damaged)
    if places.comparison.exists():
        return Tables(*schema2.read(directory))
    raise ValueError(
        f"{places.runs} and {places.speed.name} not found: name the directory of a finished run"
    )


def _read(read: Callable[[Path], T], path: Path, damaged: list[str]) -> T | None:
    """What `read` makes of a file; None without one, or with a sentence where it is damaged."""
    if not lexists(path):
        return None
    try:
        return read(path)
    except ValueError as error:
        damaged.append(f"left out: {error}")
        return None


def merge(directories: Sequence[Path], *, mixed_machines: bool = False) -> Tables:
    """The rows of several runs in one pair of tables.

    ValueError where trained rows differ in recipe or data, where one strategy and seed is in two
    runs, and, unless `mixed_machines`, where speeds are of several machines, models, sizes or
    precisions.
    """
    merged = Tables([], [])
    owner: dict[tuple[str, int], Path] = {}
    recipes: dict[str | None, Path] = {}
    for directory in directories:
        tables = read_tables(directory)
        for row in trained(tables.runs):
            key = (row.strategy, row.seed)
            if key in owner:
                raise ValueError(
                    f"{row.strategy} with seed {row.seed} is in both {owner[key]} and "
                    f"{directory}: leave one out"
                )
            owner[key] = directory
            recipes.setdefault(row.recipe_hash, directory)
        merged.runs.extend(tables.runs)
        merged.speed.extend(tables.speed)
        merged.damaged.extend(tables.damaged)
    if len(recipes) > 1:
        runs = ", ".join(f"{directory} ({recipe})" for recipe, directory in recipes.items())
        raise ValueError(
            f"runs of different recipes or data cannot be compared: {runs}; report them apart"
        )
    if not mixed_machines:
        _check_speeds([row for row in merged.speed if row.im_per_sec is not None])
    return merged


def _check_speeds(speed: Sequence[SpeedRow]) -> None:
    """ValueError where speeds are of several machines, models, sizes or precisions."""
    machines = sorted({str(row.device) for row in speed})
    if len(machines) > 1:
        raise ValueError(
            f"speeds come from different machines ({'; '.join(machines)}): leave runs out, or give "
            "--mixed-machines to list them all"
        )
    settings = sorted({row.timed for row in speed})
    if len(settings) > 1:
        raise ValueError(
            f"speeds are of different settings ({'; '.join(settings)}): leave runs out, or give "
            "--mixed-machines to list them all"
        )


def read_command(path: Path) -> str | None:
    """The command that environment.json names, if any; ValueError where the file is damaged."""
    about = read_json(path)
    if not isinstance(about, dict) or not isinstance(about.get("command"), str | None):
        raise ValueError(f"{path} is no description of a run")
    return about.get("command")


def read_runs(directories: Sequence[Path], *, mixed_machines: bool = False) -> ReportData:
    """What the report shows of one or several run directories; ValueError as `merge` says."""
    data = ReportData(merge(directories, mixed_machines=mixed_machines))
    data.damaged.extend(data.tables.damaged)
    for directory in directories:
        places = RunDirectory(directory)
        command = _read(read_command, places.environment, data.damaged)
        data.commands.extend([command] if command else [])
        data.gallery[places.gallery] = _read(read_gallery, places.gallery, data.damaged) or []
        for row in trained(read_tables(directory).runs):
            _read_samples(_seed_folder(places, row), (row.strategy, row.seed), data)
    return data


def _read_samples(folder: SeedFolder, key: tuple[str, int], data: ReportData) -> None:
    """Add to `data` what a strategy and seed left beside their row."""
    log = _read(lambda path: read_table(path, EpochRow), folder.log, data.damaged)
    lam = _read(read_lam, folder.lam, data.damaged)
    correct = _read(read_correct, folder.correct, data.damaged)
    if log:
        data.logs[key] = log
    if lam is not None:
        data.lam[key] = lam
    if correct is not None:
        data.correct[key] = correct


def _seed_folder(places: RunDirectory, row: RunRow) -> SeedFolder:
    folder = places.seed(row.strategy, row.seed)
    if folder.path.is_dir():
        return folder
    return schema2.seed_folder(places.path, row.strategy, row.seed)
