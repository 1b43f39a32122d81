"""A strategy's first steps, tried before training: their seconds and their memory."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mixbench.data.augment import RawBatch, augment
from mixbench.data.loaders import eval_loader, readable, train_loader
from mixbench.data.normalisation import Normalisation
from mixbench.data.sources import Data
from mixbench.distributed import World
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe
from mixbench.runtime import Failed, Runtime
from mixbench.settings import generators, put_generators_back
from mixbench.spec import strategy_spec
from mixbench.strategies.alternate import Alternate, part_named
from mixbench.training.batches import Micro, Sizes
from mixbench.training.clock import Clock
from mixbench.training.evaluate import evaluate
from mixbench.training.learner import Learner, prepare

PROBE = 4  # images at most of a first step on a CPU, which warms up
CPU_TRIAL = 64  # images at most there: a large mixing group would take minutes
SLOW = 0.5  # seconds from which a first step is its own measurement
TRIALS = 5  # steps of each kind at most, of which the median counts
SAMPLES = 64  # images that are loaded
SIDE = 512  # of the two matrices that are multiplied in bfloat16 and in float32
SLOWER = 2  # times as long as float32, from which bfloat16 deserves a warning


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What training costs of one strategy."""

    spec: str
    step: float = 0.0  # seconds of a micro-batch: mixing, forward and backward
    update: float = 0.0  # seconds of a change of the weights and of their average
    evaluation: float = 0.0  # seconds of a validation image and a model
    models: int = 1  # that are evaluated: the raw weights, and the averaged ones
    weights: int = 0  # bytes of the model
    held: int = 0  # bytes of weights, gradients, optimizer and average, which stay
    on_way: int = 0  # bytes of a micro-batch beside them, on a CUDA device; 0 on another one
    passes: int = 1  # forward passes of a micro-batch that are kept at once
    failure: Failed | None = None  # nothing else is known then


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Seconds of an image on its way, in one loader process.

    The first time may take longer: scenes are drawn then, and files come from the disk.
    """

    train: float
    val: float
    first_train: float
    first_val: float
    augment: float = 0.0  # on the device


def slow_bfloat16(device: torch.device) -> str | None:
    """How many times as long as in float32 a product takes in bfloat16, measured, as a clause.

    None where it deserves no warning. A device that has instructions for it is faster than in
    float32, and a CPU that has none some 50 times as slow.
    """

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(SIDE, SIDE, dtype=dtype, device=device)
        return min(seconds_of(partial(torch.mm, matrix, matrix), device) for _ in range(2))

    slowdown = seconds(torch.bfloat16) / seconds(torch.float32)
    if slowdown <= SLOWER:
        return None
    return f"a product in bfloat16 takes {slowdown:.0f} times as long here as one in float32"


def try_strategies(
    strategies: Sequence[MixStrategy],
    recipe: Recipe,
    num_classes: int,
    sizes: Sizes,
    runtime: Runtime,
) -> list[Trial]:
    """What each strategy costs as the recipe uses it; torch's generators stay as they are.

    One that cannot run says why.
    """
    before = generators(runtime.device)
    runtime = dataclasses.replace(runtime, world=World(), seed=0)
    seconds: dict[tuple[str, str | None], float] = {}  # of strategies that several take turns with
    try:
        return [_try(each, recipe, num_classes, sizes, runtime, seconds) for each in strategies]
    finally:
        put_generators_back(before, runtime.device)


def _try(
    strategy: MixStrategy,
    recipe: Recipe,
    num_classes: int,
    sizes: Sizes,
    runtime: Runtime,
    seconds: dict[tuple[str, str | None], float],
) -> Trial:
    device, spec = runtime.device, strategy_spec(strategy)
    try:
        [learner] = prepare([strategy], recipe, num_classes, runtime, 1)
        if learner.failure is not None:
            return Trial(spec=spec, failure=learner.failure)
        step, objective = 0.0, learner.objective
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with learner.network:
            for turn in turns(objective.strategy, learner.network.part):
                key = strategy_spec(turn.strategy), learner.needs.attention
                if key not in seconds:
                    learner.objective = dataclasses.replace(objective, strategy=turn.strategy)
                    learner.network.part = turn.part
                    seconds[key] = _step_seconds(learner, recipe, sizes, runtime)
                step += turn.share * seconds[key]
            on_way = _on_way(device)
            update = _update_seconds(learner, recipe, sizes, runtime)
            evaluation = _evaluation_seconds(learner, recipe, runtime)
    except _Failure as failure:
        return Trial(spec=spec, failure=failure.failed)
    return Trial(
        spec=spec,
        step=step,
        update=update,
        evaluation=evaluation,
        models=len(learner.models),
        weights=weights_bytes(learner.model),
        held=held_bytes(learner.model, learner.optimizer, len(learner.models)),
        on_way=on_way,
        passes=2 if objective.strategy.clean_weight else 1,
    )


def _on_way(device: torch.device) -> int:
    """Bytes that the steps took of a CUDA device, beside what stays after them; 0 on another one.

    Only what they need for good, and their gradients, stays.
    """
    if device.type != "cuda":
        return 0
    return torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device)


class _Failure(Exception):
    """A strategy cannot be tried."""

    def __init__(self, failed: Failed):
        super().__init__(failed.reason)
        self.failed = failed


class Turn(NamedTuple):
    """A strategy that takes turns with others, and its share of the batches."""

    strategy: MixStrategy
    part: nn.Module | None  # that it built
    share: float


def turns(strategy: MixStrategy, part: nn.Module | None = None, share: float = 1.0) -> list[Turn]:
    """The strategies that take turns in one, which built `part` as a whole."""
    if not isinstance(strategy, Alternate):
        return [Turn(strategy, part, share)] if share else []
    first = turns(strategy.first, part_named("first", part), share * strategy.switch_prob)
    rest = share * (1 - strategy.switch_prob)
    return first + turns(strategy.second, part_named("second", part), rest)


def _step_seconds(learner: Learner, recipe: Recipe, sizes: Sizes, runtime: Runtime) -> float:
    """Seconds of one micro-batch; the gradients are as after it.

    On a CPU a large micro-batch takes as often as long as a trial as it is larger.
    """

    def steps(at_most: int) -> tuple[int, Callable[[], None]]:
        count, group = _trial(sizes, at_most)
        micro = _micro(count, group, recipe, runtime.device)

        def step() -> None:
            learner.accumulate(micro)
            if learner.trouble is not None:
                raise _Failure(learner.trouble)

        return count, step

    return _seconds_of(steps, sizes.micro_batch, recipe, runtime)


def _seconds_of(
    steps: Callable[[int], tuple[int, Callable[[], None]]],
    wanted: int,
    recipe: Recipe,
    runtime: Runtime,
) -> float:
    """Seconds that work on `wanted` images takes.

    `steps` gives, for a number of images at most, their number and the work on them. On a CPU
    the work is tried with few images first, and with more where that is fast.
    """
    cpu = runtime.device.type == "cpu"
    count, step = steps(min(wanted, PROBE) if cpu else wanted)
    first = seconds_of(step, runtime.device)
    if first > SLOW and cpu and not recipe.compile:
        return first * wanted / count
    if cpu:  # as many images as about half a second allows, now that the first step has warmed up
        room = int(count * SLOW / max(seconds_of(step, runtime.device), 1e-9))
        count, step = steps(min(wanted, CPU_TRIAL, max(count, room)))
    else:
        count, step = steps(wanted)
    times: list[float] = []
    while not times or (len(times) < TRIALS and sum(times) < SLOW):
        times.append(seconds_of(step, runtime.device))
    return statistics.median(times) * wanted / count


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that some work takes, the device's included."""
    clock = Clock(device)
    work()
    clock("work")
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock.seconds()["work"]


