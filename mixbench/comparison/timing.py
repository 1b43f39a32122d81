"""The speed part of a comparison."""

from __future__ import annotations

import dataclasses

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


def time_strategies(plan: Plan, runtime: Runtime, screen: Screen) -> list[SpeedRow]:
    """Time every strategy, in the first process alone; the rows, none in the other processes.

    A resumed run takes what it measured before, where that is of the same strategies, model,
    machine and number of rounds.
    """
    if not runtime.first:
        runtime.world.agree(None)
        return []
    rows = _measured_before(plan, runtime)
    if not rows:
        screen.say(f"timing {blank_row(plan.recipe, runtime.device).timed}")
        with screen.counting("timing, rounds", "round") as tick:
            timing = dataclasses.replace(runtime, tick=tick)
            rows = measure(plan.strategies, plan.recipe, plan.rounds, timing)
    directory = RunDirectory(plan.out)
    if plan.profile:
        failed = {row.strategy for row in rows if row.status != "ok"}
        good = [strategy for strategy in plan.strategies if strategy_spec(strategy) not in failed]
        text = profile(good, plan.recipe, runtime)
        replace_file(directory.profile, text)
        screen.say(text)
    if plan.peers:
        text = peers(plan.rounds)
        replace_file(directory.peers, text)
        screen.say(text)
    runtime.world.agree(None)
    return rows


def _measured_before(plan: Plan, runtime: Runtime) -> list[SpeedRow]:
    """The rows of an earlier run of the same measurement; none where a strategy has no figure."""
    file = RunDirectory(plan.out).speed
    if not plan.resume or not file.is_file():
        return []
    blank = blank_row(plan.recipe, runtime.device)
    rows = {
        row.strategy: row
        for row in read_table(file, SpeedRow)
        if row.status == "ok" and row.rounds == plan.rounds and _same(row, blank)
    }
    specs = [strategy_spec(strategy) for strategy in plan.strategies]
    if "cutmix" not in specs:
        specs.insert(0, "cutmix")
    return [rows[spec] for spec in specs] if set(specs) <= set(rows) else []


def _same(row: SpeedRow, blank: SpeedRow) -> bool:
    names = (*TIMED, "device", "compiled", "versions")
    return all(getattr(row, name) == getattr(blank, name) for name in names)


def peers(rounds: int) -> str:
    """Other packages' mixing beside ours, as a Markdown table; in a checkout alone."""
    from baselines.peers import compare, report

    return report(compare(rounds))
