"""The report page: one HTML file that opens from disk, without a script or a request."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixbench.files import replace_file
from mixbench.published import published
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
from mixbench.report.files import write_comparison
from mixbench.report.significance import Paired, Summary, seeds_needed
from mixbench.report.summary import (
    compare_runs,
    figures,
    measured,
    present,
    speed_verdict,
    strategies,
)
from mixbench.report.tables import (
    DEMONSTRATION,
    cell,
    interval,
    loader_remark,
    params,
    statistics_cells,
    statistics_header,
    timed_words,
)
from mixbench.runs.directory import RunDirectory
from mixbench.runs.merge import ReportData, Tables, read_runs, trained
from mixbench.runs.rows import RunRow, SpeedRow
from mixbench.runs.samples import GalleryEntry
from mixbench.visible import LONGEST, shortened, visible

LONGEST_CLASS = 40  # characters of a class in the gallery
PAPER_CELLS = 5  # the last columns of Table 8's shape are published figures
TABLE8_HEADER = (
    "strategy",
    "trained params",
    "top-1 (%)",
    "timed params",
    "im/s [95 %]",
    "ratio to CutMix [95 %]",
    "params",
    "im/s",
    "ratio",
    "top-1",
    "top-1",
)
SPEED_HEADER = (
    "im/s [95 %]",
    "ratio to CutMix [95 %]",
    "control band",
    "peak memory (MB)",
    "verdict",
)
SCORES = ("top1", "top5", "nll", "ece", "label_error")
SCORES_DIGITS = (2, 2, 3, 2, 1)


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
    runs merged, of an older run with today's columns. ValueError as `merge` says, and where several
    runs are given without `out` or with one of them as `out`.
    """
    if not directories:
        raise ValueError("name the directory of a run")
    inside = out is None or out.resolve() in [directory.resolve() for directory in directories]
    if len(directories) > 1 and inside:
        raise ValueError("several runs are merged into a directory of their own: give --out DIR")
    data = read_runs(directories, mixed_machines=mixed_machines)
    if say is not None:
        for sentence in data.damaged:
            say(sentence)
    places = RunDirectory(out or directories[0])
    if not inside:
        write_comparison(data.tables, places, "; ".join(data.commands), correct=data.correct)
    replace_file(places.report, render_report(data))
    return places.report


# Tables.


def _table8(tables: Tables, comparison: Paired | None) -> list[tuple[str, ...]]:
    """TABLE8_HEADER's cells for each strategy."""
    summaries = {s.strategy: s for s in comparison.summaries} if comparison else {}
    cells: list[tuple[str, ...]] = []
    for spec in strategies(tables):
        runs = [row for row in tables.runs if row.strategy == spec]
        speed = measured(row for row in tables.speed if row.strategy == spec)
        paper = published(spec)
        rates = [interval(r.im_per_sec, r.im_per_sec_lo, r.im_per_sec_hi, 1) for r in speed]
        ratios = [interval(r.ratio_to_cutmix, r.ratio_lo, r.ratio_hi, 3) for r in speed]
        sizes = (params(r.params_m, r.extra_params_m) for r in runs if r.params_m is not None)
        timed = [
            params(r.timed_params_m, r.extra_params_m)
            for r in speed
            if r.timed_params_m is not None
        ]
        cells.append(
            (
                spec,
                next(sizes, "-"),
                _top1(runs, summaries.get(spec)),
                "; ".join(dict.fromkeys(timed)) or "-",
                "; ".join(rates) or "-",
                "; ".join(ratios) or "-",
                f"{paper.params_m}M" if paper.params_m else "-",
                paper.im_per_sec or "-",
                paper.ratio or "-",
                paper.top1 or "-",
                paper.openmixup_top1 or "-",
            )
        )
    return cells


