"""Whether the seeds of a plan can show anything, said before it runs."""

from __future__ import annotations

from collections.abc import Iterable

from mixbench.comparison.plan import Plan
from mixbench.report.significance import hopeless
from mixbench.spec import strategy_spec


def seed_remark(plan: Plan, finished: Iterable[tuple[str, int]] = ()) -> str | None:
    """That a plan's seeds can show no difference whatever comes out; None where they can.

    Strategies and seeds that are finished in its directory stand in the same report.
    """
    if not plan.trains:
        return None
    seeds = {strategy_spec(strategy): set(plan.seeds) for strategy in plan.strategies}
    for spec, seed in finished:
        seeds.setdefault(spec, set()).add(seed)
    return hopeless(seeds)
