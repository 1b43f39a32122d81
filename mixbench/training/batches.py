"""The micro-batches of an epoch, and how large they are."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor, nn

from mixbench.data.augment import RawBatch, augment
from mixbench.data.loaders import copies_of, readable, set_epoch, train_loader
from mixbench.data.normalisation import Normalisation
from mixbench.data.sources import Data
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.strategies.none import NoMix
from mixbench.training.clock import Waiting

CPU_MICRO_BATCH = 16  # images at most where the recipe says `auto`


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Micro:
    """A part of one step's batch: what goes through the network at once."""

    images: Tensor  # (B, C, H, W) normalised
    labels: Tensor  # (B,)
    objects: Tensor | None = None  # (B, 1, H, W) float32, as MixContext's; None where nobody asks
    step: int  # of the whole run, from 0
    part: int = 0  # of the step, from 0
    parts: int = 1
    shard: int = 0  # number of its first mixing group in the step's batch
    group: int | None = None  # images of a mixing group, a divisor of B; None: all of them
    progress: float = 0.0  # share of training done

    @property
    def first(self) -> bool:
        """Whether the step begins with it."""
        return self.part == 0

    @property
    def last(self) -> bool:
        """Whether the weights change after it."""
        return self.part == self.parts - 1

    def groups(self) -> list[Micro]:
        """Its mixing groups in order, each the images that one call of `mix` gets."""
        size = self.group or len(self.images)
        if size == len(self.images):
            return [self]
        images, labels = self.images.split(size), self.labels.split(size)
        objects = [None] * len(images) if self.objects is None else self.objects.split(size)
        return [
            replace(
                self,
                images=images[number],
                labels=labels[number],
                objects=objects[number],
                shard=self.shard + number,
                group=None,
            )
            for number in range(len(images))
        ]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How a step's batch is divided."""

    micro_batch: int  # images that go through the network at once
    mix_group: int  # images of it that share one draw of the mixing, a divisor of it


class Batches:
    """This process's micro-batches, epoch by epoch, on the device; it knows how long they took."""

    def __init__(
        self, data: Data, recipe: Recipe, sizes: Sizes, runtime: Runtime, objects: bool = False
    ):
        self.sizes = sizes
        # An epoch. Differs: with accumulation timm also updates from what does not fill a batch
        self.steps = len(data.train.labels) // recipe.batch_size
        self.parts = recipe.batch_size // (sizes.micro_batch * runtime.world.size)
        self.waiting = Waiting()
        self._recipe, self._runtime = recipe, runtime
        self._normalisation = Normalisation.of(recipe.mean, recipe.std, runtime.device)
        self._loader = train_loader(
            data,
            recipe,
            runtime.seed,
            sizes.micro_batch,
            runtime.workers,
            runtime.device,
            runtime.world,
            objects,
        )

    def of(self, epoch: int) -> Iterator[Micro]:
        """The micro-batches of an epoch in order; `runtime.tick` hears of each step's end."""
        steps_in_all = self.steps * self._recipe.total_epochs
        set_epoch(self._loader, epoch)
        began = time.perf_counter()
        for number, (images, labels, *masks) in enumerate(self._loaded()):
            step, part = epoch * self.steps + number // self.parts, number % self.parts
            micro = Micro(
                images=images,
                labels=labels,
                objects=masks[0].float() if masks else None,
                step=step,
                part=part,
                parts=self.parts,
                shard=self._first_group(part),
                group=self.sizes.mix_group,
                progress=step / steps_in_all,
            )
            yield micro
            if micro.last:
                self._runtime.tick(step + 1, steps_in_all)
        self.waiting.total += time.perf_counter() - began

    def _first_group(self, part: int) -> int:
        """The number, in the step's batch, of the first mixing group of a part.

        It does not depend on the micro-batch: processes take micro-batches in turn, but copies of
        images are dealt one by one, and then each process numbers its groups on end.
        """
        world, groups = self._runtime.world, self.sizes.micro_batch // self.sizes.mix_group
        if copies_of(self._recipe.aug_repeats, world) > 1:
            return (world.rank * self.parts + part) * groups
        return (part * world.size + world.rank) * groups

    def _loaded(self) -> Iterator[tuple[Tensor, ...]]:
        device = self._runtime.device
        started = time.perf_counter()
        for batch in islice(readable(self._loader), self.steps * self.parts):
            self.waiting.add(time.perf_counter() - started)
            images, *others = (part.to(device, non_blocking=True) for part in batch)
            if isinstance(images, RawBatch):
                images = augment(images, self._normalisation, self._recipe.remode)
            yield images, *others
            self.waiting.mark(device)
            started = time.perf_counter()


