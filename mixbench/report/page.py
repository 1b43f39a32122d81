"""The report page."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixbench.files import replace_file
from mixbench.report.significance import Comparison, seeds_needed

if TYPE_CHECKING:
    pass
from mixbench.report.tables import (
    DEMONSTRATION,
    STATISTICS_HEADER,
    _cell,
    _count,
    _interval,
    _params,
    compare_rows,
    figures,
    loader_remark,
    published,
    speed_verdict,
    speeds,
    statistics_cells,
    write_markdown,
)
from mixbench.runs.merge import ReportData, read_runs
from mixbench.runs.rows import Rows, trained, write_csv


def report_runs(
    directories: Sequence[Path], out: Path | None = None, *, mixed_machines: bool = False
) -> Path:
    """Write report.html into the run's directory or `out`, of several runs also their merged comparison.csv and .md; the page's path.

    ValueError as merge_runs says, and where several runs are given without `out` or with one of them as `out`.
    """
    if not directories:
        raise ValueError("name the directory of a run")
    if len(directories) > 1 and (
        out is None or out.resolve() in [directory.resolve() for directory in directories]
    ):
        raise ValueError("several runs are merged into a directory of their own: give --out DIR")
    data = read_runs(directories, mixed_machines=mixed_machines)
    out = out or directories[0]
    if len(directories) > 1:
        write_csv(data.rows, out / "comparison.csv")
        timed = "; ".join(dict.fromkeys(row["timed"] or row["device"] for row in speeds(data.rows)))
        write_markdown(
            data.rows, out / "comparison.md", "; ".join(data.commands), timed, data.correct
        )
    write_report(data, out / "report.html")
    return out / "report.html"


# The page.


def _table8_rows(rows: Rows, comparison: Comparison | None) -> list[tuple[str, ...]]:
    summaries = (
        {summary.strategy: summary for summary in comparison.summaries} if comparison else {}
    )
    cells: list[tuple[str, ...]] = []
    for spec in dict.fromkeys(row["strategy"] for row in rows):
        own = [row for row in rows if row["strategy"] == spec]
        summary = summaries.get(spec)
        top1 = "-"
        if summary is not None:
            spread = "" if summary.spread is None else f" ± {summary.spread:.2f}"
            status = next(row["status"] for row in trained(own))
            top1 = (
                status
                if summary.mean is None
                else f"{summary.mean:.2f}{spread} ({_count(len(summary.values), 'seed')})"
            )
        measured = speeds(own)
        cells.append(
            (
                spec,
                next((_params(row) for row in own if row["params_m"] is not None), "-"),
                "; ".join(
                    _interval(row, "im_per_sec", "im_per_sec_lo", "im_per_sec_hi", 1)
                    for row in measured
                )
                or "-",
                "; ".join(
                    _interval(row, "ratio_to_cutmix", "ratio_lo", "ratio_hi", 3) for row in measured
                )
                or "-",
                top1,
                *published(spec),
            )
        )
    return cells


def _scores(rows: Rows) -> list[tuple[str, ...]]:
    """Mean and standard deviation of every score by strategy, and the number of seeds."""
    cells: list[tuple[str, ...]] = []
    columns = [figures(rows, name) for name in ("top1", "top5", "nll", "ece", "label_error")]
    for spec in columns[0]:
        parts = []
        for column, digits in zip(columns, (2, 2, 3, 2, 1), strict=True):
            values = [value for value in column[spec].values() if value is not None]
            spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
            parts.append(f"{np.mean(values):.{digits}f}{spread}" if values else "-")
        cells.append(
            (spec, str(sum(value is not None for value in columns[0][spec].values())), *parts)
        )
    return cells


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _pictures(data: ReportData, comparison: Comparison | None) -> dict[str, str]:
    """The diagrams that the data allow, by name, as SVG text."""
    from mixbench import plot

    drawn: dict[str, str] = {}
    if comparison and any(summary.mean is not None for summary in comparison.summaries):
        drawn["accuracy"] = plot.accuracy_figure(comparison)
        if any(difference.mean is not None for difference in comparison.differences):
            drawn["differences"] = plot.difference_figure(comparison)
        times: dict[str, list[float]] = {}
        for row in trained(data.rows):
            if row["train_seconds"] and row["top1"] is not None:
                times.setdefault(row["strategy"], []).append(row["train_seconds"])
        if times and len({row["device"] for row in trained(data.rows)}) == 1:
            drawn["cost"] = plot.cost_figure(comparison, times)
    if data.logs and comparison:
        strategies = [summary.strategy for summary in comparison.summaries]
        ema = any(row["headline"] == "ema" for row in trained(data.rows))
        drawn["curves"] = plot.curves_figure(
            data.logs, "top1_ema" if ema else "top1", "top-1 (%)", strategies
        )
        drawn["losses"] = plot.curves_figure(data.logs, "train_loss", "training loss", strategies)
    phases = {
        row["strategy"]: {phase: row[f"{phase}_ms"] for phase in plot.PHASES}
        for row in speeds(data.rows)
    }
    phases = {
        name: times
        for name, times in phases.items()
        if all(value is not None for value in times.values())
    }
    if phases and len({row["device"] for row in speeds(data.rows)}) == 1:
        drawn["steps"] = plot.step_figure(phases)
    samples: dict[str, list[np.ndarray]] = {}
    for (spec, _), pairs in data.lam.items():
        samples.setdefault(spec, []).append(pairs)
    if any(len(pairs) for pairs in data.lam.values()):
        drawn["lam"] = plot.lam_figure(
            {spec: np.concatenate(parts) for spec, parts in samples.items()}
        )
    return drawn


def render_report(data: ReportData) -> str:
    """The whole page as HTML text: no script, nothing fetched."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup, escape

    from mixbench.report.figures import LONG_RUN

    comparison = compare_rows(data.rows, data.correct)
    rows = trained(data.rows)
    strategies = list(dict.fromkeys(row["strategy"] for row in data.rows))
    seeds = sorted({row["seed"] for row in rows})
    images: dict[str, list[dict[str, Any]]] = {}
    for entry, folder in data.gallery:
        pictures = {
            name: _embedded(folder / getattr(entry, name))
            for name in ("image_a", "image_b", "mixed", "mask", "map")
        }
        images.setdefault(entry.strategy, []).append({"entry": entry, **pictures})
    measured = speeds(data.rows)
    several_machines = len({row["device"] for row in measured}) > 1
    speed_cells = [
        (
            row["strategy"],
            *([row["device"]] if several_machines else []),
            _interval(row, "im_per_sec", "im_per_sec_lo", "im_per_sec_hi", 2),
            _interval(row, "ratio_to_cutmix", "ratio_lo", "ratio_hi", 3),
            f"{row['control_lo']:.3f} to {row['control_hi']:.3f}",
            _cell(row["peak_memory_mb"], 0),
            speed_verdict(row),
        )
        for row in measured
    ]
    longest = max((int(log[-1]["epoch"]) + 1 for log in data.logs.values() if log), default=0)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = lambda text: Markup(
        re.sub(r"([(,=])", r"\1<wbr>", str(escape(text)))
    )
    return environment.get_template("page.html.j2").render(
        strategies=strategies,
        rows=rows,
        first=rows[0] if rows else None,
        seeds=seeds,
        commands=data.commands,
        comparison=comparison,
        demonstration=DEMONSTRATION if any(row["dataset"] == "scenes" for row in rows) else "",
        failures=[row for row in data.rows if row["status"] != "ok"],
        table8=_table8_rows(data.rows, comparison),
        statistics=statistics_cells(comparison) if comparison else [],
        statistics_header=STATISTICS_HEADER,
        scores=_scores(data.rows),
        figures={name: Markup(svg) for name, svg in _pictures(data, comparison).items()},
        measured=measured,
        speed_cells=speed_cells,
        several_machines=several_machines,
        loader=" ".join(loader_remark(data.rows)),
        timed="; ".join(dict.fromkeys(row["timed"] or row["device"] for row in measured)),
        lam_images=sum(len(pairs) for pairs in data.lam.values()),
        gallery=images,
        devices=sorted({row["device"] for row in data.rows}),
        versions=sorted({row["versions"] for row in data.rows}),
        dates=sorted({row["date"] for row in data.rows}),
        recipes=sorted({row["recipe_hash"] for row in rows}),
        long_run=longest >= LONG_RUN,
        needed=seeds_needed(max(1, len(comparison.differences))) if comparison else None,
        validation_images=len(next(iter(data.correct.values()))) if data.correct else None,
    )


def write_report(data: ReportData, path: Path) -> None:
    """Write the page, one file that opens from disk."""
    replace_file(path, render_report(data))
