"""The report page: one HTML file that opens from disk, without a script or a request."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mixbench.files import replace_file
from mixbench.report.evaluated import by_section, evaluated, levels_figure
from mixbench.report.figures import (
    LONG_RUN,
    PHASES,
    accuracy_figure,
    cost_figure,
    curves_figure,
    difference_figure,
    lam_figure,
    step_figure,
)
from mixbench.report.files import write_comparison, write_overview
from mixbench.report.overview import entries_of, render_overview
from mixbench.report.page_tables import (
    PAPER_CELLS,
    SPEED_HEADER,
    TABLE8_HEADER,
    failures,
    scores_cells,
    speed_cells,
    table8,
)
from mixbench.report.reference import reference_remarks
from mixbench.report.significance import Paired, seeds_needed
from mixbench.report.summary import (
    compare_runs,
    measured,
    strategies,
)
from mixbench.report.tables import (
    DEMONSTRATION,
    ELSEWHERE,
    ELSEWHERE_HEADER,
    elsewhere_cells,
    loader_remark,
    other_draws,
    statistics_cells,
    statistics_header,
    timed_words,
)
from mixbench.report.template import template
from mixbench.runs.directory import RunDirectory
from mixbench.runs.merge import ReportData, Tables, read_settings, trained
from mixbench.runs.rows import RunRow, SpeedRow
from mixbench.runs.samples import GalleryEntry


def report_runs(
    directories: Sequence[Path],
    out: Path | None = None,
    *,
    mixed_machines: bool = False,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write report.html into the run's directory or `out`; the page's path.

    A damaged file is left out, and `say` is told of it.

    The tables and their Markdown page are written too where `out` is another directory: of several
    runs merged, of an older run with today's columns. Runs of several models, data or recipes get
    an overview. ValueError as `read_settings` says, and where several runs are given without `out`
    or with one of them as `out`.
    """
    if not directories:
        raise ValueError("name the directory of a run")
    inside = out is None or out.resolve() in [directory.resolve() for directory in directories]
    if len(directories) > 1 and inside:
        raise ValueError("several runs are merged into a directory of their own: give --out DIR")
    settings = read_settings(directories, mixed_machines=mixed_machines)
    if say is not None:
        for sentence in [sentence for data in settings for sentence in data.damaged]:
            say(sentence)
    places = RunDirectory(out or directories[0])
    if len(settings) > 1:
        if say is not None:
            say(f"{len(settings)} models, data sets or recipes: the report is an overview of them")
        entries = entries_of(settings)
        if not inside:
            write_overview(entries, places)
        replace_file(places.report, render_overview(entries))
        return places.report
    [data] = settings
    if not inside:
        write_comparison(data.tables, places, "; ".join(data.commands), correct=data.correct)
    replace_file(places.report, render_report(data))
    return places.report


# Pictures.


def _diagrams(data: ReportData, comparison: Paired | None) -> dict[str, str]:
    """The diagrams that the data allow, by name, as SVG text."""
    drawn: dict[str, str] = {}
    runs, speed = trained(data.tables.runs), measured(data.tables.speed)
    if comparison and any(summary.mean is not None for summary in comparison.summaries):
        drawn["accuracy"] = accuracy_figure(comparison)
        if any(difference.mean is not None for difference in comparison.differences):
            drawn["differences"] = difference_figure(comparison)
        times: dict[str, list[float]] = {}
        for row in runs:
            if row.train_seconds and row.top1 is not None:
                times.setdefault(row.strategy, []).append(row.train_seconds)
        if times and len({row.device for row in runs}) == 1:
            drawn["cost"] = cost_figure(comparison, times)
    if data.logs and comparison:
        names = [summary.strategy for summary in comparison.summaries]
        column = "top1_ema" if any(row.headline == "ema" for row in runs) else "top1"
        drawn["curves"] = curves_figure(data.logs, column, "top-1 (%)", names)
        drawn["losses"] = curves_figure(data.logs, "train_loss", "training loss", names)
    parts = {row.strategy: [getattr(row, f"{phase}_ms") for phase in PHASES] for row in speed}
    parts = {name: times for name, times in parts.items() if None not in times}
    if parts and len({row.timed for row in speed}) == 1:
        drawn["steps"] = step_figure(parts)
    samples: dict[str, list[np.ndarray]] = {}
    for (spec, _), pairs in data.lam.items():
        samples.setdefault(spec, []).append(pairs)
    if any(len(pairs) for pairs in data.lam.values()):
        drawn["lam"] = lam_figure({spec: np.concatenate(s) for spec, s in samples.items()})
    return drawn


