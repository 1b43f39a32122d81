"""The command that compares strategies, and its two short forms, `train` and `speed`."""

from __future__ import annotations

import argparse
import shlex
from importlib.util import find_spec
from typing import Any

from mixbench.commands.list import list_command
from mixbench.commands.options import bench_parser, load_plugins
from mixbench.comparison.plan import Plan, check_early, fitted, make_plan, plan_data
from mixbench.data.datasets import check_dataset
from mixbench.data.scene_area import SCENES, parse_area, scenes_name
from mixbench.recipe import recipe_text
from mixbench.registry import BUILTIN
from mixbench.spec import create_strategies
from mixbench.watch import process_count

# the options that a plan takes as they are
PLAN_OPTIONS = (
    *("data", "dataset", "download", "limit_train", "limit_val", "workers", "cache"),
    *("check_data", "skip_unreadable", "class_names"),
    *("mode", "rounds", "val_interval", "side_by_side", "profile", "peers", "device"),
    *("csv", "json", "resume"),
)


def bench(
    argv: list[str], typed: list[str] | None = None, command: str = "bench", **defaults: Any
) -> int:
    """Check, measure and write what the options ask for; the exit status.

    typed is the whole command line that the run records; without it `argv` are its options.
    """
    options = bench_parser(command, **defaults).parse(argv)
    if options.list:
        return list_command([f"--plugin={plugin}" for plugin in options.plugin])
    load_plugins(options)
    plan = plan_of(options, ["mixbench", *argv] if typed is None else typed)
    if options.print_recipe:
        print(recipe_text(plan.recipe), end="")
        return 0
    check_early(plan)
    from mixbench.comparison.checks import check_machine, check_plan

    check_plan(plan)
    check_machine(plan)
    from mixbench.comparison.comparison import rehearse, run

    if process_count() > 1 and not options.dry_run:
        return run(plan)  # they open their data together, and hear of each other's end
    data = plan_data(plan, rehearsed=options.dry_run)
    plan = fitted(plan, data)
    if options.dry_run:
        return rehearse(plan, data)
    return run(plan, data)


def train(argv: list[str], typed: list[str]) -> int:
    """Train strategies by any recipe, TransMix where none is named; ends in last.pt."""
    return bench(argv, typed, "train", mode="accuracy", strategies="transmix")


def speed(argv: list[str], typed: list[str]) -> int:
    """Time strategies, every built-in one in 40 rounds unless the options say otherwise."""
    return bench(argv, typed, "speed", mode="speed", rounds=40, strategies=",".join(BUILTIN))


def plan_of(options: argparse.Namespace, typed: list[str]) -> Plan:
    """What the options ask for, recorded as it was typed; ValueError for a mistake in them."""
    strategies = create_strategies(options.strategies)
    check_combinations(options)
    if options.scene_area is not None:
        options.dataset = scenes_name(parse_area(options.scene_area))
    overrides = {
        key.partition(".")[2]: value
        for key, value in vars(options).items()
        if key.startswith("recipe.")
    }
    return make_plan(
        strategies,
        overrides,
        config=options.config,
        seeds=options.seeds,
        out=options.out,
        command=shlex.join(typed),
        evaluate=tuple(dict.fromkeys(options.evaluate)),
        log=tuple(dict.fromkeys(options.log)),
        **{name: getattr(options, name) for name in PLAN_OPTIONS},
    )


def check_combinations(options: argparse.Namespace) -> None:
    """ValueError where two options exclude each other, or something that one needs is missing."""
    if options.data and options.dataset:
        raise ValueError("--data and --dataset exclude each other: give one")
    if options.dataset is not None:
        check_dataset(options.dataset)
    if options.scene_area is not None and (options.data or options.dataset not in (None, SCENES)):
        raise ValueError("--scene-area is of the drawn scenes: leave out --data and --dataset")
    if options.mode == "accuracy" and (options.profile or options.peers):
        raise ValueError(
            "--profile and --peers belong to the speed part: take --mode speed or both"
        )
    if options.mode == "speed" and options.evaluate:
        raise ValueError("--evaluate belongs to what was trained: take --mode accuracy or both")
    if options.peers and not find_spec("baselines"):
        raise ValueError("--peers needs the folder baselines/ of a checkout: run it there")
