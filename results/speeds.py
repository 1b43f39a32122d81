"""The tables of speeds in results/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mixbench.runs.rows import SpeedRow, read_table


def speed_tables(folder: Path) -> Iterator[tuple[Path, list[SpeedRow]]]:
    """Each CSV file of speeds in a folder, in the order of their names, and its measured rows."""
    for file in sorted(folder.glob("*.csv")):
        if not file.stem.endswith(("-top1", "-evaluations")):
            yield file, [row for row in read_table(file, SpeedRow) if row.im_per_sec is not None]
