"""One comparison: speed and training of the strategies asked for, as rows on disk."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from mixbench import distributed
from mixbench.comparison.accuracy import train_seeds
from mixbench.comparison.agreement import facts
from mixbench.comparison.checks import prepare
from mixbench.comparison.cost import expected_cost, room_sentence, sentences, training_cost
from mixbench.comparison.evaluating import evaluate_run
from mixbench.comparison.plan import Plan, fitted, plan_data
from mixbench.comparison.results import Results
from mixbench.comparison.screen import Screen
from mixbench.comparison.seeds import seed_remark
from mixbench.comparison.timing import look_closer, time_strategies
from mixbench.data.sources import Data
from mixbench.errors import STAYS, sentence
from mixbench.recipe import Recipe
from mixbench.runs.directory import RunDirectory
from mixbench.runtime import Runtime, choose_device
from mixbench.spec import strategy_spec
from mixbench.training.estimate import Room
from mixbench.visible import visible
from mixbench.watch import process_count


def run(plan: Plan, data: Data | None = None) -> int:
    """Measure, train and write what a plan asks for; the exit status, 1 where a strategy failed.

    The plan's data may be open already. ValueError where the directory is of others.
    """
    device = choose_device(plan.device)
    world = distributed.join(device.type)
    device = prepare_device(device, plan.recipe, world)
    screen = Screen(speaks=world.rank == 0)
    runtime = Runtime(device=device, world=world, resume=plan.resume, say=screen.say)
    with distributed.together(world):
        data = data or open_together(plan, runtime)
        world.check_same(facts(plan, data))
        plan = fitted(plan, data)
        runtime = dataclasses.replace(runtime, out=plan.out)
        data = prepare(plan, data, runtime)
        claim = RunDirectory(plan.out).claimed(plan.identity(data), resume=plan.resume)
        with claim if runtime.first else nullcontext(), screen.progress:
            return compare(plan, data, runtime, screen)


def compare(plan: Plan, data: Data, runtime: Runtime, screen: Screen) -> int:
    """The comparison itself: speed, then training seed by seed, written as it comes."""
    world = runtime.world
    digits = plan.recipe_hash(data)
    results = Results(plan, digits)
    if runtime.first:
        results.begin(runtime, data.classes)
    world.agree(None)  # rows of damaged files are where all look for them
    finished = results.directory.results(digits)
    world.check_same({"what --out holds": str(sorted(finished))})
    hopeless = seed_remark(plan, finished)
    if hopeless:
        runtime.say(hopeless)
    with begun():
        cost = expected_cost(plan, data, digits, runtime)
        for line in sentences(cost, plan, runtime.device):
            runtime.say(line)
        measure(plan, data, digits, results, runtime, screen, cost.room)
        good = results.good
        if runtime.first and plan.evaluate and results.runs:
            good = evaluate_run(plan, data, runtime, screen) and good
            results.write()
    if runtime.first:
        results.show(runtime, screen)
    world.agree(None)  # a process that ended with status 1 would have the others stopped
    return 0 if good else 1


def rehearse(plan: Plan, data: Data) -> int:
    """Say what a plan would run and what it costs; 1 where a strategy would fail.

    ValueError as of `run`: all that it checks before it measures is checked.
    """
    said: list[str] = []
    world = distributed.World(size=process_count())
    device = prepare_device(choose_device(plan.device), plan.recipe, distributed.World())
    runtime = Runtime(device=device, world=world, resume=plan.resume, out=plan.out, say=said.append)
    data = prepare(plan, data, runtime)
    RunDirectory(plan.out).check_free()
    digits = plan.recipe_hash(data)
    hopeless = seed_remark(plan, RunDirectory(plan.out).results(digits))
    cost = expected_cost(plan, data, digits, runtime)
    fitting = room_sentence(cost, device)
    failures = [f"{spec} {reason}" for spec, reason in cost.failures.items()]
    said += [f"seeds       {hopeless}"] if hopeless else []
    said += sentences(cost, plan, device) + ([fitting] if fitting else [])
    lines = [*description(plan, data), *said, *failures]
    if os.environ.get("RANK", "0") == "0":
        print("\n".join(map(visible, lines)))
        if failures:
            print(sentence(f"error: would fail: {'; '.join(failures)}"), file=sys.stderr)
    return 1 if failures else 0


def description(plan: Plan, data: Data) -> list[str]:
    """What a plan would run, in lines."""
    recipe, timed = plan.recipe, plan.recipe.timed
    lines = [
        f"would run   {', '.join(map(strategy_spec, plan.strategies))}",
        f"on          {plan.source}, {recipe.model} at {recipe.image_size} px",
    ]
    if plan.trains:
        interval = plan.val_interval
        sparse = f", evaluated every {interval} epochs and at the end" if interval > 1 else ""
        lines += [
            f"training    {recipe.total_epochs} epochs x {len(plan.strategies)} strategies x "
            f"{len(plan.seeds)} seeds, batch {recipe.batch_size}{sparse}",
            f"cost        {training_cost(plan, data)}",
        ]
    if plan.evaluate:
        lines.append(f"evaluating  {', '.join(plan.evaluate)}")
    if plan.times:
        lines.append(f"timing      {timed.model} at {timed.image_size} px, {plan.rounds} rounds")
    return [*lines, f"output      {plan.out}"]


def measure(
    plan: Plan,
    data: Data,
    digits: str,
    results: Results,
    runtime: Runtime,
    screen: Screen,
    room: Room | None = None,
) -> None:
    """Fill the results: speed, then training; they are written as they come."""
    try:
        if plan.times:
            results.speed = time_strategies(plan, runtime, screen, len(data.classes))
            if runtime.first:
                results.write()
                look_closer(plan, results.speed, runtime, screen, len(data.classes))
            runtime.world.agree(None)  # the others wait for the machine to be free
        if plan.trains:
            for rows in train_seeds(plan, data, digits, runtime, screen, room):
                results.runs += rows
                if runtime.first:
                    results.write()
    finally:
        if runtime.first and results:  # what an earlier run wrote stays where this wrote nothing
            results.write()


@contextmanager
def begun() -> Iterator[None]:
    """What ends the command in here is noted to leave what was written, but a user's mistake."""
    try:
        yield
    except ValueError:
        raise
    except BaseException as error:
        error.add_note(STAYS)
        raise


def open_together(plan: Plan, runtime: Runtime) -> Data:
    """The plan's data; the first process opens it before the others, since it may fetch it."""
    if not runtime.first:
        runtime.world.agree(None)
    data = plan_data(plan)
    if runtime.first:
        runtime.world.agree(None)
    return data


def prepare_device(device: torch.device, recipe: Recipe, world: distributed.World) -> torch.device:
    """This process's device, with the recipe's precision for float32 products set."""
    if device.type != "cuda":
        return device
    if world.size > 1:
        device = torch.device("cuda", torch.cuda.current_device())
    torch.cuda.set_device(device.index or 0)  # events are of the current device
    # torch allows TF32 in convolutions but not in matrix products, which would favour
    # Attentive-CutMix's network
    torch.set_float32_matmul_precision("high" if recipe.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = recipe.tf32
    return device