def _micro(count: int, group: int, recipe: Recipe, device: torch.device) -> Micro:
    """A micro-batch of noise."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, recipe.image_size, recipe.image_size, generator=rng)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    objects = torch.ones_like(images[:, :1]).to(device)
    return Micro(images=images.to(device), labels=labels, objects=objects, step=0, group=group)


def _trial(sizes: Sizes, at_most: int) -> tuple[int, int]:
    """Images of a trial, and of its mixing groups, two or more where the group has."""
    group = min(sizes.mix_group, max(at_most, 2))
    return max(at_most // group, 1) * group, group


def _update_seconds(learner: Learner, recipe: Recipe, sizes: Sizes, runtime: Runtime) -> float:
    """Seconds of a change of the weights; its first makes the optimizer's state."""
    times = []
    micro = _micro(*_trial(sizes, min(sizes.micro_batch, 2)), recipe, runtime.device)
    for step in range(2):
        learner.accumulate(micro)
        times.append(seconds_of(partial(learner.update, step), runtime.device))
        if learner.trouble is not None:
            raise _Failure(learner.trouble)
    return times[-1]


def _evaluation_seconds(learner: Learner, recipe: Recipe, runtime: Runtime) -> float:
    """Seconds of an image and a model."""
    wanted = 64 if runtime.device.type == "cpu" else 256  # as `eval_loader`

    def steps(at_most: int) -> tuple[int, Callable[[], None]]:
        micro = _micro(at_most, at_most, recipe, runtime.device)

        def step() -> None:
            loaded = [(micro.images, micro.labels)]
            [result] = evaluate([learner.model], loaded, recipe.amp, runtime)
            if isinstance(result, Failed):
                raise _Failure(result)

        return at_most, step

    return _seconds_of(steps, wanted, recipe, runtime) / wanted


