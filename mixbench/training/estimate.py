"""How long training will take on this machine, and what memory and disk it needs."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from mixbench.data.memory import free_memory
from mixbench.data.sources import Data
from mixbench.mix import MixStrategy
from mixbench.models.build import recipe_model
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.training.batches import Sizes, fits_in_memory, nearest_group, resolve_sizes
from mixbench.training.trial import Loading, Trial, try_loading, try_strategies

T = TypeVar("T")
GPU_MICRO_BATCH = 128  # images, where finding the largest that fits would take too long
STATES = 3  # files of a state at once: this epoch's, the one before it, one that is being written
ROOM = 0.9  # of the memory that is free; allocators leave gaps, and others take some
PICTURES = 2**20  # bytes of a seed's pictures, tables and page, about


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much training with one seed is, in this process."""

    epochs: int
    steps: int  # of an epoch: changes of the weights
    parts: int  # of a step: micro-batches
    micro_batch: int  # images
    val: int  # images that are evaluated at once
    evaluations: int  # epochs after which they are
    scenes: int = 0  # that a strategy's label error is measured on
    workers: int = 0  # loader processes
    cores: int = 1  # that loading and training share
    threads: int = 1  # of them that training uses

    @classmethod
    def of(cls, recipe: Recipe, data: Data, sizes: Sizes, scenes: int, runtime: Runtime) -> Work:
        """The work of training with a recipe on data."""
        world = runtime.world
        return cls(
            epochs=recipe.total_epochs,
            steps=len(data.train.labels) // recipe.batch_size,
            parts=recipe.batch_size // (sizes.micro_batch * world.size),
            micro_batch=sizes.micro_batch,
            val=len(range(world.rank, len(data.val.labels), world.size)),
            evaluations=math.ceil(recipe.total_epochs / runtime.val_interval),
            scenes=scenes,
            workers=runtime.workers,
            cores=cores(),
            threads=torch.get_num_threads() if runtime.device.type == "cpu" else 1,
        )


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sizes_of(
    recipe: Recipe, runtime: Runtime, fits: Callable[[int], bool] = lambda size: True
) -> Sizes:
    """How the batch is likely to be divided here; ValueError where it cannot be."""
    likely = max(GPU_MICRO_BATCH, recipe.mix_group if isinstance(recipe.mix_group, int) else 0)

    def likely_fits(size: int) -> bool:
        return size <= likely and fits(size)

    return resolve_sizes(recipe, runtime.device, likely_fits, runtime.world.size)


def tried_sizes(recipe: Recipe, num_classes: int, runtime: Runtime) -> Sizes:
    """As `sizes_of`, and a GPU's memory holds it: that is tried, as training will try it.

    Where none fits, as of `sizes_of`: training will say why.
    """
    if runtime.device.type != "cuda" or isinstance(recipe.micro_batch, int):
        return sizes_of(recipe, runtime)
    with torch.random.fork_rng(devices=[]):
        model = recipe_model(recipe, num_classes, 0)
    try:
        return sizes_of(
            recipe, runtime, lambda size: fits_in_memory(model, recipe, size, runtime.device)
        )
    except ValueError:
        return sizes_of(recipe, runtime)


def estimate_seconds(
    strategies: Sequence[MixStrategy], recipe: Recipe, data: Data, runtime: Runtime
) -> float:
    """Seconds that training every strategy with one seed will take here."""
    num_classes = len(data.classes)
    sizes = tried_sizes(recipe, num_classes, runtime)
    trials = try_strategies(strategies, recipe, num_classes, sizes, runtime)
    loading = try_loading(data, recipe, sizes.micro_batch, runtime)
    work = Work.of(recipe, data, sizes, 0, runtime)
    return training_seconds(trials, loading, work) + first_seconds(loading, work)


def training_seconds(trials: Sequence[Trial], loading: Loading, work: Work) -> float:
    """Seconds that training every strategy with one seed takes, evaluation included.

    A strategy that cannot run counts nothing: training will say why.
    """
    good = [trial for trial in trials if trial.failure is None]
    images = work.steps * work.parts * work.micro_batch
    training = work.steps * sum(work.parts * trial.step + trial.update for trial in good)
    training += images * loading.augment
    evaluation = work.val * sum(trial.models * trial.evaluation for trial in good)
    seconds = work.epochs * _together(images * loading.train, training, work)
    seconds += work.evaluations * _together(work.val * loading.val, evaluation, work)
    label_error = work.scenes * sum(trial.evaluation for trial in good)
    return seconds + label_error if good else 0.0


def first_seconds(loading: Loading, work: Work) -> float:
    """Seconds by which the first epoch of all takes longer: its images come for the first time."""
    images = work.steps * work.parts * work.micro_batch
    later = images * loading.train + work.val * loading.val
    first = images * loading.first_train + (work.val + work.scenes) * loading.first_val
    return max(first - later, 0.0) / max(work.workers, 1)


