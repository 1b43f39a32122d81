"""What the loader costs: four strategies fed side by side against four runs, and the loader alone.

python baselines/side_by_side.py --data DIR
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from baselines.rounds import command_of, one_thread, write_page
from mixbench import create_strategies
from mixbench.data.augment import augment
from mixbench.data.datasets import open_data
from mixbench.data.loaders import train_loader
from mixbench.data.memory import keep_in_memory
from mixbench.data.normalisation import Normalisation
from mixbench.data.sources import Data
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe, load_recipe
from mixbench.runs.environment import device_name, today, versions
from mixbench.runtime import Runtime, choose_device, silent_line
from mixbench.training.loop import train

RESULTS = Path(__file__).parents[1] / "results"
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
WARM_UP = 128  # images
LOADED = 192  # images that the loader alone goes through, 64 a batch
LOADINGS = 3  # times each


@dataclass(frozen=True)
class Trained:
    """Strategies trained side by side, or one after the other."""

    seconds: float
    losses: list[float]  # of the last epoch, a strategy each
    waited: float  # share of the training time that waited for images, mean


@dataclass(frozen=True)
class Repeat:
    """Both ways of training the same strategies."""

    together: Trained
    alone: Trained

    @property
    def ratio(self) -> float:
        """How many times faster side by side is."""
        return self.alone.seconds / self.together.seconds


@dataclass(frozen=True)
class Rate:
    """What the loader does by itself."""

    name: str
    im_per_sec: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the page shows."""

    repeats: list[Repeat]
    rates: list[Rate]
    train_images: int
    workers: int
    threads: int
    device: torch.device


def train_groups(
    groups: Sequence[Sequence[MixStrategy]], recipe: Recipe, data: Data, runtime: Runtime
) -> Trained:
    """Train each group side by side, one group after the other; how long that took."""
    started = time.perf_counter()
    learners = [learner for group in groups for learner in train(group, recipe, data, runtime)]
    seconds = time.perf_counter() - started
    losses = [learner.log[-1].train_loss for learner in learners]
    waited = statistics.mean(learner.loading_share or 0.0 for learner in learners)
    return Trained(seconds, losses, waited)


def train_both_ways(recipe: Recipe, data: Data, runtime: Runtime, *, reverse: bool) -> Repeat:
    """Train side by side and one after the other, in the other order where `reverse`.

    On a CPU the losses are the same, bit for bit.
    """
    strategies = create_strategies(STRATEGIES)
    separate = [[strategy] for strategy in strategies]
    if reverse:
        alone = train_groups(separate, recipe, data, runtime)
        together = train_groups([strategies], recipe, data, runtime)
    else:
        together = train_groups([strategies], recipe, data, runtime)
        alone = train_groups(separate, recipe, data, runtime)
    same = together.losses == alone.losses
    assert same or runtime.device.type != "cpu", "the losses side by side and alone differ"
    return Repeat(together, alone)


def loader_rates(data: Data, device: torch.device) -> list[Rate]:
    """The rates of DeiT's full recipe at 224 px in one process, medians of interleaved times."""
    recipe = load_recipe("deit_small", {"batch_size": 64})
    on_device = replace(recipe, augment_on="device")
    normalisation = Normalisation.of(recipe.mean, recipe.std, device)
    cached = keep_in_memory(data, silent_line)
    cases = {
        "all in the loader": (data, recipe),
        "all in the loader, `--cache ram`": (cached, recipe),
        "`--augment-on device`": (data, on_device),
        "`--augment-on device --cache ram`": (cached, on_device),
    }
    rest = f"the device's part of `--augment-on device` ({device.type})"
    rates: dict[str, list[float]] = {name: [] for name in [*cases, rest]}
    cpu = torch.device("cpu")
    for _ in range(LOADINGS):
        for name, (source, case) in cases.items():
            started = time.perf_counter()
            loader = train_loader(source, case, seed=0, micro_batch=64, workers=0, device=cpu)
            batches = [images for images, _ in loader]
            seconds = time.perf_counter() - started
            rates[name].append(64 * len(batches) / seconds)
        batches = [raw.to(device) for raw in batches]  # of the last case
        started = time.perf_counter()
        for raw in batches:
            ready = augment(raw, normalisation, recipe.remode)
        ready.sum().item()
        rates[rest].append(64 * len(batches) / (time.perf_counter() - started))
    return [Rate(name, statistics.median(values)) for name, values in rates.items()]


