"""How long training will take on this machine, and whether its memory holds a mixing group."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mixbench.data.augment import augment, collate
from mixbench.data.memory import free_memory
from mixbench.data.normalisation import Normalisation
from mixbench.data.sources import Data
from mixbench.data.transforms import loader_transform
from mixbench.mix import MixStrategy
from mixbench.models.build import recipe_model
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.training.batches import Micro, Sizes, nearest_group, resolve_sizes
from mixbench.training.clock import Clock
from mixbench.training.learner import prepare

GPU_MICRO_BATCH = 128  # images, where finding the largest that fits would take too long
CPU_TRIAL = 32  # images at most; a large mixing group would take minutes
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
    """Seconds of one micro-batch of a strategy, 0 where it cannot run.

    On a CPU a large micro-batch takes as often as long as a trial as it is larger.
    """
    device, side = runtime.device, recipe.image_size
    count, group = _trial(sizes, runtime)
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, side, side, generator=rng).to(device)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    [learner] = prepare([strategy], recipe, num_classes, dataclasses.replace(runtime, seed=0), 1)
    objective = dataclasses.replace(learner.objective, strategy=strategy)
    times = []
    with learner.network:
        for step in range(TRIALS):
            clock = Clock(device)
            try:
                micro = Micro(images=images, labels=labels, step=step, group=group)
                objective(learner.network, micro).loss.backward()
            except Exception:
                break
            clock("step")
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(clock.seconds()["step"])
    return min(times[1:], default=0.0) * sizes.micro_batch / count


def _trial(sizes: Sizes, runtime: Runtime) -> tuple[int, int]:
    """Images of a trial, and of its mixing groups."""
    if runtime.device.type != "cpu" or sizes.micro_batch <= CPU_TRIAL:
        return sizes.micro_batch, sizes.mix_group
    group = min(sizes.mix_group, CPU_TRIAL)
    return CPU_TRIAL // group * group, group


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


def remark_on_memory(recipe: Recipe, num_classes: int, runtime: Runtime) -> str | None:
    """That a CPU's memory will not hold a mixing group, and one that it will; None where it does.

    On a GPU the trial for the micro-batch finds out.
    """
    if runtime.device.type != "cpu" or not isinstance(recipe.mix_group, int):
        return None
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", runtime.world.size))  # on this machine
    size = resolve_sizes(recipe, runtime.device, processes=runtime.world.size).micro_batch
    kept = kept_bytes(recipe_model(recipe, num_classes, 0), recipe)
    image = processes * kept * 5 // 4  # the backward pass adds its own
    free = free_memory()
    if size * image <= free:
        return None
    group = nearest_group(recipe.batch_size // runtime.world.size, free // image)
    return (
        f"memory may not suffice: {size} images at once take about {size * image / 2**30:.1f} GiB, "
        f"and {free / 2**30:.1f} GiB are free: take --mix-group {group}"
    )


def kept_bytes(model: nn.Module, recipe: Recipe) -> int:
    """Bytes that a forward pass keeps of each image for the backward pass."""
    side, count = recipe.image_size, 2
    kept: dict[int, int] = {}  # bytes of each storage

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=recipe.amp):
        # in use until the end: no storage may take another's place
        loss = model.train()(torch.zeros(count, 3, side, side)).sum()
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    del loss
    return sum(kept.values()) // count