def weights_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights and buffers."""
    return sum(map(_bytes, model.state_dict().values()))


def held_bytes(model: nn.Module, optimizer: torch.optim.Optimizer, models: int = 1) -> int:
    """Bytes that stay in training: so many models, the gradients of one, the optimizer's state."""
    gradients = sum(map(_bytes, model.parameters()))
    kept = [value for state in optimizer.state.values() for value in state.values()]
    state = sum(_bytes(value) for value in kept if isinstance(value, Tensor))
    return models * weights_bytes(model) + gradients + state


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def try_loading(data: Data, recipe: Recipe, micro_batch: int, runtime: Runtime) -> Loading:
    """Seconds of loading with the loaders of training; the generators stay as they are."""
    before, device = generators(runtime.device), runtime.device
    size = min(micro_batch, SAMPLES)
    try:
        train = train_loader(data, recipe, 0, size, 0, device)
        val = eval_loader(data.val, recipe, 0, device)
        train.dataset[0, 0, 0], val.dataset[0]  # what comes once: modules, tables
        first_train, batch = _loading_seconds(train)
        first_val, _ = _loading_seconds(val)
        return Loading(
            train=_loading_seconds(train)[0],
            val=_loading_seconds(val)[0],
            first_train=first_train,
            first_val=first_val,
            augment=_augment_seconds(batch, size, recipe, device),
        )
    finally:
        put_generators_back(before, device)


def _loading_seconds(loader: DataLoader[tuple[Any, int]]) -> tuple[float, Any]:
    """Seconds of an image, and a batch of images; always the same ones."""
    batches: list[Any] = []
    counts: list[int] = []

    def load() -> None:
        for images, labels in readable(loader):
            batches.append(images)
            counts.append(len(labels))
            if sum(counts) >= SAMPLES:
                return

    seconds = seconds_of(load, torch.device("cpu"))
    return seconds / max(sum(counts), 1), batches[0]


def _augment_seconds(batch: Any, size: int, recipe: Recipe, device: torch.device) -> float:
    """Seconds of an image's augmentation on the device; 0 where the loader augments."""
    if not isinstance(batch, RawBatch):
        return 0.0
    normalisation = Normalisation.of(recipe.mean, recipe.std, device)

    def work() -> None:
        augment(batch.to(device), normalisation, recipe.remode).sum().item()

    work()
    return seconds_of(work, device) / size
