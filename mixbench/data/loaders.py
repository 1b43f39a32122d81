"""Loaders whose every draw comes from (seed, epoch, sample), whichever process makes it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mixbench.data.augment import collate
from mixbench.data.masks import misfit
from mixbench.data.objects import MaskAugmentation
from mixbench.data.sources import Data, Source, UnreadableImage, UnreadableMask
from mixbench.data.transforms import eval_transform, loader_transform, train_transform
from mixbench.distributed import World
from mixbench.mix import hashed_seed
from mixbench.recipe import Recipe

Key = tuple[int, int, int]  # epoch, sample, how often the sample came before in this epoch
B = TypeVar("B")
CAUGHT = "Caught "  # how the message of an error in a worker process begins


class TrainSet(Dataset[tuple[Any, ...]]):
    """Augmented samples by key, with their objects where `of_masks` augments them.

    Every draw is seeded from (seed, epoch, sample, repeat), whichever process makes it, and the
    generators are afterwards as they were.
    """

    def __init__(
        self,
        source: Source,
        transform: Callable[[Image.Image], Any],
        seed: int,
        of_masks: MaskAugmentation | None = None,
    ):
        self.source, self.transform, self.seed, self.of_masks = source, transform, seed, of_masks

    def __getitem__(self, key: Key) -> tuple[Any, ...]:
        [sample] = self.__getitems__([key])
        return sample

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Any, ...]]:
        """The samples of a batch; torch's loader asks for them at once."""
        with _restored():  # once a batch: numpy's state alone takes 100 us, a small image 900
            return [self._sample(*key) for key in keys]

    def _sample(self, epoch: int, index: int, repeat: int) -> tuple[Any, ...]:
        image, label = self.source.load(index), self.source.labels[index]
        seed = hashed_seed("augment", self.seed, epoch, index, repeat)
        if self.of_masks is None:
            _seed(seed)
            return self.transform(image), label
        mask = self.source.mask(index) or Image.new("L", image.size)
        wrong = misfit(mask, image.size, self.source.image_name(index))
        if wrong:
            raise UnreadableMask(wrong)
        _seed(seed)
        augmented = self.transform(image)
        _seed(seed)
        return augmented, label, self.of_masks(mask)


@contextmanager
def _restored() -> Iterator[None]:
    """Python's, numpy's and torch's generator of the CPU are afterwards as they were."""
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(pytorch)


def _seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's generator of the CPU."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # the CPU's alone: torch.manual_seed also visits every other device
    torch.default_generator.manual_seed(seed)


class EvalSet(Dataset[tuple[Tensor, int]]):
    """Samples under the recipe's evaluation transform."""

    def __init__(self, source: Source, transform: Callable[[Image.Image], Tensor]):
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.source.load(index)), self.source.labels[index]


class EpochSampler(Sampler[Key]):
    """The keys of one epoch, in an order hashed from (seed, epoch)."""

    def __init__(self, count: int, seed: int):
        self.count, self.seed, self.epoch = count, seed, 0

    def __len__(self) -> int:
        return self.count

    def order(self) -> memoryview[int]:
        """The samples of the epoch, each once, as 8 bytes each."""
        rng = torch.Generator().manual_seed(hashed_seed("order", self.seed, self.epoch))
        return torch.randperm(self.count, generator=rng).numpy().data

    def __iter__(self) -> Iterator[Key]:
        return ((self.epoch, index, 0) for index in self.order())


def copies_of(aug_repeats: int, world: World) -> int:
    """Times that an image comes in an epoch; once with one process, which would mix its copies."""
    return max(aug_repeats, 1) if world.size > 1 else 1


def remark_on_copies(aug_repeats: int, world: World) -> str | None:
    """What a user must know of `aug_repeats` with so many processes; None where nothing."""
    if aug_repeats <= max(world.size, 1):
        return None
    if world.size == 1:
        return (
            f"aug_repeats {aug_repeats} deals the copies of an image to different processes: with "
            "one process no image is repeated"
        )
    return (
        f"aug_repeats {aug_repeats} is above the {world.size} processes: some copies of an image "
        "are mixed with each other, as in DeiT's code"
    )


