"""How long training will take here."""

from __future__ import annotations

import time
from contextlib import ExitStack

import torch

from mixbench.data.augment import augment, collate
from mixbench.data.sources import Data
from mixbench.data.transforms import loader_transform
from mixbench.distributed import World
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe
from mixbench.training.clock import Clock
from mixbench.training.learner import prepare
from mixbench.training.loop import resolve_micro_batch
from mixbench.training.objective import mixed_loss


def estimate_seconds(
    strategies: list[MixStrategy],
    recipe: Recipe,
    data: Data,
    device: torch.device,
    workers: int = 0,
    world: World = World(),
) -> float:
    """Seconds that training every strategy for one seed will take here, loading included, from a few measured micro-batches.

    A strategy that cannot run counts nothing: training will say why.
    """
    micro = resolve_micro_batch(recipe, device, lambda n: n <= 128, world.size)
    steps = len(data.train.labels) // recipe.batch_size
    count = steps * (recipe.batch_size // (micro * world.size)) * recipe.total_epochs
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(micro, 3, recipe.image_size, recipe.image_size, generator=rng).to(device)
    labels = torch.zeros(micro, dtype=torch.int64, device=device)
    mean, std = (
        torch.tensor(v, device=device).reshape(-1, 1, 1) for v in (recipe.mean, recipe.std)
    )
    training = 0.0
    for strategy in strategies:
        [learner] = prepare([strategy], recipe, len(data.classes), 0, device, steps)
        times = []
        with ExitStack() as stack:
            if learner.tap:
                stack.enter_context(learner.tap)
            for step in range(3):
                clock = Clock(device)
                try:
                    mixed_loss(
                        learner,
                        strategy,
                        images,
                        labels,
                        num_classes=len(data.classes),
                        smoothing=recipe.smoothing,
                        amp=recipe.amp,
                        gradient_amp=recipe.gradient_amp,
                        seed=0,
                        step=step,
                        mean=mean,
                        std=std,
                    ).loss.backward()
                except Exception:
                    break
                clock("step")
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times.append(clock.seconds()["step"])
        training += min(times[1:], default=0.0)
    transform, samples = loader_transform(recipe), min(micro, 32)
    started = time.perf_counter()
    loaded = [(transform(data.train.load(index)), 0) for index in range(samples)]
    loading = (time.perf_counter() - started) / samples * micro / max(workers, 1)
    if recipe.augment_on == "device":
        raw, _ = collate(loaded)
        started = time.perf_counter()
        augment(raw.to(device), mean, std, recipe.remode).sum().item()
        training += (time.perf_counter() - started) / samples * micro
    # worker processes load while the step runs
    return count * (max(loading, training) if workers else loading + training)
