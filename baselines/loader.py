"""What the loader costs an image, beside timm's without its prefetcher: CPU time, no workers.

python baselines/loader.py --data DIR
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import create_dataset, create_loader

from baselines.rounds import command_of, footer, in_turns, one_thread, ratios, spread, write_page
from mixbench.data.datasets import open_data
from mixbench.data.loaders import train_loader
from mixbench.data.transforms import train_transform
from mixbench.recipe import Recipe, load_recipe
from mixbench.runs.environment import device_name, today

RESULTS = Path(__file__).parents[1] / "results"
SIZES = (64, 224)
BATCH = 32
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Timed:
    """A loader at one size: CPU milliseconds an image in each round."""

    size: int
    name: str
    milliseconds: list[float]


def timms_loader(folder: Path, recipe: Recipe) -> Any:
    """timm's loader of the training images with the recipe's augmentation."""
    loader = create_loader(
        create_dataset("", str(folder), split="train", is_training=True),
        (3, recipe.image_size, recipe.image_size),
        BATCH,
        is_training=True,
        use_prefetcher=False,
        num_workers=0,
        persistent_workers=False,
    )
    # the same operations, with the strongest posterize mended, which Pillow refuses
    loader.dataset.transform = train_transform(recipe)
    return loader


def first_batches(loader: Any, count: int) -> float:
    """CPU seconds of so many batches from the loader's first, with the same draws each time."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    batches, started = iter(loader), time.process_time()
    for _ in range(count):
        next(batches)
    return time.process_time() - started


def measure(folder: Path, images: int, rounds: int) -> list[Timed]:
    """timm's loader, timm's again as the control, and ours, in turn and then in the other order."""
    data = open_data(data=folder)
    timed = []
    for size in SIZES:
        recipe = load_recipe("deit_small", {"image_size": size, "batch_size": BATCH})
        theirs = timms_loader(folder, recipe)
        ours = train_loader(data, recipe, 0, BATCH, 0, CPU)
        loaders = {"timm": theirs, "mixbench": ours, "timm again, the control": theirs}
        seconds: dict[str, list[float]] = {name: [] for name in loaders}
        for name, counts in in_turns(loaders, rounds):  # the first warms the disk's cache
            taken = first_batches(loaders[name], images // BATCH)
            if counts:
                seconds[name].append(taken)
        done = images // BATCH * BATCH
        timed += [
            Timed(size, name, [1000 * each / done for each in values])
            for name, values in seconds.items()
        ]
    return timed


def page(timed: Sequence[Timed], images: int, command: str, date: str) -> str:
    """What was measured, as Markdown."""
    lines = [
        f"# The loader beside timm's, {date}",
        "",
        f"CPU time an image of {images} of a folder's training images, in one process and thread:",
        "decoding, DeiT's augmentation (`deit_small`), batches of "
        f"{BATCH}. timm's loader is that without the prefetcher; the same",
        f"augmentation in both. Medians of {len(timed[0].milliseconds)} interleaved rounds [least, "
        "most]; the ratio is of each round.",
        "",
        "| pixels | loader | ms | of timm's time |",
        "| --- | --- | --- | --- |",
    ]
    first = {each.size: each.milliseconds for each in timed if each.name == "timm"}
    for each in timed:
        ratio = spread(ratios(each.milliseconds, first[each.size]), 3)
        middle = statistics.median(each.milliseconds)
        lines.append(f"| {each.size} | {each.name} | {middle:.3f} | {ratio} |")
    lines += [
        "",
        footer(f"`OMP_NUM_THREADS=1 {command}`", device_name(CPU)),
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None, results: Path = RESULTS) -> None:
    """Measure, print the page and write it into the folder `results`."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="image folder with train/ and val/")
    add("--images", type=int, default=256)
    add("--rounds", type=int, default=20)
    options = parser.parse_args(argv)
    with one_thread():
        timed = measure(options.data, options.images, options.rounds)
        text = page(timed, options.images, command_of("loader", **vars(options)), today())
    write_page(results, "loader-cpu", text)


if __name__ == "__main__":
    main()
