"""Data sets, kept decoded where asked, DeiT's augmentation drawn anew from (seed, epoch, sample) for each image, and loaders."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from mixbench.augment import Draw, collate
from mixbench.distributed import World
from mixbench.mix import hashed_seed
from mixbench.plan import check_splits
from mixbench.recipe import Recipe

TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashionmnist": "FashionMNIST"}
SCENES_TRAIN, SCENES_VAL = 3000, 1000
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp", ".tif", ".tiff")
Key = tuple[int, int, int]  # epoch, sample, how often the sample came before in this epoch


class Source:
    """PIL images with labels; `fingerprint` describes them for the recipe's hash."""

    labels: list[int]
    fingerprint: str

    def load(self, index: int) -> Image.Image:
        raise NotImplementedError

    def size(self, index: int) -> tuple[int, int]:
        """Width and height."""
        return self.load(index).size


class FolderSource(Source):
    """Photographs listed from one split of an image folder."""

    def __init__(self, samples: Sequence[tuple[Path, int]], root: Path):
        self.paths = [path for path, _ in samples]
        self.labels = [label for _, label in samples]
        listing = "\n".join(
            f"{path.relative_to(root).as_posix()} {path.stat().st_size}" for path in self.paths
        )
        self.fingerprint = hashlib.sha256(listing.encode()).hexdigest()[:16]

    def load(self, index: int) -> Image.Image:
        return self._read(index, lambda image: image.convert("RGB"))

    def size(self, index: int) -> tuple[int, int]:
        return self._read(index, lambda image: image.size)  # its header alone

    def _read(self, index: int, what: Callable[[Image.Image], Any]) -> Any:
        try:
            with Image.open(self.paths[index]) as image:
                return what(image)
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableImage(f"cannot read image {self.paths[index]}: {error}") from None


class UnreadableImage(ValueError):
    """A file of the data set that cannot be decoded."""


class ArraySource(Source):
    """A torchvision data set that is held in memory."""

    def __init__(self, dataset: Any, name: str):
        self.dataset = dataset
        self.labels = [int(label) for label in dataset.targets]
        self.fingerprint = f"{name}-{len(self.labels)}"

    def load(self, index: int) -> Image.Image:
        return self.dataset[index][0].convert("RGB")


@cache
def _scene(stream: int, index: int, size: int) -> np.ndarray:
    from mixbench.scenes import draw_scene

    return draw_scene(stream, index, size).image


class SceneSource(Source):
    """Drawn objects, rendered on demand and kept."""

    def __init__(self, stream: str, count: int, size: int):
        from mixbench.scenes import CLASSES

        self.stream, self.side = hashed_seed("scenes", stream), size
        self.labels = [index % len(CLASSES) for index in range(count)]
        self.fingerprint = f"scenes-{stream}-{count}-{size}"

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(_scene(self.stream, index, self.side))


@dataclass(frozen=True)
class Subset(Source):
    """Some samples of another source."""

    source: Source
    indices: tuple[int, ...]

    @cached_property
    def labels(self) -> list[int]:  # type: ignore[override]
        return [self.source.labels[i] for i in self.indices]

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return f"{self.source.fingerprint}[{len(self.indices)}]"

    def load(self, index: int) -> Image.Image:
        return self.source.load(self.indices[index])

    def size(self, index: int) -> tuple[int, int]:
        return self.source.size(self.indices[index])


class MemorySource(Source):
    """Another source's images, decoded once: one uint8 tensor in shared memory that every loader process reads, each at its own size."""

    def __init__(self, source: Source, sizes: Sequence[tuple[int, int]], pool: ThreadPoolExecutor):
        self.labels, self.fingerprint, self.sizes = source.labels, source.fingerprint, sizes
        self.starts = [0, *np.cumsum([3 * width * height for width, height in sizes]).tolist()]
        self.levels = torch.empty(self.starts[-1], dtype=torch.uint8).share_memory_()

        def keep(index: int) -> None:
            self._pixels(index)[:] = np.asarray(source.load(index))

        for _ in pool.map(keep, range(len(sizes))):  # Pillow decodes without the interpreter's lock
            pass

    def _pixels(self, index: int) -> np.ndarray:
        width, height = self.sizes[index]
        return (
            self.levels[self.starts[index] : self.starts[index + 1]]
            .numpy()
            .reshape(height, width, 3)
        )

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(self._pixels(index))

    def size(self, index: int) -> tuple[int, int]:
        return self.sizes[index]


