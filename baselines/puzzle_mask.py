"""Puzzle-Mix's mask beside graph cuts: the official gco (swap), and PyMaxflow's exact cut.

pip install gco-wrapper PyMaxflow
python baselines/puzzle_mask.py --data DIR

Neither is a dependency of mixbench: gco is for research alone, PyMaxflow under the GPL.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from baselines.rounds import command_of, footer, in_turns, one_thread, ratios, spread, write_page
from mixbench.data.datasets import open_data
from mixbench.data.loaders import eval_loader
from mixbench.distributed import World
from mixbench.puzzle import mask
from mixbench.puzzle.energy import block_saliency, mask_energy
from mixbench.recipe import Recipe, load_recipe
from mixbench.runs.environment import device_name, today
from mixbench.strategies.puzzlemix import PuzzleMix

RESULTS = Path(__file__).parents[1] / "results"
SIDES = (8, 16)  # of the mask; smaller ones are solved by dynamic programming
IMAGES, ALPHA = 128, 0.5  # alpha is A's share by the prior
CPU = torch.device("cpu")
Energy = tuple[Tensor, Tensor, Tensor]
Solver = Callable[[Energy], Tensor]  # labels (B, n, n)


@dataclass(frozen=True)
class Solved:
    """A solver on masks of one side: milliseconds in each round, and its gaps."""

    side: int
    name: str
    milliseconds: list[float]
    gaps: np.ndarray  # (B,) energy above the exact one, as a share of it


def energies(folder: Path, side: int) -> Energy:
    """The energies of photographs, whose saliency is the gradient of their own brightness."""
    recipe = load_recipe("deit_small", {})
    images = _images(folder, recipe)
    gradient = torch.zeros_like(images)
    gradient[..., 1:, 1:] = images.diff(dim=-1)[..., 1:, :] + images.diff(dim=-2)[..., 1:]
    puzzle, std = PuzzleMix(), torch.tensor(recipe.std).view(3, 1, 1)
    return mask_energy(
        block_saliency(gradient, side),
        images,
        std,
        ALPHA,
        num_labels=puzzle.num_labels,
        beta=puzzle.beta,
        gamma=puzzle.gamma,
        eta=puzzle.eta,
        cell=puzzle.neigh_size,
    )


def _images(folder: Path, recipe: Recipe) -> Tensor:
    data = open_data(data=folder, limit_val=IMAGES)
    loader = eval_loader(data.val, recipe, 0, CPU, World())
    return torch.cat([images for images, _ in loader])[:IMAGES]


def ours(energy: Energy) -> Tensor:
    """mixbench's dual solver, a batch at once."""
    return mask.solve_mask(*energy)[0]


def ours_in_fewer_steps(energy: Energy) -> Tensor:
    """The same with half of its steps."""
    steps = mask.STEPS
    mask.STEPS = steps // 2
    try:
        return ours(energy)
    finally:
        mask.STEPS = steps


def gco(energy: Energy) -> Tensor:
    """The official code's graph cuts by swaps, an image at a time, in whole numbers."""
    from gco import cut_grid_graph

    size = energy[0].shape[-1]
    levels = np.arange(size) / (size - 1)
    # 1e6 of the largest cost: gco counts in 32 bits
    scale = 1e6 / float(max(part.abs().max() for part in energy))
    pairwise = np.rint((levels[:, None] - levels) ** 2 * (size - 1) ** 2).astype(np.int32)
    found = []
    for unary, vertical, horizontal in zip(*(part.numpy() for part in energy), strict=True):
        costs = [unary, vertical / (size - 1) ** 2, horizontal / (size - 1) ** 2]
        whole = [np.rint(each * scale).astype(np.int32) for each in costs]
        labels = cut_grid_graph(whole[0], pairwise, whole[1], whole[2], algorithm="swap")
        found.append(torch.from_numpy(labels).view(unary.shape[:2]))
    return torch.stack(found).long()


def exact(energy: Energy) -> Tensor:
    """The exact minimum by one cut an image (Ishikawa, 2003), of PyMaxflow."""
    every = zip(*(part.double().numpy() for part in energy), strict=True)
    return torch.stack([_cut(*each) for each in every])


