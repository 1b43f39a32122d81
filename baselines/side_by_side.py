"""What the loader costs: four strategies fed side by side against four runs, and the loader alone, written to results/.

python baselines/side_by_side.py --data DIR
"""

import argparse
import shlex
import statistics
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from mixbench import create_strategies
from mixbench.data.augment import augment
from mixbench.data.datasets import open_data
from mixbench.data.loaders import train_loader
from mixbench.data.memory import keep_in_memory
from mixbench.data.normalisation import Normalisation
from mixbench.data.sources import Data
from mixbench.recipe import Recipe, load_recipe
from mixbench.runs.environment import device_name, versions
from mixbench.runtime import choose_device
from mixbench.training.loop import train

STRATEGIES = "none,mixup,cutmix,transmix"
RECIPE = {
    "image_size": 128,
    "patch_size": 32,
    "depth": 1,
    "aa": "rand-m9-mstd0.5-inc1",
    "scale": "0.08,1",
    "hflip": 0.5,
    "train_interpolation": "random",
}


def seconds_of(
    data: Data, recipe: Recipe, device: torch.device, workers: int, reverse: bool = False
) -> tuple[float, float, float]:
    """Seconds side by side and one after the other, and the share of the latter's training that waited for images."""
    strategies = create_strategies(STRATEGIES)
    found: dict[bool, tuple[float, list[float], float]] = {}
    for together in (False, True) if reverse else (True, False):
        started = time.perf_counter()
        groups = [strategies] if together else [[strategy] for strategy in strategies]
        learners = [
            learner
            for group in groups
            for learner in train(group, recipe, data, 0, device, workers=workers)
        ]
        seconds, losses = (
            time.perf_counter() - started,
            [learner.log[-1]["train_loss"] for learner in learners],
        )
        found[together] = (
            seconds,
            losses,
            statistics.mean(learner.loading_share for learner in learners),
        )
    assert device.type != "cpu" or found[True][1] == found[False][1], (
        "side by side and alone must give the same losses"
    )
    return found[True][0], found[False][0], found[False][2]


def loader_rates(
    data: Data, device: torch.device, count: int, repeats: int
) -> list[tuple[str, float]]:
    """Images per second and core of DeiT's full recipe at 224 px in one process, median of interleaved repeats."""
    recipe = load_recipe("deit_small", {"batch_size": 64})
    on_device = replace(recipe, augment_on="device")
    normalisation = Normalisation.of(recipe.mean, recipe.std, device)
    cached = keep_in_memory(data, lambda line: None)
    cases = {
        "all in the loader": (data, recipe),
        "all in the loader, `--cache ram`": (cached, recipe),
        "`--augment-on device`": (data, on_device),
        "`--augment-on device --cache ram`": (cached, on_device),
    }
    part = f"the device's part of `--augment-on device` ({device.type})"
    found: dict[str, list[float]] = {name: [] for name in [*cases, part]}
    for _ in range(repeats):
        for name, (source, used) in cases.items():
            started = time.perf_counter()
            batches = [
                images for images, _ in train_loader(source, used, 0, 64, 0, torch.device("cpu"))
            ]
            found[name].append(count / (time.perf_counter() - started))
        batches = [raw.to(device) for raw in batches]
        started = time.perf_counter()
        for raw in batches:
            ready = augment(raw, normalisation, used.remode)
        ready.sum().item()
        found[part].append(count / (time.perf_counter() - started))
    return [(name, statistics.median(rates)) for name, rates in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="image folder with train/ and val/"
    )
    parser.add_argument("--limit-train", type=int, default=1024)
    parser.add_argument(
        "--workers", type=int, default=1, help="on two cores one leaves the other to the model"
    )
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = choose_device(options.device)
    recipe = load_recipe("quick", RECIPE | {"epochs": 1, "warmup_epochs": 0})
    data = open_data(data=options.data, limit_train=options.limit_train, limit_val=64)
    seconds_of(
        replace(data, train=open_data(data=options.data, limit_train=128).train),
        recipe,
        device,
        options.workers,
    )  # warm up
    measured = []
    for repeat in range(options.repeats):
        measured.append(seconds_of(data, recipe, device, options.workers, reverse=repeat % 2 == 1))
        print(
            "side by side {:.2f} s, one after the other {:.2f} s, waiting {:.0%}".format(
                *measured[-1]
            ),
            flush=True,
        )
    ratios = [alone / together for together, alone, _ in measured]
    few = open_data(data=options.data, limit_train=192, limit_val=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rates = loader_rates(few, device, 192, 3)
    torch.set_num_threads(threads)
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    together, alone, shares = (statistics.median(column) for column in zip(*measured, strict=True))
    command = shlex.join(
        ["python", "baselines/side_by_side.py", "--data", options.data.name, *_others(sys.argv[1:])]
    )
    changes = ", ".join(f"{key} {value}" for key, value in RECIPE.items())
    text = f"""# One loader for four strategies, {date}

`{STRATEGIES}` trained side by side, fed by one loader, against four runs one after the other in one process (so without the second
to fourth run's start of Python): **{statistics.median(ratios):.2f} times faster** (median of {len(ratios)} interleaved repeats,
{min(ratios):.2f} to {max(ratios):.2f}), {together:.1f} s against {alone:.1f} s. Alone, a run waited for images {shares:.0%} of its
training time. {"The losses were the same, bit for bit. " if device.type == "cpu" else ""}One epoch of {len(data.train.labels):,} images,
workers: {options.workers}; recipe: `quick` with {changes}.

| repeat | side by side, s | one after the other, s | ratio |
| --- | --- | --- | --- |
"""
    text += "".join(
        f"| {i} | {a:.2f} | {b:.2f} | {b / a:.2f} |\n" for i, (a, b, _) in enumerate(measured, 1)
    )
    text += """
The loader alone, one process and one thread, DeiT's recipe at 224 px (`deit_small`), images per second and core, median of 3:

| what is done | im/s |
| --- | --- |
"""
    text += "".join(f"| {name} | {rate:.0f} |\n" for name, rate in rates)
    text += f"\nCommand: `OMP_NUM_THREADS={threads} {command}`. Machine: {device_name(device)}. Versions: {versions()}.\n"
    file = Path(__file__).parents[1] / "results" / f"side-by-side-{device.type}-{date}.md"
    file.write_text(text, encoding="utf-8")
    print(text)


def _others(argv: list[str]) -> list[str]:
    """The command's options without the folder, whose place on the machine is nobody's business."""
    at = next(i for i, option in enumerate(argv) if option.partition("=")[0] == "--data")
    return argv[:at] + argv[at + (1 if "=" in argv[at] else 2) :]


if __name__ == "__main__":
    main()