class MicroBatches(Sampler[list[Key]]):
    """Micro-batches of keys, dealt to the processes in turn.

    A process has number rank, rank + size, ... of the whole stream. With `aug_repeats` an image
    comes so often, each with draws of its own, and its copies are dealt to different processes as
    DeiT deals them: sample by sample, and as many an epoch as without.
    """

    def __init__(self, sampler: EpochSampler, micro_batch: int, world: World, aug_repeats: int = 0):
        self.sampler, self.micro_batch, self.world = sampler, micro_batch, world
        self.copies = copies_of(aug_repeats, world)

    def __iter__(self) -> Iterator[list[Key]]:
        if self.copies > 1:
            keys = self._dealt()
            return (list(islice(keys, self.micro_batch)) for _ in range(len(self)))
        keys = iter(self.sampler)
        stream = (list(islice(keys, self.micro_batch)) for _ in range(self._count))
        return islice(stream, self.world.rank, None, self.world.size)

    def _dealt(self) -> Iterator[Key]:
        """This process's share of the copies: every size-th of them, from its rank on."""
        epoch, order = self.sampler.epoch, self.sampler.order()
        for place in range(self.world.rank, len(order) * self.copies, self.world.size):
            yield epoch, order[place // self.copies], place % self.copies

    def __len__(self) -> int:
        if self.copies > 1:
            return len(self.sampler) // self.world.size // self.micro_batch
        return len(range(self.world.rank, self._count, self.world.size))

    @property
    def _count(self) -> int:
        """Micro-batches of all processes; what does not fill another is dropped."""
        return len(self.sampler) // self.micro_batch


def check_batch(recipe: Recipe, data: Data) -> None:
    """ValueError where the training images do not fill one batch."""
    count = len(data.train.labels)
    if recipe.batch_size > count:
        raise ValueError(
            f"batch_size {recipe.batch_size} is larger than the {count} training images: "
            "lower --batch-size"
        )


def train_loader(
    data: Data,
    recipe: Recipe,
    seed: int,
    micro_batch: int,
    workers: int,
    device: torch.device,
    world: World = World(),
    objects: bool = False,
) -> DataLoader[tuple[Any, ...]]:
    """This process's batches of `micro_batch` augmented images, of the epoch that `set_epoch` says.

    An item is images (B, 3, H, W) float32, or a RawBatch where the device augments, labels (B,)
    int64 and, with `objects`, their masks (B, 1, H, W) uint8. ValueError where the images do not
    fill a batch.
    """
    check_batch(recipe, data)
    if recipe.augment_on == "device" and device.type == "mps":
        raise ValueError(
            "augment_on device needs double precision, which mps lacks: use augment_on loader"
        )
    of_masks = MaskAugmentation(train_transform(recipe)) if objects else None
    return DataLoader(
        TrainSet(data.train, loader_transform(recipe), seed, of_masks),
        batch_sampler=MicroBatches(
            EpochSampler(len(data.train.labels), seed), micro_batch, world, recipe.aug_repeats
        ),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        collate_fn=collate if recipe.augment_on == "device" else None,
    )


def set_epoch(loader: DataLoader[tuple[Any, ...]], epoch: int) -> None:
    """Let the loader of training images go through `epoch` next."""
    assert isinstance(loader.batch_sampler, MicroBatches)
    loader.batch_sampler.sampler.epoch = epoch


def readable(loader: Iterable[B]) -> Iterator[B]:
    """A loader's batches; what goes wrong in a worker process is said in one sentence.

    UnreadableImage where an image or its mask cannot be read, MemoryError and OSError as in this
    process.
    """
    try:
        yield from loader
    except UnreadableImage as error:
        raise type(error)(_last_words(error, type(error))) from None
    except MemoryError:
        raise MemoryError from None
    except (OSError, EOFError) as error:
        if isinstance(error, OSError) and str(error).startswith(CAUGHT):
            raise OSError(_last_words(error, type(error))) from None
        # a process that dies while it hands a batch over closes the connection
        closed = isinstance(error, (ConnectionError, EOFError))
        if not closed or str(error).startswith(CAUGHT) or not getattr(loader, "num_workers", 0):
            raise
        raise _died(error) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or str(error).startswith(CAUGHT):
            raise
        raise _died(error) from None


def _died(error: Exception) -> ChildProcessError:
    """What is said of a loader process that ended on its own."""
    return ChildProcessError(
        f"a loader process died ({(str(error) or type(error).__name__).splitlines()[0]}): lower "
        "--workers, for it may have lacked memory"
    )


def _last_words(error: Exception, kind: type[Exception]) -> str:
    """The message of an error without the traceback that a worker process puts before it."""
    words = (line.partition(f"{kind.__name__}: ")[2] for line in reversed(str(error).splitlines()))
    return next(filter(None, words), str(error))


def eval_loader(
    source: Source, recipe: Recipe, workers: int, device: torch.device, world: World = World()
) -> DataLoader[tuple[Tensor, int]]:
    """This process's images of a source, number rank, rank + size, ..., each once and in order.

    An item is images (B, 3, H, W) float32 and labels (B,) int64.
    """
    return DataLoader(
        EvalSet(source, eval_transform(recipe)),
        sampler=range(world.rank, len(source.labels), world.size),
        batch_size=64 if device.type == "cpu" else 256,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
