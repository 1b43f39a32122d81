"""A row for each strategy: its seeds against the baseline's, and its speed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, harmonic_mean
from typing import Any, TypeVar

from mixbench.report.significance import Difference, Paired, Summary, compare
from mixbench.runs.merge import Tables, trained
from mixbench.runs.rows import ComparisonRow, RunRow, SpeedRow
from mixbench.runs.samples import Correct

T = TypeVar("T", Summary, Difference)

OF_TRAINING = (  # columns that a strategy's runs have in common
    "compose",
    "dataset",
    "train_images",
    "num_classes",
    "model",
    "params_m",
    "image_size",
    "batch_size",
    "epochs",
    "headline",
    "precision",
    "recipe_hash",
)
OF_TIMING = (
    "timed_model",
    "timed_params_m",
    "timed_image_size",
    "timed_batch_size",
    "timed_precision",
    "im_per_sec",
    "im_per_sec_lo",
    "im_per_sec_hi",
    "ratio_to_cutmix",
    "ratio_lo",
    "ratio_hi",
    "control_lo",
    "control_hi",
    "rounds",
    "peak_memory_mb",
)
HIGHER, LOWER, FASTER, SLOWER = SHOWN_WORDS = (  # verdicts that claim a difference
    "higher",
    "lower",
    "faster than CutMix",
    "slower than CutMix",
)
OF_EITHER = ("attention", "network", "extra_params_m", "compiled")
MEANS = ("top5", "nll", "ece", "brier", "label_error")


def strategies(tables: Tables) -> list[str]:
    """The strategies in order, the trained ones first."""
    rows: list[RunRow | SpeedRow] = [*tables.runs, *tables.speed]
    return list(dict.fromkeys(row.strategy for row in rows))


def figures(runs: Iterable[RunRow], column: str = "top1") -> dict[str, dict[int, float | None]]:
    """A column of the trained rows by strategy and seed; None where it has no finite figure."""
    result: dict[str, dict[int, float | None]] = {}
    for row in trained(runs):
        value = getattr(row, column)
        finite = value is not None and math.isfinite(value)
        result.setdefault(row.strategy, {})[row.seed] = value if finite else None
    return result


def present(by_seed: dict[int, float | None]) -> list[float]:
    """The figures of the seeds that have one."""
    return [value for value in by_seed.values() if value is not None]


def compare_runs(runs: Iterable[RunRow], correct: Correct | None = None) -> Paired | None:
    """The comparison of top-1 in the rows; None where nothing was trained."""
    by_strategy = figures(runs)
    return compare(by_strategy, correct=correct) if by_strategy else None


def verdict(difference: Difference) -> str:
    """What a difference shows, in a word or few."""
    if difference.claimed:
        return HIGHER if (difference.mean or 0) > 0 else LOWER
    n = len(difference.values)
    return f"not resolvable with {n} seed{'s' * (n != 1)}" if n else "nothing to compare"


def measured(speed: Iterable[SpeedRow]) -> list[SpeedRow]:
    """The rows that have a speed."""
    return [row for row in speed if row.im_per_sec is not None]


def longest_timed(speed: Iterable[SpeedRow]) -> list[SpeedRow]:
    """The rows that have a speed; of a strategy's like timings that of most rounds."""
    found: dict[tuple[str, str], SpeedRow] = {}
    for row in measured(speed):
        known = found.setdefault((row.strategy, row.timed), row)
        if (row.rounds or 0) > (known.rounds or 0):
            found[row.strategy, row.timed] = row
    return list(found.values())


def speed_verdict(row: SpeedRow) -> str:
    """What a speed shows: a difference lies outside CutMix's band against itself, and outside 1."""
    if row.strategy == "cutmix":
        return "the reference"
    if row.ratio_lo is not None and row.ratio_lo > max(row.control_hi or 1, 1):
        return FASTER
    if row.ratio_hi is not None and row.ratio_hi < min(row.control_lo or 1, 1):
        return SLOWER
    return "no difference shown"


def of_one_machine(runs: Iterable[RunRow]) -> bool:
    """Whether all that was trained was on one kind of processor: else times are no comparison."""
    return len({row.device for row in trained(runs)}) == 1


def training_times(runs: Iterable[RunRow], column: str) -> dict[str, list[float]]:
    """A measured column by strategy, over the seeds that all of those with figures have in common.

    A machine is not always equally busy, so other seeds would be no comparison; nor are runs on
    different machines, of which there is none.
    """
    runs = list(runs)
    if not of_one_machine(runs):
        return {}
    by_strategy = {
        name: {seed: value for seed, value in by_seed.items() if value is not None}
        for name, by_seed in figures(runs, column).items()
    }
    by_strategy = {name: by_seed for name, by_seed in by_strategy.items() if by_seed}
    shared = set.intersection(*map(set, by_strategy.values())) if by_strategy else set()
    return {
        name: [by_seed[seed] for seed in sorted(shared)]
        for name, by_seed in by_strategy.items()
        if shared
    }


