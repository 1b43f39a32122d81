"""Images per second of mixing + forward + backward, strategies in turn, CutMix timed twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from mixbench.data.normalisation import Normalisation
from mixbench.mix import MixStrategy, Needs
from mixbench.models.build import recipe_model
from mixbench.recipe import Recipe
from mixbench.runs.environment import device_name, precision_name, today, versions
from mixbench.runs.rows import SpeedRow
from mixbench.runtime import Failed, Runtime, explain, silent_line
from mixbench.settings import generators, put_generators_back
from mixbench.spec import create_strategy, strategy_spec
from mixbench.strategies.none import NoMix
from mixbench.training.batches import Micro
from mixbench.training.clock import Clock
from mixbench.training.estimate import activation_bytes
from mixbench.training.forward import Network
from mixbench.training.guard import needs_of
from mixbench.training.learner import extra_params_m
from mixbench.training.objective import Objective
from mixbench.training.optim import build_optimizer
from mixbench.training.parts import attach, build_part, parameter_count
from mixbench.training.trial import held_bytes, seconds_of

# steps of each strategy that are not counted; kernels of Puzzle-Mix's four grids compile as drawn
WARM_UP, COMPILING = 3, 20
CLASSES = 1000  # of a network that `speed_model` names, as in Table 8
REFERENCE, CONTROL = "cutmix (reference)", "cutmix (control)"  # no spec text can be one of these


@dataclass(frozen=True)
class Interval:
    """A median with its 95 % interval."""

    median: float
    low: float
    high: float


def median_interval(values: np.ndarray, draws: int = 10_000) -> Interval:
    """The median of `values` (N,) and its percentile-bootstrap interval."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (draws, len(values))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return Interval(float(np.median(values)), float(low), float(high))


def speed_batch(recipe: Recipe, device: torch.device) -> int:
    """Images a timed step: the recipe's, else 128 on a GPU (Table 8) and 8 on a CPU."""
    if isinstance(recipe.speed_batch_size, int):
        return recipe.speed_batch_size
    return 128 if device.type == "cuda" else 8


def warm_up_steps(recipe: Recipe, device: torch.device) -> int:
    """Steps of each strategy before the first that counts."""
    return COMPILING if recipe.compile or device.type == "cuda" else WARM_UP


@dataclass
class Timed:
    """A strategy that is timed: its own objective, a network that others may share, its times."""

    needs: Needs
    objective: Objective
    network: Network
    optimizer: torch.optim.Optimizer
    device: torch.device
    steps: list[dict[str, float]] = field(default_factory=list)  # seconds of each part, one a round
    peak_mb: float | None = None
    failure: Failed | None = None

    def step(self, micro: Micro) -> Clock:
        """A step of training; its clock knows the parts."""
        self.optimizer.zero_grad(set_to_none=True)
        clock = Clock(self.device)
        self.objective(self.network, micro, mark=clock).loss.backward()
        clock("backward")
        self.optimizer.step()
        clock("optimizer")
        return clock

    def attempt(self, micro: Micro) -> Clock | None:
        """A step, or None where it fails or failed before."""
        if self.failure is None:
            try:
                return self.step(micro)
            except Exception as error:  # a plug-in may raise anything: its row says so
                self.failure = explain(error)
        return None

    def warm_up(self, batch: ResidentBatch, steps: int) -> None:
        """Steps that are not counted; on a GPU the last one's peak memory is."""
        for number in range(steps):
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            if self.attempt(batch.micro(number)) is None:
                return
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
                self.peak_mb = torch.cuda.max_memory_allocated(self.device) / 2**20

    def seconds(self) -> np.ndarray:
        """Mixing, forward and backward of each round, (rounds,)."""
        return np.array(
            [sum(step[part] for part in ("mix", "forward", "backward")) for step in self.steps]
        )

    def median_ms(self, part: str) -> float:
        """Milliseconds of a part, median over the rounds."""
        return 1000 * float(np.median([step[part] for step in self.steps]))


def timed_classes(recipe: Recipe, num_classes: int) -> int:
    """Classes of what is timed: the data's `num_classes`, or 1,000 of a network named for it."""
    return num_classes if recipe.speed_model is None else CLASSES


