"""Top-1 with the patches of each image in another order (the paper's section 4.3, Figure 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from mixbench.evaluations.evaluation import (
    EvalImages,
    Evaluation,
    Figure,
    Headline,
    Result,
    Subject,
)
from mixbench.evaluations.perturbed import (
    IPVIT,
    PROTOCOLS,
    Batch,
    as_ipvit,
    drop_of_each,
    labels_of,
    percent,
    permutations,
    right_under,
)
from mixbench.evaluations.robustness import SHUFFLE_GRIDS, shuffle_patches
from mixbench.models.class_token import patches_of
from mixbench.runtime import Runtime
from mixbench.values import option

ALIGNED, UNALIGNED = "aligned", "unaligned"


@dataclass(frozen=True, kw_only=True)
class Shuffle(Evaluation):
    """How far top-1 drops when an image's cells are shuffled, by the grid of cells.

    A grid is aligned where its cells are whole patches of the model: others cut patches apart too,
    so the two are averaged apart. Every image has a permutation of its own by its number and the
    seed. The headline is the mean drop over the grids that divide the images, in points.
    Differs: IPViT draws one permutation a batch, as `protocol="ipvit"` does.
    """

    name: ClassVar[str] = "shuffle"
    section: ClassVar[str] = "Robustness"
    detail: ClassVar[str] = "drop"

    protocol: str = option(
        "recipe",
        group="shuffle",
        choices=PROTOCOLS,
        help="ipvit: one permutation a batch, images resized bilinearly to 256",
    )
    draw: int = option(0, group="shuffle", at_least=0, help="seed of the permutations")

    @property
    def headline(self) -> Headline:
        return Headline("", "mean_drop", higher_is_better=False)

    def measure(self, subject: Subject, data: EvalImages, runtime: Runtime) -> Result:
        """Top-1 and its drop for each grid, and the mean drops."""
        ipvit = self.protocol == IPVIT
        subject = as_ipvit(subject) if ipvit else subject
        side = subject.recipe.image_size
        grids = [grid for grid in SHUFFLE_GRIDS if side % grid[0] == 0 and side % grid[1] == 0]
        for rows, columns in SHUFFLE_GRIDS:
            if (rows, columns) not in grids:
                runtime.say(f"shuffle leaves {rows}x{columns} out: it does not divide {side} px")
        if not grids:
            raise ValueError(
                f"no grid of shuffle divides images of {side} px: take a multiple of 4"
            )
        names = {grid: f"{grid[0]}x{grid[1]}" for grid in grids}
        perturbations = {names[grid]: partial(_shuffled, grid, self.draw, ipvit) for grid in grids}
        right = right_under(subject, data, runtime, perturbations)
        n, clean = len(right[""]), percent(right[""])
        figures = [Figure(setting="clean", metric="top1", value=clean, n=n)]
        drops = {grid: clean - percent(right[names[grid]]) for grid in grids}
        for grid, drop in drops.items():
            figures.append(Figure(setting=names[grid], metric="top1", value=clean - drop, n=n))
            figures.append(Figure(setting=names[grid], metric="drop", value=drop, n=n))
        figures += _means(drops, patches_of(subject.model, side, side), n)
        each = drop_of_each(right, list(names.values()))
        labels = labels_of(subject, data)
        return Result(figures=tuple(figures), images=right, each=each, labels=labels)


def _shuffled(grid: tuple[int, int], draw: int, alike: bool, batch: Batch) -> Tensor:
    orders = permutations(batch, draw, grid[0] * grid[1], alike=alike)
    return shuffle_patches(batch.pixels, orders, grid)


def _means(
    drops: dict[tuple[int, int], float], patches: tuple[int, int] | None, n: int
) -> Iterator[Figure]:
    """The mean drop over all grids, over those whose cells are whole patches, over the others."""
    aligned = [
        grid
        for grid in drops
        if patches is not None and patches[0] % grid[0] == 0 and patches[1] % grid[1] == 0
    ]
    parts = {
        "": list(drops),
        ALIGNED: aligned,
        UNALIGNED: [grid for grid in drops if grid not in aligned],
    }
    for setting, grids in parts.items():
        if grids:
            mean = sum(drops[grid] for grid in grids) / len(grids)
            yield Figure(setting=setting, metric="mean_drop", value=mean, n=n)
