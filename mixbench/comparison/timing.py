"""The speed part of a comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mixbench.comparison.plan import Plan
from mixbench.comparison.screen import Screen
from mixbench.evaluations.profile import profile
from mixbench.evaluations.speed import blank_row, measure
from mixbench.files import replace_file
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import SpeedRow, read_table
from mixbench.runtime import Runtime
from mixbench.spec import strategy_spec

TIMED = ("timed_model", "timed_image_size", "timed_batch_size", "timed_precision")


def time_strategies(
    plan: Plan, runtime: Runtime, screen: Screen, num_classes: int
) -> list[SpeedRow]:
    """Time every strategy, in the first process alone; the rows, none in the other processes.

    A resumed run takes what it measured before, where one earlier measurement on this machine was
    of all these strategies, of the same model and with as many rounds.
    """
    if not runtime.first:
        return []
    rows = measured_before(plan, runtime)
    if not rows:
        screen.say(f"timing {blank_row(plan.recipe, runtime.device).timed}")
        with screen.counting("timing, rounds", "round") as tick:
            timing = dataclasses.replace(runtime, tick=tick)
            rows = measure(plan.strategies, plan.recipe, plan.rounds, timing, num_classes)
    return rows


def look_closer(
    plan: Plan, rows: Sequence[SpeedRow], runtime: Runtime, screen: Screen, num_classes: int
) -> None:
    """Profile what was timed, and time other packages, where the plan asks for it."""
    directory = RunDirectory(plan.out)
    if plan.profile:
        failed = {row.strategy for row in rows if row.status != "ok"}
        good = [strategy for strategy in plan.strategies if strategy_spec(strategy) not in failed]
        text = profile(good, plan.recipe, runtime, num_classes)
        replace_file(directory.profile, text)
        screen.say(text)
    if plan.peers:
        text = peers(plan.rounds)
        replace_file(directory.peers, text)
        screen.say(text)


def measured_before(plan: Plan, runtime: Runtime) -> list[SpeedRow]:
    """The rows of one earlier measurement of the same kind; none where a strategy is missing."""
    file = RunDirectory(plan.out).speed
    if not plan.resume or not file.is_file():
        return []
    blank = blank_row(plan.recipe, runtime.device)
    rows = {
        row.strategy: row
        for row in read_table(file, SpeedRow)
        if _same(row, blank) and (row.status != "ok" or row.rounds == plan.rounds)
    }
    specs = [strategy_spec(strategy) for strategy in plan.strategies]
    if "cutmix" not in specs:
        specs.insert(0, "cutmix")
    if not set(specs) <= set(rows):
        return []
    chosen = [rows[spec] for spec in specs]
    # every measurement has a control band of its own
    bands = {(row.control_lo, row.control_hi) for row in chosen if row.status == "ok"}
    return chosen if len(bands) == 1 else []


def _same(row: SpeedRow, blank: SpeedRow) -> bool:
    names = (*TIMED, "device", "compiled", "versions")
    return all(getattr(row, name) == getattr(blank, name) for name in names)


def peers(rounds: int) -> str:
    """Other packages' mixing beside ours, as a Markdown table; in a checkout alone."""
    from baselines.peers import compare, report

    return report(compare(rounds))
