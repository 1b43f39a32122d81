"""The files of a comparison: its tables and its Markdown page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixbench.files import replace_file
from mixbench.report.overview import Entry, overview_markdown, overview_rows
from mixbench.report.summary import summarise
from mixbench.report.tables import write_markdown
from mixbench.runs.directory import RunDirectory
from mixbench.runs.evaluated import read_rows, with_headlines
from mixbench.runs.merge import ReportData, Tables
from mixbench.runs.places import is_table
from mixbench.runs.rows import ComparisonRow, EvaluationRow, RunRow, SpeedRow, write_table
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
    _write_rows(tables, directory)
    write_table(directory.comparison, ComparisonRow, summary)
    write_markdown(tables, directory.markdown, command, correct)
    if csv is not None:
        write_table(csv, ComparisonRow, summary)
    return summary


def write_merged(data: ReportData, directory: RunDirectory) -> None:
    """Write the same of what a report shows, with evaluations.csv, into a directory of its own.

    A table without rows that lies there is of an earlier report, and goes.
    """
    command = "; ".join(data.commands)
    write_comparison(data.tables, directory, command, correct=data.correct)
    if data.evaluations:
        write_table(directory.evaluations, EvaluationRow, data.evaluations)
    _clear(directory, data.tables, data.evaluations)


def write_overview(entries: Sequence[Entry], directory: RunDirectory) -> None:
    """Write the same files of several models, data sets or recipes."""
    tables = [entry.data.tables for entry in entries]
    runs = [row for part in tables for row in part.runs]
    merged = Tables(runs, [row for part in tables for row in part.speed])
    _write_rows(merged, directory)
    _clear(directory, merged, [])
    write_table(directory.comparison, ComparisonRow, overview_rows(entries))
    commands = dict.fromkeys(command for entry in entries for command in entry.data.commands)
    replace_file(directory.markdown, overview_markdown(entries, list(commands)))


def _clear(directory: RunDirectory, tables: Tables, evaluations: Sequence[EvaluationRow]) -> None:
    """Remove the tables of an earlier report of which this one has no rows."""
    content = {
        directory.runs: tables.runs,
        directory.speed: tables.speed,
        directory.evaluations: evaluations,
    }
    for table, rows in content.items():
        if not rows and is_table(table):
            table.unlink()


def _write_rows(tables: Tables, directory: RunDirectory) -> None:
    if tables.runs:
        rows = with_headlines(tables.runs, read_rows(directory))
        write_table(directory.runs, RunRow, rows)
    if tables.speed:
        write_table(directory.speed, SpeedRow, tables.speed)
