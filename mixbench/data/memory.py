"""Images decoded once and kept in shared memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mixbench.data.sources import Data, Source

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
# a control group's limit and use, of the kernel's second and first interface
LIMITS = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


class MemorySource(Source):
    """Another source's images, decoded once, each at its full size.

    They lie in one uint8 tensor in shared memory, which every loader process reads.
    """

    def __init__(self, source: Source, sizes: Sequence[tuple[int, int]], pool: ThreadPoolExecutor):
        self.labels, self.fingerprint, self.sizes = source.labels, source.fingerprint, sizes
        self.source = source
        self.starts = [0, *np.cumsum([3 * width * height for width, height in sizes]).tolist()]
        self.levels = torch.empty(self.starts[-1], dtype=torch.uint8).share_memory_()

        def keep(index: int) -> None:
            self._pixels(index)[:] = np.asarray(source.load(index))

        for _ in pool.map(keep, range(len(sizes))):  # Pillow decodes without the interpreter's lock
            pass

    def _pixels(self, index: int) -> np.ndarray:
        """A view of image `index`, (height, width, 3) uint8."""
        width, height = self.sizes[index]
        levels = self.levels[self.starts[index] : self.starts[index + 1]].numpy()
        return levels.reshape(height, width, 3)

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(self._pixels(index))

    def size(self, index: int) -> tuple[int, int]:
        return self.sizes[index]

    def image_name(self, index: int) -> str:
        return self.source.image_name(index)

    def has_mask(self, index: int) -> bool:
        return self.source.has_mask(index)

    def mask(self, index: int) -> Image.Image | None:
        return self.source.mask(index)


def free_memory() -> int:
    """Bytes that may still be used: the least of what the machine and each control group have.

    A container is such a group, and so is a job of Slurm.
    """
    free = [left for folder in _groups() for left in _left_in(folder)]
    return max(min([_machine_memory(), *free]), 0)


def _groups() -> list[Path]:
    """The folders of the control groups of this process, those around them too."""
    lines = OWN_GROUPS.read_text().splitlines() if OWN_GROUPS.is_file() else []
    folders = {CGROUPS}  # in a container its own group, whatever the path says
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "" or "memory" in controllers.split(","):
            root = CGROUPS / "memory" if controllers else CGROUPS
            folder = root / path.lstrip("/")
            folders |= {root, *(each for each in (folder, *folder.parents) if root in each.parents)}
    return sorted(folders)


def _left_in(folder: Path) -> list[int]:
    """Bytes that a control group may still use; none where it has no limit.

    What it keeps of files that were read counts as free: it goes when memory is short.
    """
    left = []
    for limit, used in ((folder / limit, folder / used) for limit, used in LIMITS):
        if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
            left.append(int(limit.read_text()) - int(used.read_text()) + _read_files(folder))
    return left


def _read_files(folder: Path) -> int:
    """Bytes of files that a control group keeps."""
    stat = folder / "memory.stat"
    if not stat.is_file():
        return 0
    values = dict(line.split() for line in stat.read_text().splitlines())
    names = ("inactive_file", "active_file")  # in the first interface total_ has groups within too
    return sum(int(values.get(f"total_{name}", values.get(name, 0))) for name in names)


def free_shared_memory() -> int:
    """Bytes that may still be put into shared memory."""
    if Path("/dev/shm").is_dir():
        return min(free_memory(), shutil.disk_usage("/dev/shm").free)
    return free_memory()


def _machine_memory() -> int:
    """Bytes that are free on the machine; all that it has where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        if not hasattr(os, "sysconf"):
            raise ValueError("--cache ram: this system does not say how much memory is free")
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def keep_in_memory(data: Data, say: Callable[[str], None], processes: int = 1) -> Data:
    """`data` with every image decoded now and kept in memory, the same pixels.

    Each of `processes` on this machine keeps a copy. ValueError where they would not fit, and
    UnreadableImage where an image cannot be read.
    """
    splits = data.train, data.val
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        sizes = [list(pool.map(split.size, range(len(split.labels)))) for split in splits]
        count = sum(map(len, sizes))
        needed = processes * sum(3 * width * height for split in sizes for width, height in split)
        free = free_shared_memory()
        copies = f", {processes} copies" if processes > 1 else ""
        amount = (
            f"{count:,} images of {needed / processes / count / 1024:,.0f} KiB on "
            f"average{copies}, {needed / 2**20:,.1f} MiB"
        )
        if needed > free:
            raise ValueError(
                f"--cache ram needs {amount}, and {free / 2**20:,.1f} MiB are free: leave it out, "
                "or lower --limit-train"
            )
        say(f"keeping {amount}, in memory: {free / 2**20:,.1f} MiB are free")
        train, val = (
            MemorySource(split, size, pool) for split, size in zip(splits, sizes, strict=True)
        )
    return replace(data, train=train, val=val)
