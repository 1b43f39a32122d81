"""Several runs as one: their tables, and all that a report shows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import lexists
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mixbench.data.class_names import read_class_names
from mixbench.files import read_json
from mixbench.runs import schema2
from mixbench.runs.directory import RunDirectory, SeedFolder
from mixbench.runs.evaluated import picture_file, read_rows
from mixbench.runs.identity import read_data, read_recipe_fields
from mixbench.runs.rows import EpochRow, EvaluationRow, RunRow, SpeedRow, read_table
from mixbench.runs.samples import (
    Bitmap,
    GalleryEntry,
    ImageResults,
    read_correct,
    read_gallery,
    read_images,
    read_lam,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Tables:
    """The rows of one run, or of several."""

    runs: list[RunRow]
    speed: list[SpeedRow]
    damaged: list[str] = field(default_factory=list)  # a sentence for each file left out


class Part(NamedTuple):
    """What a directory holds of one recipe."""

    directory: Path
    tables: Tables


@dataclass(frozen=True)
class ReportData:
    """All that the page shows; only the tables are needed. Keys are strategy and seed."""

    tables: Tables
    commands: list[str] = field(default_factory=list)
    logs: dict[tuple[str, int], list[EpochRow]] = field(default_factory=dict)
    # (N, 2): A's share by area, and in the label
    lam: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    correct: dict[tuple[str, int], Bitmap] = field(default_factory=dict)
    # of runs that wrote images.npz
    images: dict[tuple[str, int], ImageResults] = field(default_factory=dict)
    evaluations: list[EvaluationRow] = field(default_factory=list)
    # where an evaluation's pictures lie, if it drew any: by its name, options and data, then by key
    pictures: dict[tuple[str, str, str], dict[tuple[str, int], Path]] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)  # folders, in the order of the labels
    class_names: dict[str, str] = field(default_factory=dict)  # what people call them, by folder
    # by the folder of the pictures
    gallery: dict[Path, list[GalleryEntry]] = field(default_factory=dict)
    # the recipe's fields as text, where a directory holds them
    recipe: dict[str, Any] = field(default_factory=dict)
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
    """The rows of several runs of one recipe in one pair of tables.

    ValueError where trained rows differ in recipe or data, where one strategy and seed is in two
    runs, and, unless `mixed_machines`, where speeds are of several machines, models, sizes or
    precisions.
    """
    return _merged(_only_recipe(by_recipe(directories)), mixed_machines=mixed_machines)


def by_recipe(directories: Sequence[Path]) -> dict[str | None, list[Part]]:
    """The rows of several runs by the recipe hash of what was trained, in the order given.

    Speeds and rows without a hash are of their directory's recipe; where that has several or none,
    of the only one that there is, else apart, under None.
    """
    places = [directory.resolve() for directory in directories]
    for place, directory in zip(places, directories, strict=True):
        if places.count(place) > 1:
            raise ValueError(f"{directory} is named twice: name each run once")
    read = [(directory, read_tables(directory)) for directory in directories]
    recipes = dict.fromkeys(row.recipe_hash for _, tables in read for row in trained(tables.runs))
    parts: dict[str | None, list[Part]] = {recipe: [] for recipe in recipes}
    for directory, tables in read:
        own = dict.fromkeys(row.recipe_hash for row in trained(tables.runs))
        homes = list(own or recipes)
        rest = homes[0] if len(homes) == 1 else None
        divided: dict[str | None, Tables] = {}
        for row in tables.runs:
            recipe = row.recipe_hash if row.recipe_hash in own else rest
            divided.setdefault(recipe, Tables([], [])).runs.append(row)
        if tables.speed or not divided:
            divided.setdefault(rest, Tables([], [])).speed.extend(tables.speed)
        for recipe, rows in divided.items():
            parts.setdefault(recipe, []).append(Part(directory, rows))
        next(iter(divided.values())).damaged.extend(tables.damaged)
    return parts


def _only_recipe(parts: Mapping[str | None, list[Part]]) -> list[Part]:
    """The parts of the one recipe; ValueError where there are several."""
    if len(parts) > 1:
        runs = ", ".join(
            f"{part.directory} ({recipe})" for recipe, some in parts.items() for part in some[:1]
        )
        raise ValueError(
            f"runs of different recipes or data are no one comparison: {runs}; report them apart, "
            "or together with `mixbench report`"
        )
    return next(iter(parts.values()), [])


def _merged(parts: Sequence[Part], *, mixed_machines: bool) -> Tables:
    """The rows of one recipe in one pair of tables; ValueError as `merge` says."""
    merged = Tables([], [])
    owner: dict[tuple[str, int], Path] = {}
    for directory, tables in parts:
        for row in trained(tables.runs):
            key = (row.strategy, row.seed)
            if key in owner:
                raise ValueError(
                    f"{row.strategy} with seed {row.seed} is in both {owner[key]} and "
                    f"{directory}: leave one out"
                )
            owner[key] = directory
        merged.runs.extend(tables.runs)
        merged.speed.extend(tables.speed)
        merged.damaged.extend(tables.damaged)
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
    """What the report shows of one or several directories of one recipe; ValueError as `merge`."""
    return _read_parts(_only_recipe(by_recipe(directories)), mixed_machines=mixed_machines)


def read_settings(directories: Sequence[Path], *, mixed_machines: bool = False) -> list[ReportData]:
    """The same for each model, data and recipe; ValueError as `merge`, but for other recipes."""
    settings = []
    divided = by_recipe(directories)
    for parts in divided.values():
        data = _read_parts(parts, mixed_machines=mixed_machines)
        for directory, _ in parts:
            recipe = _read(read_recipe_fields, RunDirectory(directory).recipe, data.damaged)
            data.recipe.update(recipe or {})
        settings.append(data)
    return settings


def _read_parts(parts: Sequence[Part], *, mixed_machines: bool) -> ReportData:
    data = ReportData(_merged(parts, mixed_machines=mixed_machines))
    data.damaged.extend(data.tables.damaged)
    for directory, tables in parts:
        places = RunDirectory(directory)
        command = _read(read_command, places.environment, data.damaged)
        data.commands.extend([command] if command else [])
        data.gallery[places.gallery] = _read(read_gallery, places.gallery, data.damaged) or []
        for each in _evaluations(places, data.damaged):
            data.evaluations.append(each)
            pictures = data.pictures.setdefault((each.evaluation, each.options, each.data_hash), {})
            pictures[each.strategy, each.seed] = picture_file(places, each)
        stored = _read(read_data, places.data, data.damaged)
        if stored is not None:
            data.classes[:] = stored.data.classes
        names = _read(read_class_names, places.class_names, data.damaged)
        data.class_names.update(names or {})
        for row in trained(tables.runs):
            _read_samples(_seed_folder(places, row), (row.strategy, row.seed), data)
    return data


def _evaluations(places: RunDirectory, damaged: list[str]) -> list[EvaluationRow]:
    """What was measured of a run's models; of merged runs, whose seeds lie elsewhere, the table."""
    rows = read_rows(places)
    if rows:
        return rows
    return _read(lambda path: read_table(path, EvaluationRow), places.evaluations, damaged) or []


def _read_samples(folder: SeedFolder, key: tuple[str, int], data: ReportData) -> None:
    """Add to `data` what a strategy and seed left beside their row."""
    log = _read(lambda path: read_table(path, EpochRow), folder.log, data.damaged)
    lam = _read(read_lam, folder.lam, data.damaged)
    images = _read(read_images, folder.images, data.damaged)
    correct = images.bitmap if images else _read(read_correct, folder.correct, data.damaged)
    if log:
        data.logs[key] = log
    if lam is not None:
        data.lam[key] = lam
    if images is not None:
        data.images[key] = images
    if correct is not None:
        data.correct[key] = correct


def read_bitmap(folder: SeedFolder) -> Bitmap | None:
    """Which images a seed had right; None where nothing says so, ValueError of a damaged file."""
    if folder.images.is_file():
        return read_images(folder.images).bitmap
    return read_correct(folder.correct) if folder.correct.is_file() else None


def _seed_folder(places: RunDirectory, row: RunRow) -> SeedFolder:
    folder = places.seed(row.strategy, row.seed)
    if folder.path.is_dir():
        return folder
    return schema2.seed_folder(places.path, row.strategy, row.seed)
