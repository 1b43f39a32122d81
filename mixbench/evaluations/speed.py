"""Images per second of mixing + forward + backward: strategies interleaved in rounds, ratios paired, CutMix timed twice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mixbench.mix import MixStrategy
from mixbench.models.build import build_model
from mixbench.recipe import Recipe
from mixbench.runtime import explain
from mixbench.services.attention import attention_tap
from mixbench.spec import create_strategy, strategy_spec
from mixbench.training.clock import Clock
from mixbench.training.learner import Learner
from mixbench.training.objective import compiled_parts, mixed_loss
from mixbench.training.optim import build_optimizer

WARM_UP, COMPILING = (
    3,
    20,
)  # steps of each strategy that are not counted; kernels of Puzzle-Mix's four grids compile as they are drawn


CLASSES = 1000


REFERENCE, CONTROL = "cutmix (reference)", "cutmix (control)"  # no spec text can be one of these


PARTS = ("mix", "forward", "backward", "optimizer")


@dataclass(frozen=True)
class Speed:
    """One strategy's speed; ratios are to CutMix in the same rounds, intervals are 95 % bootstraps over rounds."""

    im_per_sec: float
    im_per_sec_lo: float
    im_per_sec_hi: float
    ratio_to_cutmix: float
    ratio_lo: float
    ratio_hi: float
    control_lo: float
    control_hi: float
    rounds: int
    peak_memory_mb: float | None
    extra_params_m: float
    mix_ms: float  # medians over rounds; the optimizer's part is in no figure above
    forward_ms: float
    backward_ms: float
    optimizer_ms: float


def median_interval(values: np.ndarray, draws: int = 10_000) -> tuple[float, float, float]:
    """The median of `values` and its 95 % percentile-bootstrap interval."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (draws, len(values))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(np.median(values)), float(low), float(high)


def speed_batch(recipe: Recipe, device: torch.device) -> int:
    """Images a timed step: the recipe's, else 128 on a GPU (Table 8) and 8 on a CPU."""
    if isinstance(recipe.speed_batch_size, int):
        return recipe.speed_batch_size
    return 128 if device.type == "cuda" else 8


def timed_step(recipe: Recipe, device: torch.device) -> Callable[[Learner, int], Clock]:
    """A step of training on one resident batch, by learner and step number; its clock knows the parts."""
    batch, size = speed_batch(recipe, device), recipe.speed_image_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator).to(device)
    labels = torch.randint(CLASSES, (batch,), generator=generator).to(device)
    mean, std = (
        torch.tensor(v, device=device).reshape(-1, 1, 1) for v in (recipe.mean, recipe.std)
    )

    def step(learner: Learner, number: int) -> Clock:
        learner.optimizer.zero_grad(set_to_none=True)
        clock = Clock(device)
        mixed_loss(
            learner,
            learner.strategy,
            images,
            labels,
            num_classes=CLASSES,
            smoothing=recipe.smoothing,
            amp=recipe.speed_amp,
            gradient_amp=recipe.gradient_amp,
            seed=0,
            step=number,
            mean=mean,
            std=std,
            mark=clock,
        ).loss.backward()
        clock("backward")
        learner.optimizer.step()
        clock("optimizer")
        return clock

    return step


