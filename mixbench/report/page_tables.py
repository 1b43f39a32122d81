"""The tables of the page: Table 8's shape, every score, the speeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from mixbench.report.numbers import interval, spread
from mixbench.report.significance import Paired, Summary
from mixbench.report.summary import figures, measured, present, strategies
from mixbench.report.tables import published_cells
from mixbench.runs.merge import Tables, trained
from mixbench.runs.rows import RunRow
from mixbench.visible import LONGEST, shortened

TABLE8_GROUPS = (  # title and columns of each
    ("", 1),
    ("trained", 1),
    ("timed", 2),
    ("paper, Table 8", 4),
    ("OpenMixup", 1),
)
PAPER_CELLS = 5  # the last columns of Table 8's shape are published figures
TABLE8_HEADER = (
    "strategy",
    "top-1 (%)",
    "im/s [95 %]",
    "ratio to CutMix [95 %]",
    "params",
    "im/s",
    "ratio",
    "top-1",
    "top-1",
)
SCORES = ("top1", "top5", "nll", "brier", "ece", "label_error")
SCORES_DIGITS = (2, 2, 3, 3, 2, 1)
SCORES_HEADER = (
    "strategy",
    "seeds",
    "top-1 (%)",
    "top-5 (%)",
    "NLL (nats)",
    "Brier score",
    "calibration error (%)",
    "label error (points)",
)


def table8(tables: Tables, comparison: Paired | None) -> list[tuple[str, ...]]:
    """TABLE8_HEADER's cells for each strategy."""
    summaries = {s.strategy: s for s in comparison.summaries} if comparison else {}
    cells: list[tuple[str, ...]] = []
    for spec in strategies(tables):
        runs = [row for row in tables.runs if row.strategy == spec]
        speed = measured(row for row in tables.speed if row.strategy == spec)
        rates = [interval(r.im_per_sec, r.im_per_sec_lo, r.im_per_sec_hi, 2) for r in speed]
        ratios = [interval(r.ratio_to_cutmix, r.ratio_lo, r.ratio_hi, 3) for r in speed]
        top1 = _top1(runs, summaries.get(spec))
        ours = (spec, top1, "; ".join(rates) or "-", "; ".join(ratios) or "-")
        paper = published_cells([spec]) or [(spec, *["-"] * PAPER_CELLS)]
        cells.append(ours + paper[0][1:])
    return cells


def _top1(runs: Sequence[RunRow], summary: Summary | None) -> str:
    if summary is None:
        return "-"
    if summary.mean is None:
        return shortened(next(row.status for row in trained(runs)), LONGEST)  # in full above
    n = len(summary.values)
    return f"{spread(summary.mean, summary.spread)} ({n:,} seed{'s' * (n != 1)})"


def scores_cells(runs: Sequence[RunRow]) -> list[tuple[str, ...]]:
    """Mean and standard deviation of every score by strategy, and the number of seeds."""
    cells: list[tuple[str, ...]] = []
    columns = [figures(runs, name) for name in SCORES]
    for spec, top1 in figures(runs).items():
        parts = []
        for column, digits in zip(columns, SCORES_DIGITS, strict=True):
            values = present(column[spec])
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
            parts.append(spread(fmean(values) if values else None, deviation, digits))
        cells.append((spec, str(len(present(top1))), *parts))
    return cells


def failures(tables: Tables) -> list[str]:
    """What did not finish, a line each."""
    runs = [f"{r.strategy}, seed {r.seed}: {r.status}" for r in tables.runs if r.status != "ok"]
    return runs + [f"{r.strategy}, speed: {r.status}" for r in tables.speed if r.status != "ok"]