def _top1(runs: Sequence[RunRow], summary: Summary | None) -> str:
    if summary is None:
        return "-"
    if summary.mean is None:
        return shortened(next(row.status for row in trained(runs)), LONGEST)  # in full above
    spread = "" if summary.spread is None else f" ± {summary.spread:.2f}"
    n = len(summary.values)
    return f"{summary.mean:.2f}{spread} ({n:,} seed{'s' * (n != 1)})"


def _scores(runs: Sequence[RunRow]) -> list[tuple[str, ...]]:
    """Mean and standard deviation of every score by strategy, and the number of seeds."""
    cells: list[tuple[str, ...]] = []
    columns = [figures(runs, name) for name in SCORES]
    for spec, top1 in figures(runs).items():
        parts = []
        for column, digits in zip(columns, SCORES_DIGITS, strict=True):
            values = present(column[spec])
            spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
            parts.append(f"{np.mean(values):.{digits}f}{spread}" if values else "-")
        cells.append((spec, str(len(present(top1))), *parts))
    return cells


def _speed_cells(row: SpeedRow, *, several: bool) -> tuple[str, ...]:
    return (
        row.strategy,
        *([row.timed] if several else []),
        interval(row.im_per_sec, row.im_per_sec_lo, row.im_per_sec_hi, 2),
        interval(row.ratio_to_cutmix, row.ratio_lo, row.ratio_hi, 3),
        f"{cell(row.control_lo, 3)} to {cell(row.control_hi, 3)}",
        cell(row.peak_memory_mb, 0),
        speed_verdict(row),
    )


def _failures(tables: Tables) -> list[str]:
    """What did not finish, a line each."""
    runs = [f"{r.strategy}, seed {r.seed}: {r.status}" for r in tables.runs if r.status != "ok"]
    return runs + [f"{r.strategy}, speed: {r.status}" for r in tables.speed if r.status != "ok"]


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


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup, escape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
    )
    environment.filters["breakable"] = lambda text: Markup(
        re.sub(r"([(,=])", r"\1<wbr>", str(escape(visible(text))))
    )
    # apart from its surroundings: else a name in Arabic would turn the figures beside it around
    environment.filters["class_name"] = lambda text: Markup('<bdi title="{}">{}</bdi>').format(
        visible(text), shortened(visible(text), LONGEST_CLASS)
    )
    return environment.get_template("page.html.j2")


def _distinct(tables: Tables, column: str) -> list[str]:
    rows: list[RunRow | SpeedRow] = [*tables.runs, *tables.speed]
    return sorted({getattr(row, column) for row in rows} - {None})


def render_report(data: ReportData) -> str:
    """The whole page as HTML text."""
    from markupsafe import Markup

    tables = data.tables
    comparison = compare_runs(tables.runs, data.correct)
    rows, speed = trained(tables.runs), measured(tables.speed)
    several = len({row.timed for row in speed}) > 1
    longest = max((log[-1].epoch + 1 for log in data.logs.values() if log), default=0)
    return _template().render(
        strategies=strategies(tables),
        rows=rows,
        first=rows[0] if rows else None,
        seeds=sorted({row.seed for row in rows}),
        commands=data.commands,
        comparison=comparison,
        demonstration=DEMONSTRATION if any(row.of_scenes for row in rows) else "",
        failures=[*_failures(tables), *data.damaged],
        table8_header=TABLE8_HEADER,
        table8_paper=len(TABLE8_HEADER) - PAPER_CELLS,
        table8=_table8(tables, comparison),
        statistics=statistics_cells(comparison) if comparison else [],
        statistics_header=statistics_header(comparison) if comparison else [],
        scores=_scores(tables.runs),
        figures={name: Markup(svg) for name, svg in _diagrams(data, comparison).items()},
        measured=speed,
        speed_header=["strategy", *(["what was timed"] if several else []), *SPEED_HEADER],
        speed_cells=[_speed_cells(row, several=several) for row in speed],
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
        needed=seeds_needed(max(1, len(comparison.differences))) if comparison else None,
        validation_images=len(next(iter(data.correct.values())).right) if data.correct else None,
    )