def measure(
    strategies: list[MixStrategy],
    recipe: Recipe,
    device: torch.device,
    rounds: int,
    say: Callable[[int, int], None] = lambda done, rounds: None,
) -> tuple[dict[str, Speed], dict[str, str]]:
    """The speed of each strategy by spec text, and what went wrong for those that failed.

    Every strategy is used on every batch, on one resident batch; CutMix is the reference and its own control. `say` hears of
    each round.
    """
    cutmix = create_strategy("cutmix")
    named = {
        REFERENCE: cutmix,
        **{strategy_spec(s): s for s in strategies if s != cutmix},
        CONTROL: cutmix,
    }
    failed: dict[str, str] = {}
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in named}
    peaks: dict[str, float] = {}
    batch = speed_batch(recipe, device)
    step = timed_step(recipe, device)
    warm_up = COMPILING if recipe.compile or device.type == "cuda" else WARM_UP

    def attempt(name: str, number: int) -> Clock | None:
        try:
            return step(learners[name], number)
        except (
            Exception
        ) as error:  # a plug-in may raise anything; its row says so and the others go on
            failed[name] = explain(error)
            return None

    with ExitStack() as stack:
        learners = speed_learners(named, recipe, device, stack)
        for name in named:
            for number in range(warm_up):
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                if name in failed or attempt(name, number) is None:
                    break
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                    peaks[name] = torch.cuda.max_memory_allocated(device) / 2**20
        for number in range(warm_up, warm_up + rounds):
            order = [
                name
                for name in (named if number % 2 == 0 else reversed(named))
                if name not in failed
            ]
            clocks = {name: attempt(name, number) for name in order}
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # once a round: as in training, the host runs ahead
            for name, clock in clocks.items():
                if clock is not None:
                    parts[name].append(clock.seconds())
            say(number + 1 - warm_up, rounds)
    if REFERENCE in failed or CONTROL in failed:
        raise RuntimeError(
            f"the reference itself cannot be timed: cutmix {failed.get(REFERENCE, failed.get(CONTROL))}"
        )
    times = {
        name: np.array([sum(p[k] for k in ("mix", "forward", "backward")) for p in parts[name]])
        for name in named
    }
    reference = times[REFERENCE]
    _, control_lo, control_hi = median_interval(reference / times[CONTROL])
    result = {}
    for name in named:
        if name in failed or name == CONTROL:
            continue
        typical, low, high = median_interval(times[name])
        result["cutmix" if name == REFERENCE else name] = Speed(
            batch / typical,
            batch / high,
            batch / low,
            *median_interval(reference / times[name]),
            control_lo,
            control_hi,
            rounds,
            peaks.get(name),
            learners[name].extra_params_m,
            **{
                f"{part}_ms": 1000 * float(np.median([p[part] for p in parts[name]]))
                for part in PARTS
            },
        )
    return result, failed


def profile(strategies: list[MixStrategy], recipe: Recipe, device: torch.device, out: Path) -> str:
    """The ten dearest operators of a warm step of each strategy as text; out/trace-<number>.json is the whole, for a trace viewer."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    key = f"self_{'cuda' if device.type == 'cuda' else 'cpu'}_time_total"
    step, texts = timed_step(recipe, device), []
    with ExitStack() as stack:
        named = {strategy_spec(strategy): strategy for strategy in strategies}
        for number, (name, learner) in enumerate(
            speed_learners(named, recipe, device, stack).items()
        ):
            for warm_up in range(WARM_UP):
                step(learner, warm_up)
            with record(activities=activities) as recorded:
                step(learner, WARM_UP)
            trace = out / f"trace-{number}.json"
            recorded.export_chrome_trace(str(trace))
            table = recorded.key_averages().table(
                sort_by=key, row_limit=10, max_name_column_width=40
            )
            texts.append(f"{name}: {trace}\n{table}")
    return "\n".join(texts)


def speed_learners(
    named: dict[str, MixStrategy], recipe: Recipe, device: torch.device, stack: ExitStack
) -> dict[str, Learner]:
    """A learner by name for the time of `stack`; strategies that look at the same attention, or at none, share one model."""
    shared: dict[str | None, Learner] = {}
    learners = {}
    for name, strategy in named.items():
        attention = strategy.needs.attention
        if attention not in shared:
            model = (
                build_model(
                    recipe.speed_model,
                    CLASSES,
                    0,
                    image_size=recipe.speed_image_size,
                    drop_path_rate=recipe.drop_path,
                )
                .to(device)
                .train()
            )
            tap = stack.enter_context(attention_tap(model, attention)) if attention else None
            parts = compiled_parts(model, tap, recipe.compile)
            shared[attention] = Learner(
                strategy,
                strategy,
                model,
                tap=tap,
                optimizer=build_optimizer(model, recipe),
                **parts,
            )
        learners[name] = replace(shared[attention], strategy=strategy, mixing=strategy)
    return learners