def train_rates(runs: Iterable[RunRow]) -> dict[str, float]:
    """Images per second of training over the shared seeds, which see as many images."""
    times = training_times(runs, "train_im_per_sec")
    return {name: harmonic_mean(rates) for name, rates in times.items()}


def summarise(tables: Tables, correct: Correct | None = None) -> list[ComparisonRow]:
    """A row for each strategy, in the order of `strategies`."""
    return rows_of(tables, compare_runs(tables.runs, correct))


def rows_of(tables: Tables, paired: Paired | None) -> list[ComparisonRow]:
    """The same of a comparison that is made already."""
    rates = train_rates(tables.runs)
    seconds = {
        name: fmean(each) for name, each in training_times(tables.runs, "train_seconds").items()
    }
    rows = []
    for spec in strategies(tables):
        runs = [row for row in tables.runs if row.strategy == spec]
        speed = [row for row in tables.speed if row.strategy == spec]
        both: list[RunRow | SpeedRow] = [*runs, *speed]
        row = ComparisonRow(
            strategy=spec,
            status=_status(runs, speed),
            train_im_per_sec=rates.get(spec),
            train_seconds=seconds.get(spec),
            device=joined(both, "device"),
            versions=joined(both, "versions"),
            date=newest(both),
            **{name: _first(runs, name) for name in OF_TRAINING},
            **{name: _first(both, name) for name in OF_EITHER},
        )
        rows.append(_with_speed(_with_scores(row, runs, paired), speed))
    return rows


def _status(runs: Sequence[RunRow], speed: Sequence[SpeedRow]) -> str:
    """`ok`, or what went wrong with which seed, and with the speed."""
    wrong = [
        f"seed {row.seed}: {row.status}" if len(runs) > 1 else row.status
        for row in runs
        if row.status != "ok"
    ]
    wrong += [f"speed: {row.status}" if runs else row.status for row in speed if row.status != "ok"]
    return "; ".join(dict.fromkeys(wrong)) or "ok"


def _first(rows: Sequence[RunRow | SpeedRow], name: str) -> Any:
    values = (getattr(row, name) for row in rows)
    return next((value for value in values if value is not None), None)


def joined(rows: Iterable[RunRow | SpeedRow], name: str) -> str | None:
    """What a column says, each text once; None where it says nothing."""
    values = dict.fromkeys(getattr(row, name) for row in rows)
    return "; ".join(value for value in values if value) or None


def newest(rows: Iterable[RunRow | SpeedRow]) -> str | None:
    """The newest date of the rows, None without any."""
    return max((row.date for row in rows if row.date), default=None)


def _with_scores(
    row: ComparisonRow, runs: Sequence[RunRow], paired: Paired | None
) -> ComparisonRow:
    """The row with its accuracy, the difference to the baseline, and the means of MEANS."""
    summary = _of(paired.summaries if paired else (), row.strategy)
    if paired is None or summary is None:
        return row
    columns = {name: present(figures(runs, name)[row.strategy]) for name in MEANS}
    means: dict[str, Any] = {name: fmean(values) for name, values in columns.items() if values}
    row = replace(
        row,
        seeds=len(summary.values),
        top1=summary.mean,
        top1_sd=summary.spread,
        baseline=paired.baseline,
        **means,
    )
    difference = _of(paired.differences, row.strategy)
    if difference is None:
        return replace(row, verdict="the baseline")
    several = len(difference.values) > 1  # of one seed the p is over images
    return replace(
        row,
        difference=difference.mean,
        difference_lo=difference.low,
        difference_hi=difference.high,
        p=difference.p if several else None,
        p_corrected=difference.corrected if several else None,
        comparisons=paired.comparisons if several else None,
        verdict=verdict(difference),
    )


def _of(rows: Sequence[T], spec: str) -> T | None:
    return next((row for row in rows if row.strategy == spec), None)


def _with_speed(row: ComparisonRow, speed: Sequence[SpeedRow]) -> ComparisonRow:
    """The row with its speed, of several like ones that of most rounds; without, if unlike."""
    rows = longest_timed(speed) or speed
    if len({timed.timed for timed in rows}) != 1:
        return row
    timed = rows[0]
    row = replace(row, **{name: getattr(timed, name) for name in OF_TIMING})
    return replace(row, speed_verdict=speed_verdict(timed)) if timed.im_per_sec else row
