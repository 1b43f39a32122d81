"""The files of a comparison: its tables and its Markdown page."""

from __future__ import annotations

from pathlib import Path

from mixbench.report.summary import summarise
from mixbench.report.tables import write_markdown
from mixbench.runs.directory import RunDirectory
from mixbench.runs.merge import Tables
from mixbench.runs.rows import ComparisonRow, RunRow, SpeedRow, write_table
from mixbench.runs.samples import Correct


def write_comparison(
    tables: Tables,
    directory: RunDirectory,
    command: str,
    *,
    correct: Correct | None = None,
    csv: Path | None = None,
) -> list[ComparisonRow]:
    """Write runs.csv, speed.csv, comparison.csv and comparison.md; the rows of the comparison.

    A table without rows is not written. `csv` takes the comparison too.
    """
    summary = summarise(tables, correct)
    if tables.runs:
        write_table(directory.runs, RunRow, tables.runs)
    if tables.speed:
        write_table(directory.speed, SpeedRow, tables.speed)
    write_table(directory.comparison, ComparisonRow, summary)
    write_markdown(tables, directory.markdown, command, correct)
    if csv is not None:
        write_table(csv, ComparisonRow, summary)
    return summary
