"""Peers behind one call each, timed against ours in one process: `mixbench speed --peers`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from baselines.rounds import one_thread
from mixbench import create_strategy, make_context
from mixbench.evaluations.speed import Interval, median_interval
from mixbench.runs.environment import device_name, versions

BATCH, SIZE, CLASSES = 128, 224, 1000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDS = 15
Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Timed:
    """One call of a task: its time, and that time over mixbench's."""

    task: str
    call: str
    milliseconds: float  # median
    ratio: Interval


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, SIZE, SIZE, generator=rng)
    return images, torch.randint(CLASSES, (BATCH,), generator=rng)


def mixing(name: str) -> Calls:
    """The whole `mix` call of CutMix or Mixup with new output and mask, and what others offer.

    A plain copy is the floor.
    """
    images, labels = _batch()
    strategy = create_strategy(name)
    ctx = make_context(strategy, torch.nn.Identity(), images, seed=0, step=0, mean=MEAN, std=STD)
    calls: Calls = {"mixbench": lambda: strategy.mix(images, labels, ctx), "clone": images.clone}
    if has("timm"):
        from timm.data import Mixup

        alphas = (
            {"mixup_alpha": 0.8, "cutmix_alpha": 0.0}
            if name == "mixup"
            else {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}
        )
        timm_mixup = Mixup(**alphas, num_classes=CLASSES)
        changed = images.clone()  # timm mixes in place
        calls["timm"] = lambda: timm_mixup(changed, labels)
    if has("torchvision"):
        from torchvision.transforms import v2

        transform = (
            v2.MixUp(alpha=0.8, num_classes=CLASSES)
            if name == "mixup"
            else v2.CutMix(alpha=1.0, num_classes=CLASSES)
        )
        calls["torchvision"] = lambda: transform(images, labels)
    if has("kornia"):
        from kornia.augmentation import RandomCutMixV2, RandomMixUpV2

        kind: Any = RandomMixUpV2 if name == "mixup" else RandomCutMixV2
        augmentation = kind(p=1.0, data_keys=["input", "class"])
        calls["kornia"] = lambda: augmentation(images, labels)
    return calls


def _photographs(count: int) -> torch.Tensor:
    """The drawn data set's pictures, uint8 RGB (count, 3, 224, 224)."""
    from mixbench.data.scenes import draw_scene

    scenes = np.stack([draw_scene(0, index, SIZE).image for index in range(count)])
    return torch.from_numpy(scenes).permute(0, 3, 1, 2).contiguous()


def saliency() -> Calls:
    """The fine-grained map of each image, and OpenCV's own in a loop."""
    from mixbench.services.saliency import fine_grained

    pixels = _photographs(BATCH)
    calls: Calls = {"mixbench": lambda: fine_grained(pixels)}
    if has("opencv"):
        import cv2

        # OpenCV that overwrote opencv-contrib's has an empty module
        create = getattr(getattr(cv2, "saliency", None), "StaticSaliencyFineGrained_create", None)
        if create:
            images = pixels.flip(1).permute(0, 2, 3, 1).contiguous().numpy()  # BGR
            detector = create()
            calls["opencv"] = lambda: [detector.computeSaliency(image) for image in images]
    return calls


