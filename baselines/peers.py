"""Peers behind one call each, timed against ours in one process: `mixbench speed --peers`."""
from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from mixbench import create_strategy, make_context
from mixbench.speed import median_interval

BATCH, SIZE, CLASSES = 128, 224, 1000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Calls = dict[str, Callable[[], Any]]


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(BATCH, 3, SIZE, SIZE, generator=rng), torch.randint(CLASSES, (BATCH,), generator=rng)


def mixing(name: str) -> Calls:
    """The whole `mix` call of CutMix or Mixup with new output and mask, and what others offer; a plain copy is the floor."""
    images, labels = _batch()
    strategy = create_strategy(name)
    ctx = make_context(strategy, torch.nn.Identity(), images, seed=0, step=0, mean=MEAN, std=STD)
    calls: Calls = {"mixbench": lambda: strategy.mix(images, labels, ctx), "clone": images.clone}
    if has("timm"):
        from timm.data import Mixup

        alphas = {"mixup_alpha": 0.8, "cutmix_alpha": 0.0} if name == "mixup" else {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}
        timm_mixup, own = Mixup(**alphas, num_classes=CLASSES), images.clone()  # in place: it has a batch of its own
        calls["timm"] = lambda: timm_mixup(own, labels)
    if has("torchvision"):
        from torchvision.transforms import v2

        transform = v2.MixUp(alpha=0.8, num_classes=CLASSES) if name == "mixup" else v2.CutMix(alpha=1.0, num_classes=CLASSES)
        calls["torchvision"] = lambda: transform(images, labels)
    if has("kornia"):
        from kornia.augmentation import RandomCutMixV2, RandomMixUpV2

        kind: Any = RandomMixUpV2 if name == "mixup" else RandomCutMixV2
        augmentation = kind(p=1.0, data_keys=["input", "class"])
        calls["kornia"] = lambda: augmentation(images, labels)
    return calls


TASKS: dict[str, Callable[[], Calls]] = {
    "CutMix, 128 images at 224 px": lambda: mixing("cutmix"),
    "Mixup, 128 images at 224 px": lambda: mixing("mixup"),
}
PACKAGES = {"timm": "timm", "torchvision": "torchvision", "kornia": "kornia"}


def has(peer: str) -> bool:
    """Whether a peer is installed."""
    try:
        version(PACKAGES[peer])
    except PackageNotFoundError:
        return False
    return True


def time_calls(calls: Calls, rounds: int) -> dict[str, np.ndarray]:
    """Seconds of this process's one thread for each call in each round, (rounds,); the order turns from round to round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-2, rounds):
        for name in list(calls) if number % 2 else reversed(list(calls)):
            started = time.thread_time()
            calls[name]()
            if number >= 0:
                times[name].append(time.thread_time() - started)
    return {name: np.array(seconds) for name, seconds in times.items()}


def compare(rounds: int) -> list[tuple[str, str, float, float, float, float]]:
    """Rows (task, call, its milliseconds, its time over ours, and the 95 % interval of that), on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = []
        for task, prepare in TASKS.items():
            times = time_calls(prepare(), rounds)
            for name, seconds in times.items():
                rows.append((task, name, 1000 * float(np.median(seconds)), *median_interval(seconds / times["mixbench"])))
        return rows
    finally:
        torch.set_num_threads(threads)


def report(rows: list[tuple[str, str, float, float, float, float]]) -> str:
    """The rows as a Markdown table, and the peers that are missing."""
    lines = ["| task | call | ms | time over mixbench's |", "| --- | --- | --- | --- |"]
    lines += [f"| {task} | {name} | {ms:.1f} | {ratio:.2f} [{low:.2f}, {high:.2f}] |" for task, name, ms, ratio, low, high in rows]
    missing = [peer for peer in PACKAGES if not has(peer)]
    if missing:
        lines += ["", f"Not installed, so not timed: {', '.join(missing)}."]
    return "\n".join(lines)