def free_memory() -> int:
    """Bytes that this process may still put into shared memory: the least of the machine's, its container's and /dev/shm's."""
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    else:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        found.append(int(limit.read_text()) - int(used.read_text()))
    if Path("/dev/shm").is_dir():
        found.append(shutil.disk_usage("/dev/shm").free)
    return min(found)


def keep_in_memory(data: Data, say: Callable[[str], None], processes: int = 1) -> Data:
    """`data` with every image decoded now and kept in memory, the same pixels; ValueError where it would not fit.

    Each of `processes` on this machine keeps a copy of its own.
    """
    splits = data.train, data.val
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        sizes = [list(pool.map(split.size, range(len(split.labels)))) for split in splits]
        count = sum(map(len, sizes))
        needed = processes * sum(3 * width * height for split in sizes for width, height in split)
        free = free_memory()
        copies = f", {processes} copies" if processes > 1 else ""
        amount = f"{count:,} images of {needed / processes / count / 1024:,.0f} KiB on average{copies}, {needed / 2**20:,.1f} MiB"
        if needed > free:
            raise ValueError(
                f"--cache ram needs {amount}, and {free / 2**20:,.1f} MiB are free: leave it out, or lower --limit-train"
            )
        say(f"keeping {amount}, in memory: {free / 2**20:,.1f} MiB are free")
        train, val = (
            MemorySource(split, size, pool) for split, size in zip(splits, sizes, strict=True)
        )
    return replace(data, train=train, val=val)


@dataclass(frozen=True)
class Data:
    """A training and a validation split with the names of their classes."""

    name: str
    train: Source
    val: Source
    classes: tuple[str, ...]


def balanced(source: Source, limit: int | None) -> Source:
    """A class-balanced subset of at most `limit` samples, the same for the same source."""
    if limit is None or limit >= len(source.labels):
        return source
    order = random.Random(hashed_seed("subset", len(source.labels))).sample(
        range(len(source.labels)), len(source.labels)
    )
    taken: dict[int, int] = {}
    ranked = []
    for index in order:  # round robin over classes
        label = source.labels[index]
        taken[label] = taken.get(label, 0) + 1
        ranked.append((taken[label], label, index))
    return Subset(source, tuple(sorted(index for _, _, index in sorted(ranked)[:limit])))


def open_data(
    *,
    data: Path | None = None,
    dataset: str | None = None,
    download: bool = False,
    image_size: int = 32,
    limit_train: int | None = None,
    limit_val: int | None = None,
) -> Data:
    """The data set that was asked for: a folder, one of torchvision's, or the drawn scenes; ValueError names what is wrong."""
    if data is not None:
        opened = open_folder(data)
    elif dataset is not None and dataset != "scenes":
        opened = _open_torchvision(dataset, download)
    else:
        from mixbench.scenes import CLASSES

        opened = Data(
            "scenes",
            SceneSource("train", SCENES_TRAIN, image_size),
            SceneSource("val", SCENES_VAL, image_size),
            tuple(CLASSES),
        )
    return replace(
        opened, train=balanced(opened.train, limit_train), val=balanced(opened.val, limit_val)
    )


