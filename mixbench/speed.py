"""Images per second of mixing + forward + backward: strategies interleaved in rounds, ratios paired, CutMix timed twice."""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mixbench.attention import ClassAttention
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe
from mixbench.registry import create_strategy, strategy_spec
from mixbench.train import Learner, build_model, build_optimizer, mixed_loss

WARM_UP = 2  # rounds that are not counted
CLASSES = 1000


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
    optimizer_seconds: float
    peak_memory_mb: float | None
    seconds: tuple[float, ...]


def median_interval(values: np.ndarray, draws: int = 10_000) -> tuple[float, float, float]:
    """The median of `values` and its 95 % percentile-bootstrap interval."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (draws, len(values))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(np.median(values)), float(low), float(high)


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def speed_batch(recipe: Recipe, device: torch.device) -> int:
    """Images a timed step: the recipe's, else 128 on a GPU (Table 8) and 8 on a CPU."""
    if isinstance(recipe.speed_batch_size, int):
        return recipe.speed_batch_size
    return 128 if device.type == "cuda" else 8


def measure(
    strategies: list[MixStrategy],
    recipe: Recipe,
    device: torch.device,
    rounds: int,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Speed], dict[str, str]]:
    """The speed of each strategy by spec text, and what went wrong for those that failed.

    Every strategy is used on every batch, on one model and one resident batch; CutMix is the reference and its own control.
    """
    batch, size = speed_batch(recipe, device), recipe.speed_image_size
    model = build_model(recipe.speed_model, CLASSES, 0, image_size=size, drop_path_rate=recipe.drop_path).to(device).train()
    net = torch.compile(model) if recipe.compile else model
    optimizer = build_optimizer(model, recipe)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator).to(device)
    labels = torch.randint(CLASSES, (batch,), generator=generator).to(device)
    mean, std = (torch.tensor(v, device=device).reshape(-1, 1, 1) for v in (recipe.mean, recipe.std))
    cutmix = create_strategy("cutmix")
    named = {"reference": cutmix, **{strategy_spec(s): s for s in strategies if s != cutmix}, "control": cutmix}
    failed: dict[str, str] = {}
    times: dict[str, list[float]] = {name: [] for name in named}
    peaks: dict[str, float] = {}
    optimizer_times: list[float] = []

    def step(name: str, number: int) -> float:
        strategy = named[name]
        attention = strategy.needs.attention
        tap = ClassAttention(model, attention) if attention else None
        learner = Learner(strategy, strategy, model, net, tap)
        if tap:
            tap.__enter__()
        try:
            return _timed(
                lambda: mixed_loss(
                    learner, strategy, images, labels, num_classes=CLASSES, smoothing=recipe.smoothing,
                    amp=recipe.speed_amp, seed=0, step=number, mean=mean, std=std,
                ).backward(),
                device,
            )  # fmt: skip
        finally:
            if tap:
                tap.__exit__()

    for number in range(-WARM_UP, rounds):
        order = list(named) if number % 2 == 0 else list(named)[::-1]
        for name in order:
            if name in failed:
                continue
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            optimizer.zero_grad(set_to_none=True)
            try:
                seconds = step(name, number + WARM_UP)
            except Exception as error:  # a plug-in may raise anything; its row says so and the others go on
                failed[name] = f"failed: {type(error).__name__}: {' '.join(str(error).split())}"
                continue
            if device.type == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated(device) / 2**20
            optimizer_seconds = _timed(optimizer.step, device)
            if number >= 0:
                times[name].append(seconds)
                optimizer_times.append(optimizer_seconds)
        if number >= 0:
            say(f"speed  round {number + 1}/{rounds}")
    if "reference" in failed:
        raise RuntimeError(f"the reference itself cannot be timed: cutmix {failed['reference']}")
    reference = np.array(times["reference"])
    _, control_lo, control_hi = median_interval(reference / np.array(times["control"]))
    result = {}
    for name in named:
        if name in failed or name == "control":
            continue
        measured = np.array(times[name])
        typical, low, high = median_interval(measured)
        result["cutmix" if name == "reference" else name] = Speed(
            batch / typical, batch / high, batch / low,
            *median_interval(reference / measured), control_lo, control_hi,
            rounds, float(np.median(optimizer_times)), peaks.get(name), tuple(times[name]),
        )  # fmt: skip
    return result, failed
