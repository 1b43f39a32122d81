"""Top-1 with more and more patches of each image dropped (the paper's section 4.3, Figure 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

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
    Batch,
    Perturb,
    labels_of,
    percent,
    permutations,
    right_under,
)
from mixbench.evaluations.robustness import (
    LEVELS,
    area_under,
    drop_counts,
    first_of,
    hide,
    least_first,
    mass_counts,
    on_grid,
)
from mixbench.models.class_token import patch_grid
from mixbench.runtime import Runtime
from mixbench.services.attention import attention_tap
from mixbench.values import option

OFFICIAL = 14  # rows and columns of IPViT's patches
RANDOM, SALIENT, OTHERS = "random", "salient", "non-salient"


@dataclass(frozen=True, kw_only=True)
class Occlusion(Evaluation):
    """How far top-1 drops when patches are black: any, the most salient, or the least salient.

    Level k of 10 drops k / 10 of the patches. Every image has an order of its own by its number and
    the seed, so all models see the same. The headline is the mean drop over the levels, in points.
    Differs: IPViT draws one order a batch, and by mass drops other shares of the patches than the
    level says; here the default is by count.
    """

    name: ClassVar[str] = "occlusion"
    section: ClassVar[str] = "Robustness"
    detail: ClassVar[str] = "drop"

    saliency: str = option(
        "",
        group="occlusion",
        help="the class attention that says what is salient: self is the model's own, any other "
        "name a provider's as in transmix(attention=...); without one patches are dropped at "
        "random alone",
    )
    by: str = option(
        "count",
        group="occlusion",
        choices=("count", "mass"),
        help="whether a level is a share of the patches or of the saliency's sum",
    )
    draw: int = option(0, group="occlusion", at_least=0, help="seed of the random orders")

    @property
    def headline(self) -> Headline:
        return Headline(RANDOM, "mean_drop", higher_is_better=False)

    def measure(self, subject: Subject, data: EvalImages, runtime: Runtime) -> Result:
        """Top-1 and its drop at each level, and over the levels the mean drop and the area."""
        grid = occlusion_grid(subject)
        plan = _Plan(self, subject, grid)
        right = right_under(subject, data, runtime, plan.perturbations(), plan.watch)
        n, clean = len(right[""]), percent(right[""])
        figures = [Figure(setting="clean", metric="top1", value=clean, n=n)]
        for order in plan.orders:
            names = [_setting(order, level) for level in range(1, LEVELS)]
            drops = [clean - percent(right[name]) for name in names]
            for name, drop in zip(names, drops, strict=True):
                figures.append(Figure(setting=name, metric="top1", value=clean - drop, n=n))
                figures.append(Figure(setting=name, metric="drop", value=drop, n=n))
            shares = [plan.share(order, level, n) for level in range(LEVELS)]
            for name, share in zip(names, shares[1:], strict=True):
                figures.append(Figure(setting=name, metric="dropped_share", value=share, n=n))
            heights = [clean, *(clean - drop for drop in drops)]
            mean = sum(drops) / len(drops)
            figures.append(Figure(setting=order, metric="mean_drop", value=mean, n=n))
            area = area_under(shares, heights)
            figures.append(Figure(setting=order, metric="area_under_top1", value=area, n=n))
        return Result(figures=tuple(figures), images=right, labels=labels_of(subject, data))


def _setting(order: str, level: int) -> str:
    return f"{order} {level / LEVELS:.1f}"


def occlusion_grid(subject: Subject) -> tuple[int, int]:
    """14 x 14 where it divides the images' side, else the model's own patches.

    ValueError where there is neither.
    """
    side = subject.recipe.image_size
    if side % OFFICIAL == 0:
        return OFFICIAL, OFFICIAL
    grid = patch_grid(subject.model, side, side)
    if grid is None or side % grid[0] or side % grid[1]:
        raise ValueError(
            f"occlusion drops 14 x 14 patches or the model's own, and images of {side} px are no "
            f"multiple of 14 and {subject.recipe.model} has no patches: take an --image-size that "
            "is"
        )
    return grid


class _Plan:
    """The orders in which the patches of each image are dropped, and what that comes to."""

    def __init__(self, options: Occlusion, subject: Subject, grid: tuple[int, int]):
        self.options, self.grid, self.cells = options, grid, grid[0] * grid[1]
        self.orders = (RANDOM, SALIENT, OTHERS) if options.saliency else (RANDOM,)
        name = "last" if options.saliency == "self" else options.saliency
        self._tap: Any = attention_tap(subject.model, name) if name else None
        self._saliency: Tensor | None = None
        self._order: dict[str, Tensor] = {}  # of the batch, (B, cells)
        self._dropped: dict[tuple[str, int], int] = {}

    def watch(self, batch: Batch) -> None:
        """Look at a batch: the order of its patches."""
        self._order[RANDOM] = permutations(batch, self.options.draw, self.cells)
        if self._tap is None:
            return
        with self._tap:
            attn = self._tap(batch.images).attn
        self._saliency = on_grid(attn, self.grid)
        self._order[OTHERS] = least_first(self._saliency)
        self._order[SALIENT] = self._order[OTHERS].flip(1)

    def perturbations(self) -> dict[str, Perturb]:
        """Each order's levels from the second on, by name."""
        return dict(self._levels())

    def _levels(self) -> Iterator[tuple[str, Perturb]]:
        for order in self.orders:
            for level in range(1, LEVELS):
                yield _setting(order, level), partial(self._drop, order, level)

    def _drop(self, order: str, level: int, batch: Batch) -> Tensor:
        patches = self._order[order]
        if self.options.by == "mass" and order != RANDOM:
            assert self._saliency is not None
            counts = mass_counts(self._saliency, level / LEVELS, salient=order == SALIENT)
        else:
            counts = patches.new_full((len(patches),), drop_counts(self.cells)[level])
        key = order, level
        self._dropped[key] = self._dropped.get(key, 0) + int(counts.sum())
        return hide(batch.pixels, first_of(patches, counts).view(-1, *self.grid))

    def share(self, order: str, level: int, images: int) -> float:
        """The share of all images' patches that a level dropped."""
        return self._dropped.get((order, level), 0) / (images * self.cells)
