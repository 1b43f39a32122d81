"""What evaluations found of a run's models: a file each beside the seed, and evaluations.csv."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mixbench.files import read_json, replace_file, replacing
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import EvaluationRow, plain, row_of, write_table


def result_file(run: RunDirectory, spec: str, seed: int, name: str, options: str) -> Path:
    """Where the figures of an evaluation with these options lie, of one strategy and seed."""
    digest = hashlib.sha256(options.encode()).hexdigest()[:8]
    return run.seed(spec, seed).path / f"eval-{name}-{digest}.json"


def keep(file: Path, rows: Sequence[EvaluationRow], images: Mapping[str, np.ndarray]) -> None:
    """Write what was measured, a value an image first, so that the rows say it is whole."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(images))  # type: ignore[arg-type]
    with replacing(file.with_suffix(".npz")) as partial:
        partial.write_bytes(buffer.getvalue())
    replace_file(file, json.dumps([plain(row) for row in rows], indent=1) + "\n")


def read_rows(run: RunDirectory) -> list[EvaluationRow]:
    """The rows of every evaluation of a run; a damaged file is as if it were not there."""
    return [row for file in sorted(run.path.glob("*/seed*/eval-*.json")) for row in _rows(file)]


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
            place.get(row.strategy, len(place)),
            row.seed,
        ),
    )
    write_table(run.evaluations, EvaluationRow, rows)
    return rows


def is_measured(file: Path) -> bool:
    """Whether a result is whole."""
    return any(_rows(file)) and file.with_suffix(".npz").is_file()
