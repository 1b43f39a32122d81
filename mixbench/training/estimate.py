"""How long training will take on this machine, from a few measured micro-batches."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import torch

from mixbench.data.augment import augment, collate
from mixbench.data.normalisation import Normalisation
from mixbench.data.sources import Data
from mixbench.data.transforms import loader_transform
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.training.batches import Micro, Sizes, resolve_sizes
from mixbench.training.clock import Clock
from mixbench.training.learner import prepare

GPU_MICRO_BATCH = 128  # images, where finding the largest that fits would take too long
TRIALS = 3  # micro-batches of each strategy, the first of which warms up
SAMPLES = 32  # images that are loaded


def estimate_seconds(
    strategies: Sequence[MixStrategy], recipe: Recipe, data: Data, runtime: Runtime
) -> float:
    """Seconds that training every strategy for one seed will take here, loading included.

    A strategy that cannot run counts nothing: training will say why.
    """
    world = runtime.world
    sizes = resolve_sizes(recipe, runtime.device, lambda size: size <= _likely(recipe), world.size)
    steps = len(data.train.labels) // recipe.batch_size
    parts = recipe.batch_size // (sizes.micro_batch * world.size)
    count = steps * parts * recipe.total_epochs
    training = sum(
        _step_seconds(strategy, recipe, len(data.classes), sizes, runtime)
        for strategy in strategies
    )
    loading, on_device = _loading_seconds(recipe, data, sizes.micro_batch, runtime)
    loading /= max(runtime.workers, 1)
    training += on_device
    # worker processes load while the step runs
    return count * (max(loading, training) if runtime.workers else loading + training)


def _likely(recipe: Recipe) -> int:
    """A micro-batch of which is assumed that it fits."""
    return max(GPU_MICRO_BATCH, recipe.mix_group if isinstance(recipe.mix_group, int) else 0)


def _step_seconds(
    strategy: MixStrategy, recipe: Recipe, num_classes: int, sizes: Sizes, runtime: Runtime
) -> float:
    """Seconds of one micro-batch of a strategy, 0 where it cannot run."""
    device, side = runtime.device, recipe.image_size
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(sizes.micro_batch, 3, side, side, generator=rng).to(device)
    labels = torch.zeros(sizes.micro_batch, dtype=torch.int64, device=device)
    [learner] = prepare([strategy], recipe, num_classes, dataclasses.replace(runtime, seed=0), 1)
    objective = dataclasses.replace(learner.objective, strategy=strategy)
    times = []
    with learner.network:
        for step in range(TRIALS):
            clock = Clock(device)
            try:
                micro = Micro(images=images, labels=labels, step=step, group=sizes.mix_group)
                objective(learner.network, micro).loss.backward()
            except Exception:
                break
            clock("step")
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(clock.seconds()["step"])
    return min(times[1:], default=0.0)


def _loading_seconds(
    recipe: Recipe, data: Data, micro_batch: int, runtime: Runtime
) -> tuple[float, float]:
    """Seconds of one micro-batch in a loader's process, and of its augmentation on the device."""
    transform, samples = loader_transform(recipe), min(micro_batch, SAMPLES)
    started = time.perf_counter()
    loaded = [(transform(data.train.load(index)), 0) for index in range(samples)]
    loading = (time.perf_counter() - started) / samples * micro_batch
    if recipe.augment_on != "device":
        return loading, 0.0
    raw, _ = collate(loaded)
    normalisation = Normalisation.of(recipe.mean, recipe.std, runtime.device)
    started = time.perf_counter()
    augment(raw.to(runtime.device), normalisation, recipe.remode).sum().item()
    return loading, (time.perf_counter() - started) / samples * micro_batch
