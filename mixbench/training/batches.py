"""The micro-batches of an epoch, and how large they are."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from mixbench.data.augment import RawBatch, augment
from mixbench.data.loaders import readable, set_epoch, train_loader
from mixbench.data.normalisation import Normalisation
from mixbench.data.sources import Data
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.training.clock import Waiting

CPU_MICRO_BATCH = 16  # images at most where the recipe says `auto`


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Micro:
    """A part of one step's batch: what goes through the network at once."""

    images: Tensor  # (B, C, H, W) normalised
    labels: Tensor  # (B,)
    step: int  # of the whole run, from 0
    part: int = 0  # of the step, from 0
    parts: int = 1
    shard: int = 0  # the mixing group's number in the step's batch
    progress: float = 0.0  # share of training done

    @property
    def first(self) -> bool:
        """Whether the step begins with it."""
        return self.part == 0

    @property
    def last(self) -> bool:
        """Whether the weights change after it."""
        return self.part == self.parts - 1


class Batches:
    """This process's micro-batches, epoch by epoch, on the device; it knows how long they took."""

    def __init__(self, data: Data, recipe: Recipe, micro_batch: int, runtime: Runtime):
        self.micro_batch = micro_batch
        self.steps = len(data.train.labels) // recipe.batch_size  # an epoch
        self.parts = recipe.batch_size // (micro_batch * runtime.world.size)
        self.waiting = Waiting()
        self._recipe, self._runtime = recipe, runtime
        self._normalisation = Normalisation.of(recipe.mean, recipe.std, runtime.device)
        self._loader = train_loader(
            data, recipe, runtime.seed, micro_batch, runtime.workers, runtime.device, runtime.world
        )

    def of(self, epoch: int) -> Iterator[Micro]:
        """The micro-batches of an epoch in order; `runtime.tick` hears of each step's end."""
        world, steps_in_all = self._runtime.world, self.steps * self._recipe.total_epochs
        set_epoch(self._loader, epoch)
        began = time.perf_counter()
        for number, (images, labels) in enumerate(self._loaded()):
            step, part = epoch * self.steps + number // self.parts, number % self.parts
            micro = Micro(
                images=images,
                labels=labels,
                step=step,
                part=part,
                parts=self.parts,
                shard=part * world.size + world.rank,
                progress=step / steps_in_all,
            )
            yield micro
            if micro.last:
                self._runtime.tick(step + 1, steps_in_all)
        self.waiting.total += time.perf_counter() - began

    def _loaded(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = self._runtime.device
        started = time.perf_counter()
        for images, labels in islice(readable(self._loader), self.steps * self.parts):
            self.waiting.add(time.perf_counter() - started)
            images = images.to(device, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            if isinstance(images, RawBatch):
                images = augment(images, self._normalisation, self._recipe.remode)
            yield images, labels
            self.waiting.mark(device)
            started = time.perf_counter()


def resolve_micro_batch(
    recipe: Recipe,
    device: torch.device,
    fits: Callable[[int], bool] | None = None,
    processes: int = 1,
) -> int:
    """The micro-batch that divides each process's part of the recipe's batch.

    As given or its largest divisor that fits the part, at most 16 on a CPU, the largest that `fits`
    on a GPU; ValueError where the processes cannot share the batch.
    """
    share, rest = divmod(recipe.batch_size, processes)
    if rest:
        raise ValueError(
            f"batch_size {recipe.batch_size} cannot be shared by {processes} processes: choose a "
            f"multiple of {processes}"
        )
    if isinstance(recipe.micro_batch, int):
        return math.gcd(share, recipe.micro_batch)
    sizes = [size for size in range(share, 0, -1) if share % size == 0]
    if device.type != "cuda":
        return next(size for size in sizes if size <= CPU_MICRO_BATCH)
    assert fits is not None
    return next((size for size in sizes if fits(size)), 1)


def agreed_micro_batch(model: nn.Module, recipe: Recipe, runtime: Runtime) -> int:
    """The micro-batch that fits everywhere, the same in all processes."""
    device, world = runtime.device, runtime.world
    micro_batch = resolve_micro_batch(
        recipe, device, lambda size: fits_in_memory(model, recipe, size, device), world.size
    )
    return int(world.lowest(torch.tensor(micro_batch, device=device)))


def fits_in_memory(model: nn.Module, recipe: Recipe, size: int, device: torch.device) -> bool:
    """Whether a forward and backward pass of a quarter more than `size` images fits on the device.

    The model stays as it is.
    """
    trial = copy.deepcopy(model).train()
    try:
        side = recipe.image_size
        images = torch.zeros(-(-5 * size // 4), 3, side, side, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.amp):
            trial(images).float().sum().backward()
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        del trial
        if device.type == "cuda":
            torch.cuda.empty_cache()
