"""The exchange of gradients beside torch's DistributedDataParallel, the same step in both.

OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 baselines/exchange.py
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from baselines.rounds import footer, in_turns, ratios, spread, write_page
from mixbench.distributed import World, join, leave
from mixbench.models.build import build_model
from mixbench.runs.environment import device_name, today

RESULTS = Path(__file__).parents[1] / "results"
MODEL, CLASSES, SIDE = "deit_small_patch16_224", 1000, 224
OURS, THEIRS = "mixbench", "DistributedDataParallel"
CONTROL = f"{THEIRS} again, the control"
ALONE = "no exchange"


@dataclass(frozen=True)
class Timed:
    """Milliseconds of a step in each round, of the slower process."""

    name: str
    milliseconds: list[float]


def steps(world: World, batch: int, side: int) -> dict[str, Callable[[], None]]:
    """A forward and backward pass and an update, each with a model of its own."""
    torch.manual_seed(world.rank)
    images, labels = torch.randn(batch, 3, side, side), torch.randint(CLASSES, (batch,))
    model = build_model(MODEL, CLASSES, 0, image_size=side)
    wrapped = DistributedDataParallel(copy.deepcopy(model))
    alone = copy.deepcopy(model)

    def backward(network: nn.Module) -> None:
        nn.functional.cross_entropy(network(images), labels).backward()

    def update(optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    optimizers = {
        name: torch.optim.AdamW(network.parameters(), lr=1e-4)
        for name, network in ((OURS, model), (THEIRS, wrapped), (ALONE, alone))
    }

    def ours() -> None:
        backward(model)
        flat = world.flat_gradients(model)
        world.agree(None)  # as training does: one rank's failure is everyone's
        world.average_gradients(model, flat)
        update(optimizers[OURS])

    def theirs() -> None:
        backward(wrapped)
        update(optimizers[THEIRS])

    def nothing() -> None:
        backward(alone)
        update(optimizers[ALONE])

    return {THEIRS: theirs, OURS: ours, CONTROL: theirs, ALONE: nothing}


def measure(world: World, rounds: int, batch: int, side: int) -> list[Timed]:
    """Each in turn and then in the other order; all processes begin a step together."""
    every = steps(world, batch, side)
    milliseconds: dict[str, list[float]] = {name: [] for name in every}
    for name, counts in in_turns(every, rounds, warm_ups=2):
        dist.barrier()
        started = time.perf_counter()
        every[name]()
        taken = torch.tensor(1000 * (time.perf_counter() - started))
        dist.all_reduce(taken, dist.ReduceOp.MAX)
        if counts:
            milliseconds[name].append(float(taken))
    return [Timed(name, values) for name, values in milliseconds.items()]


def page(timed: Sequence[Timed], world_size: int, batch: int, command: str, date: str) -> str:
    """What was measured, as Markdown."""
    first = timed[0]
    lines = [
        f"# The exchange of gradients beside {THEIRS}, {date}",
        "",
        f"A step of {MODEL} ({batch} images a process, fp32, gloo, AdamW) in {world_size} "
        "processes on one machine, timed until the slower one",
        f"has ended; medians of {len(first.milliseconds)} interleaved rounds, the ratio is of each "
        "round [least, most].",
        "",
        f"| exchange | ms a step | of {THEIRS}'s time |",
        "| --- | --- | --- |",
    ]
    for each in timed:
        lines.append(
            f"| {each.name} | {statistics.median(each.milliseconds):.0f} | "
            f"{spread(ratios(each.milliseconds, first.milliseconds), 3)} |"
        )
    lines += ["", footer(f"`{command}`", device_name(torch.device("cpu")))]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None, results: Path = RESULTS) -> None:
    """Measure, and the first process prints the page and writes it into the folder `results`."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=30)
    add("--batch", type=int, default=4, help="images of a process")
    add("--image-size", type=int, default=SIDE)
    options = parser.parse_args(argv)
    world = join("cpu")
    timed = measure(world, options.rounds, options.batch, options.image_size)
    if world.rank == 0:
        command = (
            f"OMP_NUM_THREADS=1 torchrun --nproc-per-node {world.size} baselines/exchange.py "
            f"--rounds {options.rounds} --batch {options.batch} --image-size {options.image_size}"
        )
        text = page(timed, world.size, options.batch, command, today())
        write_page(results, "exchange-cpu", text)
    leave(world)


if __name__ == "__main__":
    main()
