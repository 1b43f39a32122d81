"""What a comparison will cost: before anything is measured, and in words."""

from __future__ import annotations

import dataclasses

import torch

from mixbench.comparison.accuracy import SCENES, groups_sentence, missing, workers
from mixbench.comparison.plan import Plan
from mixbench.comparison.screen import duration
from mixbench.comparison.timing import measured_before
from mixbench.data.sources import Data
from mixbench.evaluations.speed import expected
from mixbench.mix import MixStrategy
from mixbench.models.build import recipe_model
from mixbench.models.counts import count
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.spec import strategy_spec
from mixbench.training.estimate import (
    Room,
    Work,
    first_seconds,
    image_bytes,
    in_groups,
    resident_memory,
    room_of,
    sizes_in,
    training_disk,
    training_memory,
    training_seconds,
    tried_sizes,
)
from mixbench.training.trial import slow_bfloat16, try_loading, try_strategies

LONG = 3600  # seconds after which a run deserves a warning


def training_cost(plan: Plan, data: Data) -> str:
    """What is known before anything is measured: images, and the network's arithmetic."""
    recipe = plan.recipe
    with torch.device("meta"):
        params, macs = count(recipe_model(recipe, len(data.classes), 0), recipe.image_size)
    steps = len(data.train.labels) // recipe.batch_size
    images = steps * recipe.batch_size * recipe.total_epochs
    # forward and twice that backward, two operations each
    flops = 6 * macs * images * len(plan.strategies) * len(plan.seeds)
    return (
        f"{images:,} images for each strategy and seed; {params / 1e6:.2f}M parameters; "
        f"{flops / 1e15:,.3g} PFLOP in all, without what a strategy adds"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What a plan will take on this machine."""

    training: float = 0.0  # seconds
    timing: float = 0.0  # seconds
    memory: int = 0  # bytes of this process, or of its GPU
    disk: int = 0  # bytes
    room: Room | None = None  # that training has, where it is in the plan
    images: int = 0  # bytes of a micro-batch on its way
    fits: int = 0  # strategies that the room holds side by side
    groups: tuple[int, ...] = ()  # strategies that train at once, one group after another
    failures: dict[str, str]  # by spec text, why a strategy cannot run

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            training=self.training + other.training,
            timing=self.timing + other.timing,
            memory=max(self.memory, other.memory),  # one part after the other
            disk=self.disk + other.disk,
            room=self.room or other.room,
            images=self.images or other.images,
            fits=self.fits or other.fits,
            groups=self.groups or other.groups,
            failures=self.failures | other.failures,
        )


def expected_cost(plan: Plan, data: Data, recipe_hash: str, runtime: Runtime) -> Cost:
    """What a plan will take, measured by a few steps of each strategy that is still to run.

    Said at once, as those steps would be slow too: that bfloat16 is slower here than float32.
    """
    cost = Cost(failures={})
    times = plan.times and runtime.first and not measured_before(plan, runtime)
    by_seed = missing(plan, recipe_hash) if plan.trains else []
    _warn_of_bfloat16(plan.recipe, times, any(by_seed), runtime)
    if times:
        cost += _timing_cost(plan, data, runtime)
    if any(by_seed):
        runtime = dataclasses.replace(
            runtime, workers=workers(plan, data), val_interval=plan.val_interval
        )
        cost += _training_cost(plan, data, by_seed, runtime)
    if cost.memory and runtime.device.type == "cpu":
        cost = dataclasses.replace(cost, memory=cost.memory + resident_memory())
    return cost


def _warn_of_bfloat16(recipe: Recipe, times: bool, trains: bool, runtime: Runtime) -> None:
    """Say so where bfloat16 is slow, and which options keep out of it what is to be run."""
    options = {
        "--no-amp": trains and recipe.amp,
        "--no-speed-amp": times and recipe.speed_amp,
        "--gradient-amp false": (trains or times) and recipe.gradient_amp,
    }
    used = [option for option, is_used in options.items() if is_used]
    slow = slow_bfloat16(runtime.device) if used else None
    if slow:
        runtime.say(f"{slow}: take {' and '.join(used)}")


def _timing_cost(plan: Plan, data: Data, runtime: Runtime) -> Cost:
    steps = expected(plan.strategies, plan.recipe, plan.rounds, runtime, len(data.classes))
    return Cost(timing=steps.seconds, memory=steps.memory, failures=steps.failures)


def _training_cost(
    plan: Plan, data: Data, strategies_by_seed: list[list[MixStrategy]], runtime: Runtime
) -> Cost:
    recipe, num_classes = plan.recipe, len(data.classes)
    seeds = [[strategy_spec(each) for each in each_seed] for each_seed in strategies_by_seed]
    wanted = {spec for specs in seeds for spec in specs}
    sizes = tried_sizes(recipe, num_classes, runtime)
    strategies = [each for each in plan.strategies if strategy_spec(each) in wanted]
    trials = try_strategies(strategies, recipe, num_classes, sizes, runtime)
    loading = try_loading(data, recipe, sizes.micro_batch, runtime)
    work = Work.of(recipe, data, sizes, SCENES if data.drawn else 0, runtime)
    by_seed = [[trial for trial in trials if trial.spec in specs] for specs in seeds]
    image = image_bytes(trials, sizes, recipe, num_classes, runtime.device)
    room = room_of(trials, image, runtime.device)
    micro_batch, fits = sizes.micro_batch, len(strategies)
    if room is not None:
        micro_batch = sizes_in(room, recipe, runtime).micro_batch
        fits = room.strategies(micro_batch)
    at_once = plan.side_by_side or max(fits, 1)
    groups = [group for each in by_seed for group in in_groups(each, at_once)]
    return Cost(
        training=sum(training_seconds(group, loading, work) for group in groups)
        + first_seconds(loading, work),
        memory=max(training_memory(group, micro_batch * image) for group in groups),
        disk=training_disk(trials, recipe, len(plan.seeds)),
        room=room,
        images=micro_batch * image,
        fits=fits,
        groups=tuple(map(len, in_groups(strategies, at_once))),
        failures={trial.spec: trial.failure.reason for trial in trials if trial.failure},
    )


def sentences(cost: Cost, plan: Plan, device: torch.device) -> list[str]:
    """What a plan will take, and what to do where that is long, as a person says it."""
    parts = []
    if cost.timing:
        parts.append(f"timing will take about {duration(cost.timing)}")
    if cost.training:
        parts.append(f"training will take about {duration(cost.training)}")
    if not parts:
        return []
    whole = cost.timing + cost.training
    both = f", {duration(whole)} in all," if len(parts) > 1 else ""
    place = "memory" if device.type == "cpu" else "the device's memory"
    needs = f"about {amount(cost.memory)} of {place}"
    if cost.disk:
        needs += f" and {amount(cost.disk)} on the disk"
    said = [f"{' and '.join(parts)}{both} on this machine, with {needs}"]
    if whole > LONG:
        said.append(_advice(plan))
    return said


def room_sentence(cost: Cost, device: torch.device) -> str | None:
    """How many strategies the memory holds side by side, and their groups where that is few."""
    if cost.room is None:
        return None
    place = "memory" if device.type == "cpu" else "memory of the device"
    fit = {0: "not even one strategy fits", 1: "one strategy fits"}.get(
        cost.fits, f"about {cost.fits:,} strategies fit side by side"
    )
    said = f"{amount(cost.room.free)} of {place} are free: {fit}, at {amount(cost.room.held)} each"
    if cost.images:
        said += f" and {amount(cost.images)} for a micro-batch"
    if len(cost.groups) > 1:
        said += f"; {groups_sentence(cost.groups)}"
    return said


def _advice(plan: Plan) -> str:
    """What makes a run shorter."""
    if not plan.trains:
        return "that is long: lower --rounds, time fewer --strategies, or use a GPU (--device cuda)"
    fewer = "--epochs"
    if plan.recipe.warmup_epochs:  # it must stay below
        fewer = "--epochs (and with it --warmup-epochs, to a tenth of it)"
    return (
        f"that is long: lower {fewer} or --limit-train, take --config quick, or use a GPU "
        "(--device cuda)"
    )


def amount(size: int) -> str:
    """Bytes as a person says them."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
