"""What evaluations found of a run's models: a file each beside the seed, and evaluations.csv."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mixbench.files import read_json, replace_file, replacing
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import EvaluationRow, RunRow, plain, read_table, row_of, write_table

EACH, GROUPS = "each", "groups"  # the arrays of a result's headline, in its .npz
DIGITS = 8  # of a result's options and images, in its file's name


class Measurement(Protocol):
    """What an evaluation is to a directory: a name, and its options as text."""

    @property
    def name(self) -> str:
        """The evaluation's name."""

    @property
    def text(self) -> str:
        """Its options."""


class MeasuredOn(Protocol):
    """What the images are to a directory."""

    @property
    def name(self) -> str:
        """What people call them."""

    @property
    def fingerprint(self) -> str:
        """What tells their content from others'."""


class Found(Protocol):
    """What it found: figures, a value an image by name, and files by ending."""

    @property
    def figures(self) -> Sequence[Any]:
        """Each with setting, metric, value and n."""

    @property
    def images(self) -> Mapping[str, np.ndarray]:
        """(n,) by name."""

    @property
    def each(self) -> np.ndarray | None:
        """(n,) values whose mean is the headline's figure."""

    @property
    def groups(self) -> np.ndarray | None:
        """(n,) alike where they have a draw in common."""

    @property
    def labels(self) -> str:
        """Whether labels were true or predicted."""

    @property
    def files(self) -> Mapping[str, bytes]:
        """What else it made, such as a picture."""


def data_hash(images: MeasuredOn) -> str:
    """The digits by which rows tell images apart."""
    return hashlib.sha256(images.fingerprint.encode()).hexdigest()[:12]


def result_file(
    run: RunDirectory, spec: str, seed: int, evaluation: Measurement, images: MeasuredOn
) -> Path:
    """Where the figures of an evaluation with its options lie, of one strategy and seed."""
    return run.seed(spec, seed).path / _file_name(
        evaluation.name, evaluation.text, data_hash(images)
    )


def picture_file(run: RunDirectory, row: EvaluationRow) -> Path:
    """Where the picture of the evaluation lies that a row is of, if it drew one."""
    name = _file_name(row.evaluation, row.options, row.data_hash)
    return (run.seed(row.strategy, row.seed).path / name).with_suffix(".png")


def _file_name(name: str, options: str, digits: str) -> str:
    digest = hashlib.sha256(f"{options}, {digits}".encode()).hexdigest()[:DIGITS]
    return f"eval-{name}-{digest}.json"


def keep(
    file: Path, spec: str, seed: int, evaluation: Measurement, images: MeasuredOn, found: Found
) -> None:
    """Write what was measured of a strategy and seed; the rows come last, and say it is whole."""
    from mixbench.runs.environment import today, versions  # torch: where something is measured

    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    named = {EACH: found.each, GROUPS: found.groups}
    arrays = {**found.images, **{name: each for name, each in named.items() if each is not None}}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    for ending, content in {**found.files, ".npz": buffer.getvalue()}.items():
        with replacing(file.with_suffix(ending)) as partial:
            partial.write_bytes(content)
    rows = [
        EvaluationRow(
            strategy=spec,
            seed=seed,
            evaluation=evaluation.name,
            options=evaluation.text,
            dataset=images.name,
            data_hash=data_hash(images),
            labels=found.labels,
            setting=figure.setting,
            metric=figure.metric,
            value=figure.value,
            value_lo=figure.low,
            value_hi=figure.high,
            n=figure.n,
            versions=versions(),
            date=today(),
        )
        for figure in found.figures
    ]
    replace_file(file, json.dumps([plain(each) for each in rows], indent=1) + "\n")


def read_each(file: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The value an image that a result's headline is the mean of, and their groups, if any."""
    try:
        with np.load(file.with_suffix(".npz")) as arrays:
            return arrays.get(EACH), arrays.get(GROUPS)
    except (OSError, ValueError, zipfile.BadZipFile):
        return None, None


def read_rows(run: RunDirectory) -> list[EvaluationRow]:
    """The rows of every evaluation of a run; a damaged file is as if it were not there."""
    files = sorted(run.path.glob(f"*/seed*/eval-*-{'?' * DIGITS}.json"))
    return [row for file in files for row in _rows(file)]


def _rows(file: Path) -> Iterator[EvaluationRow]:
    try:
        content = read_json(file)
        rows = [row_of(EvaluationRow, cells) for cells in content]
    except (OSError, ValueError, TypeError, AttributeError):
        return
    yield from rows


def write_evaluations(run: RunDirectory, order: Sequence[str]) -> list[EvaluationRow]:
    """Write evaluations.csv anew from what is measured, strategies in this order; its rows."""
    place = {spec: number for number, spec in enumerate(order)}
    rows = sorted(
        read_rows(run),
        key=lambda row: (
            row.evaluation,
            row.options,
            row.dataset,
            row.data_hash,
            place.get(row.strategy, len(place)),
            row.seed,
        ),
    )
    write_table(run.evaluations, EvaluationRow, rows)
    return rows


HEADLINES = {  # a column of runs.csv -> evaluation, setting and metric
    "occlusion_drop": ("occlusion", "random", "mean_drop"),
    "shuffle_drop": ("shuffle", "", "mean_drop"),
}


def with_headlines(runs: Iterable[RunRow], rows: Iterable[EvaluationRow]) -> list[RunRow]:
    """The rows of runs with what evaluations found of them, where that was measured in one way."""
    found: dict[tuple[str, int], dict[str, set[float | None]]] = {}
    for row in rows:
        for column, place in HEADLINES.items():
            if place == (row.evaluation, row.setting, row.metric):
                columns = found.setdefault((row.strategy, row.seed), {})
                columns.setdefault(column, set()).add(row.value)
    return [_with_columns(run, found.get((run.strategy, run.seed), {})) for run in runs]


def _with_columns(run: RunRow, found: Mapping[str, set[float | None]]) -> RunRow:
    columns: dict[str, Any] = {
        column: next(iter(values)) if len(values) == 1 else None for column, values in found.items()
    }
    return dataclasses.replace(run, **columns)


def write_headlines(run: RunDirectory) -> None:
    """Write runs.csv anew with what evaluations found, where there is one."""
    if run.runs.is_file():
        rows = with_headlines(read_table(run.runs, RunRow), read_rows(run))
        write_table(run.runs, RunRow, rows)


def is_measured(file: Path) -> bool:
    """Whether a result is whole."""
    return any(_rows(file)) and file.with_suffix(".npz").is_file()