def check_folder(root: Path) -> tuple[str, ...]:
    """The class names of root/train and root/val; ValueError where a split is missing or the classes differ."""
    check_splits(root)
    names = {}
    for split in ("train", "val"):
        names[split] = {path.name for path in (root / split).iterdir() if path.is_dir()}
        if not names[split]:
            raise ValueError(
                f"{root / split} has no class folders: put the images in {split}/<class>/"
            )
    if names["train"] != names["val"]:
        one = sorted(names["train"] ^ names["val"])[0]
        where = "train" if one in names["train"] else "val"
        raise ValueError(
            f"train/ and val/ of {root} hold different classes: {one!r} is in {where}/ alone"
        )
    return tuple(sorted(names["train"]))


def open_folder(root: Path) -> Data:
    """An image folder with train/<class>/ and val/<class>/, ImageNet's layout; ValueError for a class without images."""
    classes = check_folder(root)
    splits = {}
    for split in ("train", "val"):
        samples: list[tuple[Path, int]] = []
        for label, name in enumerate(classes):
            files = sorted(
                p for p in (root / split / name).rglob("*") if p.suffix.lower() in EXTENSIONS
            )
            if not files:
                raise ValueError(
                    f"class folder {root / split / name} holds no images ({', '.join(EXTENSIONS)})"
                )
            samples += [(path, label) for path in files]
        splits[split] = FolderSource(samples, root)
    return Data(root.resolve().name, splits["train"], splits["val"], classes)


def _open_torchvision(name: str, download: bool) -> Data:
    import torchvision

    root = Path.home() / ".cache" / "mixbench"
    kind = getattr(torchvision.datasets, TORCHVISION[name])
    try:
        train, val = (kind(root, train=split, download=download) for split in (True, False))
    except RuntimeError as error:
        raise ValueError(f"{name} is not in {root}: add --download to fetch it ({error})") from None
    return Data(
        name,
        ArraySource(train, f"{name}-train"),
        ArraySource(val, f"{name}-val"),
        tuple(train.classes),
    )


def train_transform(recipe: Recipe) -> Any:
    """DeiT's training augmentation by timm, PIL image -> normalised (3, H, W) float32."""
    from timm.data import create_transform

    options: dict[str, Any] = dict(
        is_training=True,
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        color_jitter=recipe.color_jitter if recipe.aa else 0.0,
        auto_augment=recipe.aa,
        interpolation=recipe.train_interpolation,
        mean=recipe.mean,
        std=recipe.std,
        re_prob=recipe.reprob,
        re_mode=recipe.remode,
        re_count=recipe.recount,
    )
    try:
        transform = create_transform(recipe.image_size, **options)
    except (AssertionError, KeyError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"aa {recipe.aa!r} is not a policy of timm ({reason}): write rand-m9-mstd0.5-inc1, or null"
        ) from None
    _keep_one_bit(transform)
    return transform


def loader_transform(recipe: Recipe) -> Any:
    """What the loader does to a training image: all of it, or the crop and the draws where the device does the rest."""
    transform = train_transform(recipe)
    return Draw(transform) if recipe.augment_on == "device" else transform


def _keep_one_bit(transform: Any) -> None:
    """Let posterize keep at least one bit: timm's strongest level asks for none, which Pillow refuses."""
    for step in transform.transforms:
        for op in getattr(step, "ops", ()):
            if getattr(op, "name", "").startswith("Posterize"):
                op.level_fn = _AtLeastOne(op.level_fn)


@dataclass(frozen=True)
class _AtLeastOne:
    level_fn: Any

    def __call__(self, level: float, hparams: Any) -> tuple[int]:
        return (max(self.level_fn(level, hparams)[0], 1),)


def eval_transform(recipe: Recipe) -> Any:
    """Resize to image_size / crop_pct, centre crop and normalise, PIL image -> (3, H, W) float32."""
    from timm.data import create_transform

    return create_transform(
        recipe.image_size,
        interpolation=recipe.interpolation,
        mean=recipe.mean,
        std=recipe.std,
        crop_pct=recipe.crop_pct,
    )


