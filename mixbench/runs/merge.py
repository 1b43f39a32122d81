"""Several runs as one: their tables, and all that a report shows of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mixbench.runs import schema2
from mixbench.runs.directory import RunDirectory, SeedFolder
from mixbench.runs.rows import EpochRow, RunRow, SpeedRow, read_table
from mixbench.runs.samples import GalleryEntry, read_correct, read_gallery, read_lam


@dataclass(frozen=True)
class Tables:
    """The rows of one run, or of several."""

    runs: list[RunRow]
    speed: list[SpeedRow]


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


def trained(runs: Iterable[RunRow]) -> list[RunRow]:
    """The rows of runs that began to train, whether or not they finished."""
    return [row for row in runs if row.dataset is not None]


def read_tables(directory: Path) -> Tables:
    """The rows of a run's directory, also of one that an older mixbench wrote.

    ValueError where it has none.
    """
    places = RunDirectory(directory)
    if places.runs.is_file() or places.speed.is_file():
        return Tables(
            read_table(places.runs, RunRow) if places.runs.is_file() else [],
            read_table(places.speed, SpeedRow) if places.speed.is_file() else [],
        )
    if places.comparison.is_file():
        return Tables(*schema2.read(directory))
    raise ValueError(
        f"{places.runs} and {places.speed.name} not found: name the directory of a finished run"
    )


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


def read_runs(directories: Sequence[Path], *, mixed_machines: bool = False) -> ReportData:
    """What the report shows of one or several run directories; ValueError as `merge` says."""
    data = ReportData(merge(directories, mixed_machines=mixed_machines))
    for directory in directories:
        places = RunDirectory(directory)
        if places.environment.is_file():
            about = json.loads(places.environment.read_text(encoding="utf-8"))
            data.commands.extend([about["command"]] if about.get("command") else [])
        data.gallery[places.gallery] = read_gallery(places.gallery)
        for row in trained(read_tables(directory).runs):
            key, folder = (row.strategy, row.seed), _seed_folder(places, row)
            if folder.log.is_file():
                data.logs[key] = read_table(folder.log, EpochRow)
            if folder.lam.is_file():
                data.lam[key] = read_lam(folder.lam)
            if folder.correct.is_file():
                data.correct[key] = read_correct(folder.correct)
    return data


def _seed_folder(places: RunDirectory, row: RunRow) -> SeedFolder:
    folder = places.seed(row.strategy, row.seed)
    if folder.path.is_dir():
        return folder
    return schema2.seed_folder(places.path, row.strategy, row.seed)