def _together(loading: float, computing: float, work: Work) -> float:
    """Seconds of loading and of computing on what is loaded.

    Worker processes load while the device computes, but on cores that both may need.
    """
    if not work.workers:
        return loading + computing
    shared = (loading + work.threads * computing) / work.cores
    return max(loading / work.workers, computing, shared)


def training_memory(trials: Sequence[Trial], step: int) -> int:
    """Bytes of strategies that train side by side, and `step` bytes of one micro-batch on its way.

    The strategies take turns: each has its weights, gradients, optimizer's state and average for
    good, and one at a time has activations.
    """
    good = [trial for trial in trials if trial.failure is None]
    return sum(trial.held for trial in good) + step if good else 0


def image_bytes(
    trials: Sequence[Trial], sizes: Sizes, recipe: Recipe, num_classes: int, device: torch.device
) -> int:
    """Bytes that an image of a micro-batch takes on its way, in the dearest strategy."""
    measured = max((trial.on_way for trial in trials), default=0)
    if device.type == "cuda":
        return -(-measured // sizes.micro_batch)
    passes = max((trial.passes for trial in trials), default=1)
    return passes * activation_bytes(recipe, num_classes, 1)


@dataclass(frozen=True, kw_only=True)
class Room:
    """The memory that training has, and what it takes of it."""

    free: int  # bytes that this process may still use on its device
    held: int  # bytes of a strategy for good, the dearest
    image: int  # bytes of an image on its way

    def strategies(self, micro_batch: int) -> int:
        """How many strategies fit side by side with micro-batches so large."""
        left = int(ROOM * self.free) - micro_batch * self.image
        return max(left // self.held, 0)


def room_of(trials: Sequence[Trial], image: int, device: torch.device) -> Room | None:
    """The room that strategies like those of the trials have now.

    None where no trial could run, and where the system does not say what is free, as Windows.
    """
    held = max((trial.held for trial in trials), default=0)
    if not held:
        return None
    try:
        room = Room(free=free_on(device), held=held, image=image)
        if room.strategies(1) >= len(trials):
            return room
        gc.collect()  # what the trials left; it takes half a second
        return replace(room, free=free_on(device))
    except ValueError:
        return None


def sizes_in(room: Room, recipe: Recipe, runtime: Runtime) -> Sizes:
    """How the batch is likely to be divided in a room; as of `sizes_of` where it is too small."""

    def fits(size: int) -> bool:
        return room.held + 5 * size * room.image // 4 <= room.free  # as `fits_in_memory` tries it

    try:
        return resolve_sizes(recipe, runtime.device, fits, runtime.world.size)
    except ValueError:  # training will find out
        return sizes_of(recipe, runtime)


def free_on(device: torch.device) -> int:
    """Bytes that this process may still use on its device; ValueError where nobody knows."""
    if device.type == "cuda":
        # what torch keeps for later is as good as free
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return free_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def in_groups(things: Sequence[T], size: int) -> list[Sequence[T]]:
    """Things in order, in groups of `size` of which the last may be smaller."""
    return [things[first : first + size] for first in range(0, len(things), size)]


def training_disk(trials: Sequence[Trial], recipe: Recipe, seeds: int) -> int:
    """Bytes in the run's directory at most: weights of all, and the state of the seed in work."""
    good = [trial for trial in trials if trial.failure is None]
    copies = 2 if recipe.headline == "ema" else 1
    kept = seeds * (copies * sum(trial.weights for trial in good) + PICTURES)
    state = sum(trial.held - trial.weights for trial in good)  # without the gradients
    return kept + STATES * state


def resident_memory() -> int:
    """Bytes that this process takes now; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) * 1024


def activation_bytes(
    recipe: Recipe, num_classes: int, images: int, *, amp: bool | None = None
) -> int:
    """Bytes that a step of so many images takes on a CPU, weights apart; amp None is the recipe's.

    torch's generators stay as they are.
    """
    recipe = recipe if amp is None else replace(recipe, amp=amp)
    with torch.random.fork_rng(devices=[]):
        kept = kept_bytes(recipe_model(recipe, num_classes, 0), recipe)
    return images * kept * 5 // 4  # the backward pass adds its own


def remark_on_memory(recipe: Recipe, num_classes: int, runtime: Runtime) -> str | None:
    """That a CPU's memory will not hold a mixing group, and one that it will; None where it does.

    On a GPU the trial for the micro-batch finds out.
    """
    if runtime.device.type != "cpu" or not isinstance(recipe.mix_group, int):
        return None
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", runtime.world.size))  # on this machine
    size = resolve_sizes(recipe, runtime.device, processes=runtime.world.size).micro_batch
    image = processes * activation_bytes(recipe, num_classes, 1)
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