def resolve_sizes(
    recipe: Recipe,
    device: torch.device,
    fits: Callable[[int], bool] | None = None,
    processes: int = 1,
) -> Sizes:
    """The micro-batch, a divisor of each process's part of the batch, and the mixing group.

    The recipe's micro-batch is an upper bound; where it is `auto`, the bound is the mixing group on
    a CPU (16 where that is `auto` as well) and what `fits` on a GPU. A group of one image would mix
    nothing, so the micro-batch has two images or more where the part has, and with `auto` an even
    number where that can be: the middle row of an odd group is its own partner. ValueError where
    the processes cannot share the batch so.
    """
    share, rest = divmod(recipe.batch_size, processes)
    if rest:
        raise ValueError(
            f"batch_size {recipe.batch_size} cannot be shared by {processes} processes: choose a "
            f"multiple of {processes}"
        )
    if isinstance(recipe.mix_group, int):
        return Sizes(
            micro_batch=_micro_of_groups(recipe, recipe.mix_group, share, device, fits),
            mix_group=recipe.mix_group,
        )
    size = _micro_of_any_group(recipe, share, device, fits)
    return Sizes(micro_batch=size, mix_group=size)


def _micro_of_groups(
    recipe: Recipe,
    group: int,
    share: int,
    device: torch.device,
    fits: Callable[[int], bool] | None,
) -> int:
    """The micro-batch of whole mixing groups of a given size."""
    sizes = [size for size in _divisors(share) if size % group == 0]
    if not sizes:
        raise ValueError(
            f"mix_group {group} must divide the {share} images of a batch that each process gets: "
            f"take --mix-group {nearest_group(share, group)}, or --mix-group auto"
        )
    if isinstance(recipe.micro_batch, int):
        sizes = [size for size in sizes if size <= recipe.micro_batch]
        if not sizes:
            raise ValueError(
                f"micro_batch {recipe.micro_batch} cannot hold a mixing group of {group} images: "
                f"take --mix-group {nearest_group(share, recipe.micro_batch)}, or a larger "
                "--micro-batch"
            )
        return sizes[0]
    if device.type != "cuda":
        return group
    assert fits is not None
    for size in sizes:
        if fits(size):
            return size
    smaller = next((size for size in _divisors(share) if 1 < size < group and fits(size)), None)
    way_out = f"take --mix-group {smaller}" if smaller else "take a smaller model or image_size"
    raise ValueError(f"a mixing group of {group} images does not fit on {device}: {way_out}")


def _micro_of_any_group(
    recipe: Recipe, share: int, device: torch.device, fits: Callable[[int], bool] | None
) -> int:
    """The micro-batch that is its own mixing group."""
    if isinstance(recipe.micro_batch, int):
        return next(size for size in _divisors(share) if size <= recipe.micro_batch)
    sizes = [size for size in _divisors(share) if size > 1] or [1]
    sizes.sort(key=lambda size: size % 2)  # even ones first, largest first among them
    if device.type != "cuda":
        return next((size for size in sizes if size <= CPU_MICRO_BATCH), min(sizes))
    assert fits is not None
    return next((size for size in sizes if fits(size)), min(sizes))


def _divisors(share: int) -> list[int]:
    """The divisors of a number, largest first."""
    return [size for size in range(share, 0, -1) if share % size == 0]


def nearest_group(share: int, wanted: int) -> int | str:
    """The largest group of at most `wanted` images that divides a share; `auto` without one."""
    return next((size for size in _divisors(share) if 1 < size <= wanted), "auto")


def check_groups(strategies: Sequence[MixStrategy], recipe: Recipe, sizes: Sizes) -> None:
    """ValueError where a strategy mixes and its groups are of one image, which mix nothing."""
    if sizes.mix_group > 1 or all(isinstance(strategy, NoMix) for strategy in strategies):
        return
    raise ValueError(
        f"a mixing group of one image mixes nothing: micro_batch {recipe.micro_batch} and "
        f"batch_size {recipe.batch_size} leave groups of 1; take --micro-batch auto and an even "
        "--batch-size, of two images or more for each process"
    )


def check_division(
    strategies: Sequence[MixStrategy], recipe: Recipe, device: torch.device, processes: int = 1
) -> None:
    """ValueError where the batch cannot be divided so that strategies mix, whatever fits."""
    check_groups(strategies, recipe, resolve_sizes(recipe, device, lambda size: True, processes))


def agreed_sizes(model: nn.Module, recipe: Recipe, runtime: Runtime) -> Sizes:
    """The sizes that fit everywhere, the same in all processes; ValueError as `resolve_sizes`."""
    device, world = runtime.device, runtime.world
    sizes, trouble = Sizes(micro_batch=0, mix_group=0), None
    try:
        sizes = resolve_sizes(
            recipe, device, lambda size: fits_in_memory(model, recipe, size, device), world.size
        )
    except ValueError as error:  # a mixing group may fit on some of the devices alone
        trouble = str(error)
    trouble = world.agree(trouble)
    if trouble is not None:
        raise ValueError(trouble)
    return Sizes(
        micro_batch=int(world.lowest(torch.tensor(sizes.micro_batch, device=device))),
        mix_group=int(world.lowest(torch.tensor(sizes.mix_group, device=device))),
    )


def fits_in_memory(model: nn.Module, recipe: Recipe, size: int, device: torch.device) -> bool:
    """Whether a forward and backward pass of a quarter more than `size` images fits on the device.

    The model stays as it is, wherever it is.
    """
    trial = copy.deepcopy(model).train()
    try:
        trial.to(device)
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