def mask() -> Calls:
    """Masks of 128 pairs, 16 x 16 blocks and 3 labels.

    An exact maximum flow and the official swaps stand beside them where they are installed.
    """
    from mixbench.puzzle.energy import mask_energy
    from mixbench.puzzle.mask import solve_mask

    rng = torch.Generator().manual_seed(0)
    images = _photographs(BATCH).float() / 255
    coarse = torch.rand(BATCH, 1, 5, 5, generator=rng).square()
    smooth = torch.nn.functional.interpolate(coarse, (16, 16), mode="bicubic", align_corners=False)
    bumps = smooth[:, 0].clamp_min(0) + 0.01
    weights = bumps / bumps.sum((1, 2), keepdim=True)
    terms = mask_energy(
        weights,
        images,
        torch.ones(3, 1, 1),
        0.5,
        num_labels=3,
        beta=1.2,
        gamma=0.5,
        eta=0.2,
        cell=2,
    )
    calls: Calls = {"mixbench": lambda: solve_mask(*terms)}
    if has("maxflow"):
        calls["maxflow"] = lambda: [
            _maximum_flow(*(term[i].double().numpy() for term in terms)) for i in range(BATCH)
        ]
    if has("gco"):
        calls["gco"] = lambda: [
            _swaps(*(term[i].double().numpy() for term in terms)) for i in range(BATCH)
        ]
    return calls


def transport() -> Calls:
    """Puzzle-Mix's transport of 128 images on 16 x 16 blocks, and its rounds as published."""
    from mixbench.puzzle.transport import transport as ours

    rng = torch.Generator().manual_seed(0)
    mask = torch.randint(3, (BATCH, 16, 16), generator=rng) / 2
    saliency = torch.rand(BATCH, 16, 16, generator=rng).square()
    saliency /= saliency.sum((1, 2), keepdim=True)
    return {
        "mixbench": lambda: ours(mask, saliency, 0.8),
        "one-hot plans": lambda: plan_rounds(mask, saliency, 0.8),
    }


def plan_rounds(mask: torch.Tensor, saliency: torch.Tensor, eps: float) -> torch.Tensor:
    """The plan (B, n*n, n*n) from source to target after n rounds, as the method is published.

    mask and saliency (B, n, n). Each round holds whole one-hot plans.
    """
    n = mask.shape[1]
    grid = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    places = torch.stack(grid, -1).reshape(-1, 2).float()  # (n*n, 2)
    distance = torch.cdist(places, places).square() / (n - 1) ** 2
    visible = (mask > 0).float().flatten(1)
    cost = eps * distance - saliency.flatten(1)[:, :, None] * visible[:, None]
    plan = won = torch.zeros_like(cost)
    for _ in range(n):
        plan = torch.zeros_like(cost).scatter_(2, cost.argmin(2, keepdim=True), 1.0)
        won = plan * torch.zeros_like(cost).scatter_(1, (plan * cost).argmin(1, keepdim=True), 1.0)
        cost = cost + (plan - won)
    return won


def _swaps(unary: np.ndarray, vertical: np.ndarray, horizontal: np.ndarray) -> np.ndarray:
    """Labels (n, n) by alpha-beta swaps as Puzzle-Mix's code asks for them.

    They need not be of least energy.
    """
    import gco

    n, size = len(unary), unary.shape[2]
    scale = 1000 * n**2
    levels = np.arange(size) / (size - 1)
    whole = [(scale * term).astype(np.int32) for term in (unary, vertical, horizontal)]
    return gco.cut_grid_graph(
        whole[0], np.subtract.outer(levels, levels) ** 2, whole[1], whole[2], algorithm="swap"
    ).reshape(n, n)