class TrainSet(Dataset):
    """Augmented samples by key; every draw is seeded from (seed, epoch, sample, repeat), whichever process makes it."""

    def __init__(self, source: Source, transform: Any, seed: int):
        self.source, self.transform, self.seed = source, transform, seed

    def __getitem__(self, key: Key) -> tuple[Any, int]:
        epoch, index, repeat = key
        image = self.source.load(index)
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        seed = hashed_seed("augment", self.seed, epoch, index, repeat)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(
            seed
        )  # the CPU's alone: torch.manual_seed also visits every other device
        try:
            return self.transform(image), self.source.labels[index]
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


class EvalSet(Dataset):
    """Samples under the recipe's evaluation transform."""

    def __init__(self, source: Source, transform: Any):
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.source.load(index)), self.source.labels[index]


class EpochSampler(Sampler[Key]):
    """The keys of one epoch, in an order hashed from (seed, epoch); timm's sampler repeats each image `aug_repeats` times."""

    def __init__(self, count: int, seed: int, aug_repeats: int = 0):
        self.count, self.seed, self.aug_repeats, self.epoch = count, seed, aug_repeats, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Key]:
        if self.aug_repeats:
            from timm.data.distributed_sampler import RepeatAugSampler

            sampler = RepeatAugSampler(
                range(self.count),
                num_replicas=1,
                rank=0,
                num_repeats=self.aug_repeats,
                selected_round=0,
            )
            sampler.epoch = hashed_seed(
                "order", self.seed, self.epoch
            )  # it seeds its generator with the epoch
            order = [int(i) for i in sampler]
        else:
            rng = torch.Generator().manual_seed(hashed_seed("order", self.seed, self.epoch))
            order = torch.randperm(self.count, generator=rng).tolist()
        seen: dict[int, int] = {}
        for index in order:
            repeat = seen.get(index, 0)
            seen[index] = repeat + 1
            yield self.epoch, index, repeat


class MicroBatches(Sampler[list[Key]]):
    """Micro-batches of keys, dealt to the processes in turn: number rank, rank + size, ... of the whole stream."""

    def __init__(self, sampler: EpochSampler, micro_batch: int, world: World):
        self.sampler, self.micro_batch, self.world = sampler, micro_batch, world

    def __iter__(self) -> Iterator[list[Key]]:
        stream: Any = BatchSampler(self.sampler, self.micro_batch, drop_last=True)  # type: ignore[arg-type]
        return islice(iter(stream), self.world.rank, None, self.world.size)

    def __len__(self) -> int:
        return len(range(self.world.rank, len(self.sampler) // self.micro_batch, self.world.size))


def check_batch(recipe: Recipe, data: Data) -> None:
    """ValueError where the training images do not fill one batch."""
    count = len(data.train.labels)
    if recipe.batch_size > count:
        raise ValueError(
            f"batch_size {recipe.batch_size} is larger than the {count} training images: lower --batch-size"
        )


def train_loader(
    data: Data,
    recipe: Recipe,
    seed: int,
    micro_batch: int,
    workers: int,
    device: torch.device,
    world: World = World(),  # noqa: B008
) -> DataLoader:
    """Batches of `micro_batch` augmented images; set `loader.batch_sampler.sampler.epoch` before each epoch."""
    check_batch(recipe, data)
    if recipe.augment_on == "device" and device.type == "mps":
        raise ValueError(
            "augment_on device needs double precision, which mps lacks: use augment_on loader"
        )
    return DataLoader(
        TrainSet(data.train, loader_transform(recipe), seed),
        batch_sampler=MicroBatches(
            EpochSampler(len(data.train.labels), seed, recipe.aug_repeats), micro_batch, world
        ),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        collate_fn=collate if recipe.augment_on == "device" else None,
    )


def eval_loader(
    data: Data, recipe: Recipe, workers: int, device: torch.device, world: World = World()
) -> DataLoader:  # noqa: B008
    """This process's validation images, rank, rank + size, ..., each once and in order."""
    return DataLoader(
        EvalSet(data.val, eval_transform(recipe)),
        sampler=range(world.rank, len(data.val.labels), world.size),
        batch_size=64 if device.type == "cpu" else 256,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
