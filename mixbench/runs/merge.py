"""Several runs as one."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixbench.runs.samples import read_correct

if TYPE_CHECKING:
    from mixbench.report.gallery import GalleryEntry
from mixbench.runs.rows import Rows, read_csv, trained

# Runs on disk.


@dataclass(frozen=True)
class ReportData:
    """All that the HTML page shows; only the rows are needed."""

    rows: Rows
    commands: list[str] = field(default_factory=list)
    logs: dict[tuple[str, int], Rows] = field(
        default_factory=dict
    )  # by strategy and seed: the rows of log.csv
    lam: dict[tuple[str, int], np.ndarray] = field(
        default_factory=dict
    )  # (N, 2): A's share by area, and in the label
    correct: dict[tuple[str, int], np.ndarray] = field(
        default_factory=dict
    )  # (N,) bool, validation images that were right
    gallery: list[tuple[GalleryEntry, Path]] = field(
        default_factory=list
    )  # and the folder of its pictures


def merge_runs(directories: Sequence[Path], *, mixed_machines: bool = False) -> Rows:
    """The rows of several runs' comparison.csv in one list.

    ValueError where trained rows differ in recipe or data, where one strategy and seed is in two runs, and, unless
    `mixed_machines`, where speeds come from different machines.
    """
    rows: Rows = []
    owner: dict[tuple[str, int], Path] = {}
    recipes: dict[str, Path] = {}
    for directory in directories:
        found = read_csv(directory / "comparison.csv")
        for row in trained(found):
            key = (row["strategy"], row["seed"])
            if key in owner:
                raise ValueError(
                    f"{key[0]} with seed {key[1]} is in both {owner[key]} and {directory}: leave one out"
                )
            owner[key] = directory
            recipes.setdefault(row["recipe_hash"], directory)
        rows += found
    if len(recipes) > 1:
        runs = ", ".join(f"{directory} ({recipe})" for recipe, directory in recipes.items())
        raise ValueError(
            f"runs of different recipes or data cannot be compared: {runs}; report them apart"
        )
    machines = sorted({row["device"] for row in rows if row["im_per_sec"] is not None})
    if len(machines) > 1 and not mixed_machines:
        listed = "; ".join(machines)
        raise ValueError(
            f"speeds come from different machines ({listed}): leave runs out, or give --mixed-machines to list them all"
        )
    return rows


def read_runs(directories: Sequence[Path], *, mixed_machines: bool = False) -> ReportData:
    """What the report shows of one or several run directories; ValueError as merge_runs says."""
    from mixbench.report.gallery import read_gallery
    from mixbench.training.state import run_folder

    data = ReportData(merge_runs(directories, mixed_machines=mixed_machines))
    for directory in directories:
        environment = directory / "environment.json"
        if environment.is_file():
            command = json.loads(environment.read_text(encoding="utf-8")).get("command")
            data.commands.extend([command] if command else [])
        data.gallery.extend(
            (entry, directory / "gallery") for entry in read_gallery(directory / "gallery")
        )
        for row in trained(read_csv(directory / "comparison.csv")):
            key = (row["strategy"], row["seed"])
            folder = run_folder(directory, *key)
            if (folder / "log.csv").is_file():
                with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
                    data.logs[key] = [
                        {name: float(text) if text else None for name, text in line.items()}
                        for line in csv.DictReader(file)
                    ]
            if (folder / "lam.csv").is_file():
                lines = (folder / "lam.csv").read_text(encoding="utf-8").splitlines()[1:]
                data.lam[key] = np.array([line.split(",") for line in lines], float).reshape(-1, 2)
            if (folder / "correct.npz").is_file():
                data.correct[key] = read_correct(folder / "correct.npz")
    return data