def _maximum_flow(unary: np.ndarray, vertical: np.ndarray, horizontal: np.ndarray) -> np.ndarray:
    """The labels of least energy by Ishikawa's cut, (n, n).

    unary (n, n, 3), vertical (n-1, n), horizontal (n, n-1).
    """
    import maxflow

    n, levels = len(unary), unary.shape[2] - 1
    graph = maxflow.Graph[float]()
    nodes = graph.add_grid_nodes((levels, n, n))
    step = np.moveaxis(np.diff(unary, axis=2), 2, 0)  # cost of a label one higher
    graph.add_grid_tedges(nodes, np.maximum(-step, 0), np.maximum(step, 0))
    for upper, lower in zip(nodes[1:], nodes, strict=False):
        graph.add_edges(upper.ravel(), lower.ravel(), np.full(n * n, 1e9), np.zeros(n * n))
    right, down = np.zeros((n, n)), np.zeros((n, n))
    right[:, :-1], down[:-1] = horizontal / levels**2, vertical / levels**2
    for weights, near, far in (
        (right, (slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        (down, (slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        weight = weights[near].ravel()
        zero = np.zeros_like(weight)
        for level in range(levels):
            graph.add_edges(nodes[level][near].ravel(), nodes[level][far].ravel(), weight, weight)
        for high in range(levels):
            for low in range(high):
                twice, above, below = 2 * weight, nodes[high], nodes[low]
                graph.add_edges(above[near].ravel(), below[far].ravel(), twice, zero)
                graph.add_edges(above[far].ravel(), below[near].ravel(), twice, zero)
    graph.maxflow()
    return (~graph.get_grid_segments(nodes)).sum(0)


TASKS: dict[str, Callable[[], Calls]] = {
    "CutMix, 128 images at 224 px": lambda: mixing("cutmix"),
    "Mixup, 128 images at 224 px": lambda: mixing("mixup"),
    "fine-grained saliency, 128 images at 224 px": saliency,
    "Puzzle-Mix's mask, 128 pairs, 16 x 16 blocks, 3 labels": mask,
    "Puzzle-Mix's transport, 128 images, 16 x 16 blocks": transport,
}
# peer -> distribution; PyMaxflow is GPL and gco for research only: never needed, and timed where
# somebody installed them
PACKAGES = {
    "timm": "timm",
    "torchvision": "torchvision",
    "kornia": "kornia",
    "opencv": "opencv-contrib-python",
    "maxflow": "PyMaxflow",
    "gco": "gco-wrapper",
}


def has(peer: str) -> bool:
    """Whether a peer is installed."""
    try:
        version(PACKAGES[peer])
    except PackageNotFoundError:
        return False
    return True


def time_calls(calls: Calls, rounds: int) -> dict[str, np.ndarray]:
    """Seconds of this thread for each call in each round, (rounds,).

    The order turns from round to round; two rounds before them warm up.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-2, rounds):
        for name in list(calls) if number % 2 else reversed(list(calls)):
            started = time.thread_time()
            calls[name]()
            if number >= 0:
                times[name].append(time.thread_time() - started)
    return {name: np.array(seconds) for name, seconds in times.items()}


def compare(rounds: int) -> list[Timed]:
    """Every task's calls, timed on one thread in turn; a row for each."""
    with one_thread():
        rows = []
        for task, prepare in TASKS.items():
            times = time_calls(prepare(), rounds)
            for call, seconds in times.items():
                ratio = median_interval(seconds / times["mixbench"])
                rows.append(Timed(task, call, 1000 * float(np.median(seconds)), ratio))
        return rows


def report(rows: Iterable[Timed]) -> str:
    """The rows as a Markdown table, and the peers that are missing."""
    lines = ["| task | call | ms | time over mixbench's |", "| --- | --- | --- | --- |"]
    for row in rows:
        ratio = f"{row.ratio.median:.2f} [{row.ratio.low:.2f}, {row.ratio.high:.2f}]"
        lines.append(f"| {row.task} | {row.call} | {row.milliseconds:.1f} | {ratio} |")
    missing = [peer for peer in PACKAGES if not has(peer)]
    if missing:
        lines += ["", f"Not installed, so not timed: {', '.join(missing)}."]
    return "\n".join(lines)


def main() -> None:
    """Print the page: `python -m baselines.peers`."""
    installed = [f"{peer} {version(package)}" for peer, package in PACKAGES.items() if has(peer)]
    print("# Peers\n")
    print(f"`python -m baselines.peers`: CPU seconds of one thread, {ROUNDS} interleaved rounds.\n")
    print(report(compare(ROUNDS)))
    print(f"\n{device_name(torch.device('cpu'))}; {versions()}; {'; '.join(installed)}")


if __name__ == "__main__":
    main()