def measure(options: argparse.Namespace) -> Measured:
    """Train both ways as often as asked for, and time the loader alone on one thread."""
    device = choose_device(options.device)
    runtime = Runtime(device=device, workers=options.workers)
    recipe = load_recipe("quick", RECIPE | {"epochs": 1, "warmup_epochs": 0})
    data = open_data(data=options.data, limit_train=options.limit_train, limit_val=64)
    few = open_data(data=options.data, limit_train=WARM_UP)
    train_both_ways(recipe, replace(data, train=few.train), runtime, reverse=False)  # warm up
    repeats = []
    for number in range(options.repeats):
        repeat = train_both_ways(recipe, data, runtime, reverse=number % 2 == 1)
        repeats.append(repeat)
        print(
            f"side by side {repeat.together.seconds:.2f} s, one after the other "
            f"{repeat.alone.seconds:.2f} s, waiting {repeat.alone.waited:.0%}",
            flush=True,
        )
    with one_thread():
        few = open_data(data=options.data, limit_train=LOADED)
        rates = loader_rates(few, device)
    return Measured(
        repeats=repeats,
        rates=rates,
        train_images=len(data.train.labels),
        workers=options.workers,
        threads=torch.get_num_threads(),
        device=device,
    )


def page(measured: Measured, command: str, date: str) -> str:
    """What was measured, as Markdown."""
    repeats = measured.repeats
    ratios = [repeat.ratio for repeat in repeats]
    together = statistics.median(repeat.together.seconds for repeat in repeats)
    alone = statistics.median(repeat.alone.seconds for repeat in repeats)
    waited = statistics.median(repeat.alone.waited for repeat in repeats)
    same = "The losses were the same, bit for bit. " if measured.device.type == "cpu" else ""
    changes = ", ".join(f"{key} {value}" for key, value in RECIPE.items())
    lines = [
        f"# One loader for four strategies, {date}",
        "",
        f"`{STRATEGIES}` trained side by side, fed by one loader, against four runs one after the",
        "other in one process (so without the second to fourth run's start of Python): "
        f"**{statistics.median(ratios):.2f} times",
        f"faster** (median of {len(ratios)} interleaved repeats, {min(ratios):.2f} to "
        f"{max(ratios):.2f}), {together:.1f} s against {alone:.1f} s.",
        f"Alone, a run waited for images {waited:.0%} of its training time. {same}One epoch of "
        f"{measured.train_images:,} images,",
        f"workers: {measured.workers}; recipe: `quick` with {changes}.",
        "",
        "| repeat | side by side, s | one after the other, s | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for number, repeat in enumerate(repeats, 1):
        seconds = f"{repeat.together.seconds:.2f} | {repeat.alone.seconds:.2f}"
        lines.append(f"| {number} | {seconds} | {repeat.ratio:.2f} |")
    lines += [
        "",
        "The loader alone, one process and one thread, DeiT's recipe at 224 px (`deit_small`), "
        f"images per second and core, median of {LOADINGS}:",
        "",
        "| what is done | im/s |",
        "| --- | --- |",
        *[f"| {rate.name} | {rate.im_per_sec:.0f} |" for rate in measured.rates],
        "",
        f"Command: `OMP_NUM_THREADS={measured.threads} {command}`. "
        f"Machine: {device_name(measured.device)}. Versions: {versions()}.",
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None, results: Path = RESULTS) -> None:
    """Measure, print the page and write it into the folder `results`."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="image folder with train/ and val/")
    add("--limit-train", type=int, default=1024)
    add("--workers", type=int, default=1, help="on two cores one leaves the other to the model")
    add("--repeats", type=int, default=4)
    add("--device", default="auto")
    options = parser.parse_args(argv)
    measured = measure(options)
    text = page(measured, command_of("side_by_side", **vars(options)), today())
    write_page(results, f"side-by-side-{measured.device.type}", text)


if __name__ == "__main__":
    main()