class ResidentBatch:
    """The images that every timed step sees; they stay on the device."""

    def __init__(self, recipe: Recipe, device: torch.device, num_classes: int):
        self.size = speed_batch(recipe, device)
        side = recipe.timed.image_size
        classes = timed_classes(recipe, num_classes)
        rng = torch.Generator().manual_seed(0)
        self._images = torch.randn(self.size, 3, side, side, generator=rng).to(device)
        self._labels = torch.randint(classes, (self.size,), generator=rng).to(device)
        self._objects = torch.zeros(self.size, 1, side, side, device=device)
        quarter = side // 4
        self._objects[..., quarter : side - quarter, quarter : side - quarter] = 1

    def micro(self, step: int) -> Micro:
        """The whole batch as step number `step`."""
        return Micro(images=self._images, labels=self._labels, objects=self._objects, step=step)


@contextmanager
def timed_strategies(
    strategies: Mapping[str, MixStrategy],
    recipe: Recipe,
    device: torch.device,
    num_classes: int,
    say: Callable[[str], None] = silent_line,
) -> Iterator[dict[str, Timed]]:
    """What is timed, by name; strategies share a network where it gives them the same.

    One that builds a part has a network of its own.
    """
    shared: dict[tuple[str | None, bool, str | None], Timed] = {}
    timed, classes = {}, timed_classes(recipe, num_classes)
    for name, strategy in strategies.items():
        needs, failure = needs_of(strategy)
        key = needs.attention, needs.tokens, None
        if key not in shared:
            shared[key] = _timed(needs, recipe, device, classes)
        first, part = shared[key], None
        if failure is None:
            try:
                side = recipe.timed.image_size
                part = build_part(strategy, first.network.model, classes, side, seed=0)
            except Exception as error:  # a plug-in may raise anything: its row says so
                failure = explain(error)
        if part is not None:
            first = shared[*key[:2], name] = _timed(needs, recipe, device, classes, part)
        objective = dataclasses.replace(first.objective, strategy=strategy, say=say)
        timed[name] = dataclasses.replace(
            first, needs=needs, objective=objective, steps=[], failure=failure
        )
    with ExitStack() as stack:
        for first in shared.values():
            stack.enter_context(first.network)
        yield timed


def _timed(
    needs: Needs,
    recipe: Recipe,
    device: torch.device,
    num_classes: int,
    part: nn.Module | None = None,
) -> Timed:
    model = recipe_model(recipe.timed, num_classes, 0).to(device).train()
    attach(model, part)
    normalisation = Normalisation.of(recipe.mean, recipe.std, device)
    objective = Objective(
        strategy=NoMix(),
        num_classes=num_classes,
        smoothing=recipe.smoothing,
        normalisation=normalisation,
        seed=0,
        amp=recipe.speed_amp,
        gradient_amp=recipe.gradient_amp,
    )
    network = Network(model, needs, normalisation, part=part, compile=recipe.compile)
    return Timed(needs, objective, network, build_optimizer(model, recipe), device)


def measure(
    strategies: Sequence[MixStrategy],
    recipe: Recipe,
    rounds: int,
    runtime: Runtime,
    num_classes: int = CLASSES,
) -> list[SpeedRow]:
    """A row for each strategy, CutMix first where it was not named: it is the reference.

    Every strategy has every batch, on one resident batch, and the data's number of classes where
    the trained network is timed. `runtime.tick` hears of each round.
    RuntimeError where CutMix itself cannot be timed.
    """
    cutmix, device = create_strategy("cutmix"), runtime.device
    specs = [strategy_spec(strategy) for strategy in strategies]
    others = {
        spec: strategy
        for spec, strategy in zip(specs, strategies, strict=True)
        if spec != strategy_spec(cutmix)  # not by ==, which a plug-in may define
    }
    named = {REFERENCE: cutmix, **others, CONTROL: cutmix}
    batch = ResidentBatch(recipe, device, num_classes)
    warm_up = warm_up_steps(recipe, device)
    with timed_strategies(named, recipe, device, num_classes, runtime.say) as timed:
        for strategy in timed.values():
            strategy.warm_up(batch, warm_up)
        for number in range(rounds):
            _round(timed, batch, warm_up + number, reverse=(warm_up + number) % 2 == 1)
            runtime.tick(number + 1, rounds)
    for name in (REFERENCE, CONTROL):
        failure = timed[name].failure
        if failure is not None:
            raise RuntimeError(f"the reference itself cannot be timed: cutmix {failure.reason}")
    blank = blank_row(recipe, device)
    rows = {name: _row(name, timed, blank) for name in timed if name != CONTROL}
    if "cutmix" not in specs:
        specs.insert(0, "cutmix")
    return [rows[REFERENCE if spec == "cutmix" else spec] for spec in specs]


