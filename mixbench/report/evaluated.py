"""What evaluations found, as tables: the headline compared over seeds, and figures by setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixbench.report.significance import compare
from mixbench.report.tables import statistics_cells, statistics_header
from mixbench.runs.rows import EvaluationRow

if TYPE_CHECKING:
    from mixbench.evaluations.evaluation import Evaluation

Cells = Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Evaluated:
    """One evaluation with its options, as a report shows it."""

    title: str
    header: Sequence[str]  # of the headline, compared as top-1 is
    headline: Cells
    settings_header: Sequence[str]  # of one metric by setting: mean and standard deviation
    settings: Cells


def evaluated(rows: Iterable[EvaluationRow], order: Sequence[str]) -> list[Evaluated]:
    """The tables of each evaluation and options, strategies in this order.

    The correction is over an evaluation's own comparisons. What a later mixbench measured is left
    out.
    """
    rows = list(rows)
    if not rows:
        return []
    # torch: where there are rows alone
    from mixbench.evaluations.evaluation import EVALUATIONS, evaluation_class

    by_kind: dict[tuple[str, ...], list[EvaluationRow]] = {}
    for row in rows:
        if row.evaluation in EVALUATIONS:
            key = row.evaluation, row.options, row.dataset, row.data_hash
            by_kind.setdefault(key, []).append(row)
    tables = (_tables(evaluation_class(key[0])(), kind, order) for key, kind in by_kind.items())
    return [each for each in tables if each is not None]


def _tables(
    evaluation: Evaluation, rows: Sequence[EvaluationRow], order: Sequence[str]
) -> Evaluated | None:
    if evaluation.headline is None:
        return None
    setting, metric, higher = evaluation.headline
    figures = _figures(rows, setting, metric, order)
    paired = compare(figures) if figures else None
    settings = list(dict.fromkeys(row.setting for row in rows if row.metric == evaluation.detail))
    detail = {each: _figures(rows, each, evaluation.detail, order) for each in settings}
    better = "higher" if higher else "lower"
    named = f"{_what(rows[0])}: {metric}, {better} is better"
    if paired and paired.comparisons:
        named += f", corrected for {paired.comparisons}"
    header = statistics_header(paired) if paired else []
    return Evaluated(
        title=named,
        header=[title.replace("top-1", metric) for title in header],
        headline=statistics_cells(paired) if paired else [],
        settings_header=["strategy", *(each or "all" for each in settings)],
        settings=[
            (spec, *(_mean(detail[each].get(spec, {})) for each in settings)) for spec in figures
        ],
    )


def _what(row: EvaluationRow) -> str:
    """What was measured, on what and with which options."""
    data = f" on {row.dataset}" if row.dataset else ""
    labels = ", labels predicted" if row.labels == "predicted" else ""
    return f"{row.evaluation}{data} ({row.options}{labels})"


def _figures(
    rows: Iterable[EvaluationRow], setting: str, metric: str, order: Sequence[str]
) -> dict[str, dict[int, float | None]]:
    """A metric under a setting by strategy and seed."""
    found: dict[str, dict[int, float | None]] = {spec: {} for spec in order}
    for row in rows:
        if (row.setting, row.metric) == (setting, metric):
            found.setdefault(row.strategy, {})[row.seed] = row.value
    return {spec: by_seed for spec, by_seed in found.items() if by_seed}


def _mean(by_seed: dict[int, float | None]) -> str:
    values = [value for value in by_seed.values() if value is not None]
    if not values:
        return "-"
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"