def _gallery(data: ReportData) -> dict[str, list[tuple[GalleryEntry, dict[str, str]]]]:
    """The gallery's entries by strategy, each with its pictures as data URLs by field."""
    images: dict[str, list[tuple[GalleryEntry, dict[str, str]]]] = {}
    for folder, entries in data.gallery.items():
        for entry in entries:
            names = ("image_a", "image_b", "mixed", "mask", "map")
            pictures = {name: _embedded(folder / getattr(entry, name)) for name in names}
            images.setdefault(entry.strategy, []).append((entry, pictures))
    return images


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


# The page.


def _distinct(tables: Tables, column: str) -> list[str]:
    rows: list[RunRow | SpeedRow] = [*tables.runs, *tables.speed]
    return sorted({getattr(row, column) for row in rows} - {None})


def render_report(data: ReportData) -> str:
    """The whole page as HTML text."""
    from markupsafe import Markup

    tables = data.tables
    comparison = compare_runs(tables.runs, data.correct)
    comparisons = comparison.comparisons or len(comparison.differences) if comparison else 0
    rows, speed = trained(tables.runs), measured(tables.speed)
    several = len({row.timed for row in speed}) > 1
    tested = evaluated(data.evaluations, strategies(tables))
    drawn = {
        number: Markup(levels_figure(each, f"levels-{number}", strategies(tables)))
        for number, each in enumerate(tested)
    }
    longest = max((log[-1].epoch + 1 for log in data.logs.values() if log), default=0)
    return template("page.html.j2").render(
        strategies=strategies(tables),
        rows=rows,
        first=rows[0] if rows else None,
        seeds=sorted({row.seed for row in rows}),
        commands=data.commands,
        comparison=comparison,
        reference=reference_remarks(comparison) if comparison else [],
        sections=by_section(tested),
        levels={each.title: drawn[number] for number, each in enumerate(tested)},
        demonstration=DEMONSTRATION if any(row.of_scenes for row in rows) else "",
        failures=[*failures(tables), *data.damaged],
        table8_header=TABLE8_HEADER,
        table8_paper=len(TABLE8_HEADER) - PAPER_CELLS,
        table8=table8(tables, comparison),
        other_draws=" ".join(other_draws(strategies(tables))),
        elsewhere_title=ELSEWHERE,
        elsewhere_header=ELSEWHERE_HEADER,
        elsewhere=elsewhere_cells(strategies(tables)),
        statistics=statistics_cells(comparison) if comparison else [],
        statistics_header=statistics_header(comparison) if comparison else [],
        scores=scores_cells(tables.runs),
        figures={name: Markup(svg) for name, svg in _diagrams(data, comparison).items()},
        measured=speed,
        speed_header=["strategy", *(["what was timed"] if several else []), *SPEED_HEADER],
        speed_cells=[speed_cells(row, several=several) for row in speed],
        several_timings=several,
        loader=" ".join(loader_remark(tables.runs)),
        timed=timed_words(speed),
        lam_images=sum(len(pairs) for pairs in data.lam.values()),
        gallery=_gallery(data),
        devices=_distinct(tables, "device"),
        versions=_distinct(tables, "versions"),
        dates=_distinct(tables, "date"),
        recipes=sorted({row.recipe_hash for row in rows if row.recipe_hash}),
        long_run=longest >= LONG_RUN,
        comparisons=comparisons,
        needed=seeds_needed(max(1, comparisons)),
        validation_images=len(next(iter(data.correct.values())).right) if data.correct else None,
    )
