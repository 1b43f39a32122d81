"""What a step of each task costs in steps of DeiT-S at 224 px, and Tables 2 and 3 by that.

python baselines/transfer_steps.py
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from baselines.rounds import command_of, footer, in_turns, ratios, spread, write_page
from mixbench.data.joint import resized
from mixbench.data.label_maps import PASCAL_CONTEXT
from mixbench.models.build import build_model
from mixbench.recipe import Recipe
from mixbench.runs.environment import device_name, today
from mixbench.transfer.candidates import Start
from mixbench.transfer.detection import batch_loss
from mixbench.transfer.detector import detector
from mixbench.transfer.inference import RATIOS, anchors, at_least
from mixbench.transfer.network import segmentation_network
from mixbench.transfer.recipe import DetectionRecipe, SegmentationRecipe
from mixbench.transfer.segmentation import crop_loss
from mixbench.transfer.training import build_optimizer

RESULTS = Path(__file__).parents[1] / "results"
CPU = torch.device("cpu")
COCO_CLASSES, OBJECTS = 80, 7  # of COCO, and of one of its training images on average
PHOTOGRAPH = 800, 1088  # pixels of a COCO image as coco_1x resizes it
PASCAL_SIDES = 375, 500  # of most Pascal Context images
V100_RATE = 322.0  # im/s of a DeiT-S training step on a V100, Table 8 of the paper
CONTROL = "DeiT-S, 224 px, again: the control"


@dataclass(frozen=True)
class Part:
    """A piece of work of one image: what is timed, and its arithmetic."""

    name: str
    work: Callable[[], object]
    images: int
    gflop: float  # an image


@dataclass(frozen=True)
class Timed:
    """A part with its milliseconds an image in each round."""

    name: str
    gflop: float
    milliseconds: list[float]


def parts(batch: int) -> list[Part]:
    """A step of DeiT-S, twice; of a crop with each decoder; of a photograph; each pass alone."""
    torch.manual_seed(0)
    deit = build_model("deit_small_patch16_224", 1000, 0)
    found = [_classification("DeiT-S, 224 px", deit, batch), _classification(CONTROL, deit, batch)]
    start = Start(model=Recipe(), weights=None)
    side = SegmentationRecipe().crop_size
    crops = torch.randn(batch, 3, side, side)
    labels = torch.randint(len(PASCAL_CONTEXT), (batch, side, side))
    for decoder in ("linear", "segmenter"):
        recipe = SegmentationRecipe(decoder=decoder)
        network = segmentation_network(start, recipe, len(PASCAL_CONTEXT), 0)
        name = f"DeiT-S and {decoder}, a crop of {side} px"
        found.append(_step(name, network, lambda n: crop_loss(n, (crops, labels), CPU), batch))
        found.append(_forward(f"{name}, forward alone", network, crops, batch))
    pvt = Start(model=Recipe(model="pvt_small"), weights=None)
    network = detector(pvt, DetectionRecipe(), COCO_CLASSES, 0)
    images = [torch.rand(3, *PHOTOGRAPH)]
    name = f"Mask R-CNN and PVT-S, a photograph of {PHOTOGRAPH[0]} x {PHOTOGRAPH[1]}"
    found.append(
        _step(name, network, lambda n: batch_loss(n, (images, [_target()]), CPU), len(images))
    )
    found.append(_forward(f"{name}, forward alone", network, images, len(images)))
    return found


def _classification(name: str, network: nn.Module, batch: int) -> Part:
    images, labels = torch.randn(batch, 3, 224, 224), torch.randint(1000, (batch,))
    return _step(name, network, lambda n: nn.functional.cross_entropy(n(images), labels), batch)


def _target() -> dict[str, Tensor]:
    """OBJECTS objects side by side, of an eighth of the photograph's width."""
    height, width = PHOTOGRAPH
    edges = [width * number // (OBJECTS + 1) for number in range(OBJECTS + 1)]
    masks = torch.zeros(OBJECTS, height, width, dtype=torch.uint8)
    boxes = torch.zeros(OBJECTS, 4)
    for number, (left, right) in enumerate(itertools.pairwise(edges)):
        top, bottom = height // 4, height // 2
        boxes[number] = torch.tensor([left, top, right, bottom])
        masks[number, top:bottom, left:right] = 1
    return {"boxes": boxes, "labels": torch.arange(1, OBJECTS + 1), "masks": masks}


def _step(name: str, network: Any, loss: Callable[[Any], Tensor], images: int) -> Part:
    """Forward, backward and update of AdamW."""
    optimizer = build_optimizer(network, "adamw", 1e-4, 0.05)

    def work() -> None:
        network.train()
        optimizer.zero_grad()
        loss(network).backward()
        optimizer.step()

    return _counted(name, work, images)


def _forward(name: str, network: Any, images: Any, count: int) -> Part:
    @torch.inference_mode()
    def work() -> None:
        network.eval()
        network(images)

    return _counted(name, work, count)


def _counted(name: str, work: Callable[[], object], images: int) -> Part:
    # of fused attention's backward pass the counter knows nothing
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return Part(name, work, images, counter.get_total_flops() / images / 1e9)


def measure(rounds: int, batch: int) -> list[Timed]:
    """Each part in turn and then in the other order; the first round warms up."""
    found = parts(batch)
    seconds: dict[str, list[float]] = {part.name: [] for part in found}
    by_name = {part.name: part for part in found}
    for name, counts in in_turns(by_name, rounds):
        part = by_name[name]
        started = time.perf_counter()
        part.work()
        taken = (time.perf_counter() - started) / part.images
        if counts:
            seconds[name].append(1000 * taken)
    return [Timed(part.name, part.gflop, seconds[part.name]) for part in found]


def windows(ratios: Sequence[float]) -> int:
    """Windows that slide over a Pascal Context image at these sizes."""
    recipe, count = SegmentationRecipe(), 0
    for ratio in ratios:
        sides = at_least(resized(*PASCAL_SIDES, recipe.short_side, ratio), recipe.crop_size)
        down, across = (
            len(anchors(side, recipe.crop_size, recipe.window_stride)) for side in sides
        )
        count += down * across
    return count


def page(timed: Sequence[Timed], command: str, date: str) -> str:
    """What was measured, and what follows from it, as Markdown."""
    first = timed[0]
    lines = [
        f"# A step of each task, {date}",
        "",
        "Milliseconds an image on a CPU, fp32, forward, backward and update (AdamW), medians of "
        f"{len(first.milliseconds)} interleaved rounds;",
        "the ratio to DeiT-S's training step at 224 px is of each round [least, most]. GFLOP are "
        "counted (torch's FlopCounterMode: products and convolutions).",
        "",
        "| work | GFLOP an image | of DeiT-S's | ms | of DeiT-S's |",
        "| --- | --- | --- | --- | --- |",
    ]
    middle = {}
    for each in timed:
        of_first = ratios(each.milliseconds, first.milliseconds)
        middle[each.name] = statistics.median(of_first)
        lines.append(
            f"| {each.name} | {each.gflop:.1f} | {each.gflop / first.gflop:.2f} | "
            f"{statistics.median(each.milliseconds):.0f} | "
            f"{spread(of_first, 2)} |"
        )
    lines += ["", *costs(middle), ""]
    lines.append(footer(f"`{command}`", device_name(CPU)))
    return "\n".join(lines) + "\n"


def costs(middle: dict[str, float]) -> list[str]:
    """The hours of a run of each table on a V100 and on eight, by the median ratios of time."""
    seg, det = SegmentationRecipe(), DetectionRecipe()
    lines = [
        f"A V100 trains DeiT-S at {V100_RATE:.0f} im/s (the paper's Table 8). If the ratios above "
        "held there, a run (one model, one seed) would take:",
        "",
        "| run | training images | evaluated | hours on one V100 | on eight, if they were eight "
        "times as fast |",
        "| --- | --- | --- | --- | --- |",
    ]
    steps = [name for name in middle if "forward" not in name and "224 px" not in name]
    for name in steps:
        if "crop" in name:
            table, images = "Table 2", seg.epochs * (4998 // seg.batch_size * seg.batch_size)
            passes = 5105 * (windows([1.0]) + 2 * windows(RATIOS))
            words = f"{passes:,} windows (single and multi-scale)"
        else:
            table, images = "Table 3", det.epochs * (117_266 // det.batch_size * det.batch_size)
            passes, words = 5000, "5,000 photographs"
        work = images * middle[name] + passes * middle[f"{name}, forward alone"]
        hours = work / V100_RATE / 3600
        lines.append(
            f"| {table}: {name.partition(',')[0]} | {images:,} | {words} | {hours:.0f} | "
            f"{hours / 8:.1f} |"
        )
    return lines


def main(argv: Sequence[str] | None = None, results: Path = RESULTS) -> None:
    """Measure, print the page and write it into the folder `results`."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=8)
    add("--batch", type=int, default=2, help="images of a step; one photograph in detection")
    options = parser.parse_args(argv)
    command = command_of("transfer_steps", **vars(options))
    text = page(measure(options.rounds, options.batch), command, today())
    write_page(results, "transfer-steps", text)


if __name__ == "__main__":
    main()
