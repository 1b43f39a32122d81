"""Directories that an older mixbench wrote: one comparison.csv, a row for each strategy and seed.

In schemas 1 and 2 a row held the training and the speed of a strategy, and the speed was repeated
with every seed.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from mixbench.runs.directory import SeedFolder
from mixbench.runs.rows import RunRow, SpeedRow, row_of

ALWAYS = ("schema_version", "strategy", "seed", "top1")  # columns of every such file
TIMED = re.compile(
    r"(?P<timed_model>.+) at (?P<timed_image_size>\d+) px, "
    r"batch (?P<timed_batch_size>\d+), (?P<timed_precision>\w+), "
)
Cells = dict[str, str]  # a row as text, by column


def seed_folder(directory: Path, spec: str, seed: int) -> SeedFolder:
    """The folder of one strategy and seed."""
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in spec.replace(" ", ""))
    return SeedFolder(directory / name / f"seed{seed}")


def read(directory: Path) -> tuple[list[RunRow], list[SpeedRow]]:
    """The rows of a directory's comparison.csv: what was trained, and what was timed.

    ValueError where there is no such file, or it is none of schema 1 or 2.
    """
    path = directory / "comparison.csv"
    if not path.is_file():
        raise ValueError(f"{path} not found: name the directory of a finished run")
    try:
        return _read(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _read(path: Path) -> tuple[list[RunRow], list[SpeedRow]]:
    runs: list[RunRow] = []
    speeds: dict[tuple[object, ...], SpeedRow] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in ALWAYS if name not in (reader.fieldnames or ())]
        if lacking:
            raise ValueError(f"{path} is no comparison.csv: it lacks {', '.join(lacking)}")
        for number, line in enumerate(reader, 2):
            # rows are written again as rows of this schema
            cells = {name: text for name, text in line.items() if name != "schema_version"}
            try:
                if not _timed_only(cells):
                    runs.append(_run(cells))
                if _has_speed(cells):
                    speed = _speed(cells)
                    speeds.setdefault(_measurement(speed), speed)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return runs, list(speeds.values())


def _timed_only(cells: Cells) -> bool:
    """Whether nothing was trained: then the model is the timed one."""
    return bool(cells.get("model")) and not (cells.get("dataset") or cells["top1"])


def _speed_failed(cells: Cells) -> bool:
    """Whether the status is that of the speed: a row with an accuracy was trained to its end."""
    return _status(cells) != "ok" and bool(cells["top1"])


def _has_speed(cells: Cells) -> bool:
    return bool(cells.get("im_per_sec")) or _timed_only(cells) or _speed_failed(cells)


def _status(cells: Cells) -> str:
    return cells.get("status") or "ok"


def _run(cells: Cells) -> RunRow:
    status = "ok" if _speed_failed(cells) else _status(cells)
    return row_of(RunRow, cells | {"status": status})


def _speed(cells: Cells) -> SpeedRow:
    if _timed_only(cells):
        cells = cells | {
            "timed_model": cells["model"],
            "timed_params_m": cells.get("params_m") or "",
            "timed_image_size": cells.get("image_size") or "",
            "timed_precision": cells.get("precision") or "",
        }
    elif not _speed_failed(cells):
        cells = cells | {"status": "ok"}  # the status is that of the training
    timed = TIMED.match(cells.get("timed") or "")
    return row_of(SpeedRow, cells | (timed.groupdict() if timed else {}))


def _measurement(row: SpeedRow) -> tuple[object, ...]:
    """What rows of several seeds have in common where they repeat one measurement."""
    return (
        row.strategy,
        row.status,
        row.device,
        row.im_per_sec,
        row.ratio_to_cutmix,
        row.control_lo,
        row.control_hi,
    )