def _cut(unary: np.ndarray, vertical: np.ndarray, horizontal: np.ndarray) -> Tensor:
    """x[k] = [label > k] on the source's side; three labels."""
    from maxflow import GraphFloat

    n, _, size = unary.shape
    levels = size - 1
    graph = GraphFloat(levels * n * n, 8 * levels**2 * n * n)
    nodes = graph.add_grid_nodes((levels, n, n))
    cost = np.diff(unary, axis=2)
    for k in range(levels):  # what x[k] = 1 costs: cut from the sink where it is positive
        step = cost[:, :, k]
        graph.add_grid_tedges(nodes[k], np.maximum(-step, 0), np.maximum(step, 0))
        if k:  # x[k] <= x[k - 1]
            graph.add_edges(
                nodes[k].ravel(), nodes[k - 1].ravel(), np.full(n * n, 1e12), np.zeros(n * n)
            )
    for weight, first, second in (
        (vertical, np.s_[:, :-1], np.s_[:, 1:]),
        (horizontal, np.s_[:, :, :-1], np.s_[:, :, 1:]),
    ):
        part = weight.ravel() / levels**2
        one, other = nodes[first], nodes[second]
        for k in range(levels):
            graph.add_edges(one[k].ravel(), other[k].ravel(), part, part)
            for low in range(k):  # 2 (x[k] of the one - x[low] of the other)+, and turned round
                zeros = np.zeros_like(part)
                graph.add_edges(one[k].ravel(), other[low].ravel(), 2 * part, zeros)
                graph.add_edges(other[k].ravel(), one[low].ravel(), 2 * part, zeros)
    graph.maxflow()
    return torch.from_numpy((~graph.get_grid_segments(nodes)).sum(0))


def measure(folder: Path, rounds: int) -> list[Solved]:
    """Each solver in turn and then in the other order, ours twice as the control."""
    solvers: dict[str, Solver] = {
        "gco, swap": gco,
        "mixbench": ours,
        "mixbench again, the control": ours,
        "mixbench, half of its steps": ours_in_fewer_steps,
        "PyMaxflow, exact": exact,
    }
    solved = []
    for side in SIDES:
        energy = energies(folder, side)
        milliseconds: dict[str, list[float]] = {name: [] for name in solvers}
        found: dict[str, Tensor] = {}
        for name, counts in in_turns(solvers, rounds):
            started = time.process_time()
            found[name] = solvers[name](energy)
            if counts:
                milliseconds[name].append(1000 * (time.process_time() - started))
        costs = {name: mask.mask_cost(labels, *energy).numpy() for name, labels in found.items()}
        least = costs["PyMaxflow, exact"]
        solved += [
            Solved(side, name, milliseconds[name], (cost - least) / np.abs(least))
            for name, cost in costs.items()
        ]
    return solved


def page(solved: Sequence[Solved], command: str, date: str) -> str:
    """What was measured, as Markdown."""
    lines = [
        f"# Puzzle-Mix's mask beside graph cuts, {date}",
        "",
        f"CPU time of one thread for {IMAGES} pairs of photographs at 224 px, three labels; "
        f"medians of {len(solved[0].milliseconds)} interleaved rounds",
        "[least, most], the ratio is of each round. The gap is the energy above the least, as a "
        "share of it; an image counts as exact below 1e-7.",
        "",
        "| mask | solver | ms | of gco's time | mean gap | largest gap | exact |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    first = {each.side: each.milliseconds for each in solved if each.name.startswith("gco")}
    for each in sorted(solved, key=lambda each: (each.side, statistics.median(each.milliseconds))):
        lines.append(
            f"| {each.side} x {each.side} | {each.name} | "
            f"{statistics.median(each.milliseconds):.1f} | "
            f"{spread(ratios(each.milliseconds, first[each.side]), 2)} | "
            f"{max(each.gaps.mean(), 0):.1e} | {max(each.gaps.max(), 0):.1e} | "
            f"{100 * (each.gaps < 1e-7).mean():.0f} % |"
        )
    lines += [
        "",
        footer(
            f"`OMP_NUM_THREADS=1 {command}`, with gco-wrapper and PyMaxflow installed",
            device_name(CPU),
        ),
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None, results: Path = RESULTS) -> None:
    """Measure, print the page and write it into the folder `results`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="image folder with train/ and val/")
    add("--rounds", type=int, default=10)
    options = parser.parse_args(argv)
    with one_thread():
        solved = measure(options.data, options.rounds)
        text = page(solved, command_of("puzzle_mask", **vars(options)), today())
    write_page(results, "puzzle-mask", text)


if __name__ == "__main__":
    main()