@dataclass(frozen=True)
class Expected:
    """What the speed part will take, from a step of each strategy."""

    seconds: float
    memory: int  # bytes
    failures: dict[str, str]  # by spec text, why a strategy cannot be timed


def expected(
    strategies: Sequence[MixStrategy],
    recipe: Recipe,
    rounds: int,
    runtime: Runtime,
    num_classes: int,
) -> Expected:
    """What `measure` will take; torch's generators stay as they are."""
    device, before = runtime.device, generators(runtime.device)
    named = {"cutmix": create_strategy("cutmix")}
    named |= {strategy_spec(strategy): strategy for strategy in strategies}
    batch = ResidentBatch(recipe, device, num_classes)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        with timed_strategies(named, recipe, device, num_classes) as timed:
            seconds_of(lambda: timed["cutmix"].attempt(batch.micro(0)), device)  # it warms up
            seconds = {
                name: seconds_of(partial(strategy.attempt, batch.micro(1)), device)
                for name, strategy in timed.items()
            }
            networks = {id(strategy.network): strategy for strategy in timed.values()}.values()
            held = sum(held_bytes(each.network.model, each.optimizer) for each in networks)
    finally:
        put_generators_back(before, device)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    else:
        classes = timed_classes(recipe, num_classes)
        memory = held + activation_bytes(recipe.timed, classes, batch.size, amp=recipe.speed_amp)
    failures = {name: each.failure.reason for name, each in timed.items() if each.failure}
    steps = rounds + warm_up_steps(recipe, device)
    return Expected(steps * (sum(seconds.values()) + seconds["cutmix"]), memory, failures)


def _round(timed: Mapping[str, Timed], batch: ResidentBatch, number: int, *, reverse: bool) -> None:
    """A step of each strategy, in reversed order every other round."""
    names = [name for name in timed if timed[name].failure is None]
    if reverse:
        names.reverse()
    clocks = {name: timed[name].attempt(batch.micro(number)) for name in names}
    device = timed[REFERENCE].device
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # once a round: as in training, the host runs ahead
    for name, clock in clocks.items():
        if clock is not None:
            timed[name].steps.append(clock.seconds())


def blank_row(recipe: Recipe, device: torch.device) -> SpeedRow:
    """What is timed and where: a row without strategy and figures."""
    return SpeedRow(
        strategy="",
        timed_model=recipe.timed.model,
        timed_image_size=recipe.timed.image_size,
        timed_batch_size=speed_batch(recipe, device),
        timed_precision=precision_name(recipe.speed_amp, recipe.tf32, device, recipe.gradient_amp),
        compiled=recipe.compile,
        device=device_name(device),
        versions=versions(),
        date=today(),
    )


def _row(name: str, timed: Mapping[str, Timed], blank: SpeedRow) -> SpeedRow:
    this = timed[name]
    row = dataclasses.replace(
        blank,
        strategy="cutmix" if name == REFERENCE else name,
        attention=this.needs.attention,
        network=this.needs.network,
        timed_params_m=parameter_count(this.network.model) / 1e6,
    )
    if this.failure is not None:
        return dataclasses.replace(row, status=this.failure.reason)
    seconds, reference = this.seconds(), timed[REFERENCE].seconds()
    typical = median_interval(seconds)
    ratio = median_interval(reference / seconds)
    control = median_interval(reference / timed[CONTROL].seconds())
    assert row.timed_batch_size is not None
    return dataclasses.replace(
        row,
        extra_params_m=extra_params_m(this.needs, this.network),
        im_per_sec=row.timed_batch_size / typical.median,
        im_per_sec_lo=row.timed_batch_size / typical.high,
        im_per_sec_hi=row.timed_batch_size / typical.low,
        ratio_to_cutmix=ratio.median,
        ratio_lo=ratio.low,
        ratio_hi=ratio.high,
        control_lo=control.low,
        control_hi=control.high,
        rounds=len(seconds),
        peak_memory_mb=this.peak_mb,
        mix_ms=this.median_ms("mix"),
        forward_ms=this.median_ms("forward"),
        backward_ms=this.median_ms("backward"),
        optimizer_ms=this.median_ms("optimizer"),
    )
