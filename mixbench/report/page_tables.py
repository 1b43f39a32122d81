"""The tables of the page: Table 8's shape, every score, the speeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixbench.published import published
from mixbench.report.significance import Paired, Summary
from mixbench.report.summary import figures, measured, present, speed_verdict, strategies
from mixbench.report.tables import cell, interval, params
from mixbench.runs.merge import Tables, trained
from mixbench.runs.rows import RunRow, SpeedRow
from mixbench.visible import LONGEST, shortened

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


def table8(tables: Tables, comparison: Paired | None) -> list[tuple[str, ...]]:
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


def scores_cells(runs: Sequence[RunRow]) -> list[tuple[str, ...]]:
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


def speed_cells(row: SpeedRow, *, several: bool) -> tuple[str, ...]:
    return (
        row.strategy,
        *([row.timed] if several else []),
        interval(row.im_per_sec, row.im_per_sec_lo, row.im_per_sec_hi, 2),
        interval(row.ratio_to_cutmix, row.ratio_lo, row.ratio_hi, 3),
        f"{cell(row.control_lo, 3)} to {cell(row.control_hi, 3)}",
        cell(row.peak_memory_mb, 0),
        speed_verdict(row),
    )


def failures(tables: Tables) -> list[str]:
    """What did not finish, a line each."""
    runs = [f"{r.strategy}, seed {r.seed}: {r.status}" for r in tables.runs if r.status != "ok"]
    return runs + [f"{r.strategy}, speed: {r.status}" for r in tables.speed if r.status != "ok"]
