"""Class by class: how many images of each are right, and which are taken for which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mixbench.report.drawing import BAND, FAINT, Drawing, fitted, wrapped
from mixbench.report.looks import look_of
from mixbench.report.numbers import cell
from mixbench.runs.samples import ImageResults

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

    from mixbench.report.significance import Paired

Images = Mapping[tuple[str, int], ImageResults]  # by strategy and seed

MOST_ROWS = 20  # classes in the diagram at most
MOST_INCHES = 9.0  # of its rows, which are the taller the more strategies there are
MOST_LISTED = 1000  # classes in the table of all
MOST_PAIRS = 10  # in the table of what is taken for what
TITLE = 22  # letters of a class beside the diagram
LEGEND = 44  # letters of a strategy's line below it


# How many are right.


class ByClass(NamedTuple):
    """The accuracy of each of K classes by strategy, and their images."""

    accuracy: dict[str, np.ndarray]  # (K,) percent, mean over the seeds; NaN without images
    images: np.ndarray  # (K,) validation images

    def spread(self) -> np.ndarray:
        """How far the strategies lie apart in each class, (K,) in points; NaN without images."""
        every = np.stack(list(self.accuracy.values()))
        return every.max(0) - every.min(0)

    def order(self, baseline: str) -> list[int]:
        """The classes with images, those first in which the strategies lie furthest apart.

        Of equal ones that first whose accuracy with the baseline, or the first strategy, is lower.
        """
        first = self.accuracy.get(baseline, next(iter(self.accuracy.values())))
        spread = self.spread().round(9)  # what is equal but for rounding
        known = np.flatnonzero(np.isfinite(spread))
        return sorted(known.tolist(), key=lambda k: (-spread[k], first[k]))


def class_count(images: Images) -> int:
    """One more than the highest class that an image is of, or was taken for; 0 without images."""
    arrays = [array for each in images.values() for array in (each.label, each.predicted)]
    return 1 + max((int(array.max(initial=-1)) for array in arrays), default=-1)


def by_class(images: Images, strategies: Sequence[str], classes: int) -> ByClass:
    """The accuracy of `classes` classes with each of the strategies that has results of images."""
    accuracy: dict[str, list[np.ndarray]] = {}
    counts = np.zeros(classes, int)
    for (spec, _), each in images.items():
        count = np.bincount(each.label, minlength=classes)
        right = np.bincount(each.label[each.bitmap.right], minlength=classes)
        accuracy.setdefault(spec, []).append(100 * right / np.where(count, count, np.nan))
        counts = np.maximum(counts, count)
    means = {spec: np.mean(accuracy[spec], 0) for spec in strategies if spec in accuracy}
    return ByClass(means, counts)


def rows_shown(strategies: int) -> int:
    """How many classes have room in the diagram of so many strategies."""
    return max(1, min(MOST_ROWS, int(MOST_INCHES / _row_inches(strategies))))


def _row_inches(strategies: int) -> float:
    return max(0.3, 0.075 * strategies + 0.1)


def draw_classes(axis: Axes, found: ByClass, shown: Sequence[int], titles: Sequence[str]) -> None:
    """The accuracy of the classes `shown`, a row each: a mark a strategy, above one another."""
    lane = 0.75 / len(found.accuracy)  # of a row, for each strategy
    for row, label in enumerate(shown):
        values = [each[label] for each in found.accuracy.values()]
        axis.plot([min(values), max(values)], [row, row], color=FAINT, linewidth=1)
        if row % 2:
            axis.axhspan(row - 0.5, row + 0.5, color=BAND, alpha=0.35, linewidth=0, zorder=0)
    for number, (spec, accuracy) in enumerate(found.accuracy.items()):
        look = look_of(spec)
        shift = lane * (number - (len(found.accuracy) - 1) / 2)
        axis.plot(
            [accuracy[label] for label in shown],
            [row + shift for row in range(len(shown))],
            linestyle="",
            markersize=6,
            label=wrapped(spec, LEGEND),
            **look.style,
        )
    axis.set_yticks(range(len(shown)), [fitted(titles[label], TITLE) for label in shown])
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("images of the class that are right (%)")


def classes_figure(found: ByClass, baseline: str, titles: Sequence[str]) -> str:
    """The accuracy of the classes in which the strategies lie furthest apart, as SVG."""
    shown = found.order(baseline)[: rows_shown(len(found.accuracy))]
    names = [wrapped(spec, LEGEND) for spec in found.accuracy]
    columns = 3 if max(map(len, names)) <= LEGEND // 3 else 1
    lines = sum(name.count("\n") + 1 for name in names) / columns
    drawing = Drawing(
        "classes",
        "Accuracy of single classes with each strategy",
        0.7 + len(shown) * _row_inches(len(found.accuracy)) + 0.19 * math.ceil(lines),
    )
    with drawing as [axis]:
        draw_classes(axis, found, shown, titles)
        drawing.figure.legend(loc="outside lower center", ncols=columns)
    return drawing.svg


def class_rows(found: ByClass, baseline: str, titles: Sequence[str]) -> list[tuple[str, ...]]:
    """The class, its images, and its accuracy with each strategy, in the diagram's order."""
    return [
        (
            titles[label],
            f"{found.images[label]:,}",
            *(cell(float(each[label]), 1) for each in found.accuracy.values()),
        )
        for label in found.order(baseline)
    ]


# Which are taken for which.


class Pair(NamedTuple):
    """Images of one class that were taken for another."""

    label: int  # the true class
    predicted: int
    counts: dict[str, float]  # images by strategy, mean over its seeds


def confused_pairs(images: Images, strategies: Sequence[str], classes: int) -> list[Pair]:
    """The MOST_PAIRS commonest confusions, by their mean over the strategies, most images first.

    An image whose scores are not finite is taken for nothing. Of equal ones that of the lower
    classes comes first.
    """
    seeds = {spec: sum(name == spec for name, _ in images) for spec in strategies}
    present = [spec for spec in strategies if seeds[spec]]
    sums: dict[int, dict[str, int]] = {}
    for (spec, _), each in images.items():
        wrong = (each.predicted != each.label) & (each.predicted >= 0)
        keys = each.label[wrong].astype(np.int64) * classes + each.predicted[wrong]
        for key, count in zip(*np.unique(keys, return_counts=True), strict=True):
            of_pair = sums.setdefault(int(key), dict.fromkeys(present, 0))
            if spec in of_pair:
                of_pair[spec] += int(count)
    pairs = [
        Pair(*divmod(key, classes), {spec: count / seeds[spec] for spec, count in of_pair.items()})
        for key, of_pair in sorted(sums.items())
    ]
    pairs.sort(key=lambda pair: -sum(pair.counts.values()))
    return pairs[:MOST_PAIRS]


def pair_rows(
    pairs: Sequence[Pair], found: ByClass, titles: Sequence[str]
) -> list[tuple[str, ...]]:
    """Both classes, the images of the true one, and how many each strategy takes for the other."""
    rows = []
    for label, predicted, counts in pairs:
        images = found.images[label]
        shares = (f"{cell(n, 1)} ({cell(100 * n / images, 0)} %)" for n in counts.values())
        rows.append((f"{titles[label]} → {titles[predicted]}", f"{images:,}", *shares))
    return rows


# The section of a page.


class ClassByClass(NamedTuple):
    """What a page shows of single classes."""

    figure: Markup  # SVG
    words: str  # of which classes it is, and of how many images
    header: Sequence[str]
    rows: Sequence[tuple[str, ...]]  # of every class; none where they are more than MOST_LISTED
    pairs_header: Sequence[str]
    pairs: Sequence[tuple[str, ...]]


def class_by_class(
    images: Images, titles: Sequence[str], comparison: Paired | None
) -> ClassByClass | None:
    """The section of the strategies of a comparison; None without results of images.

    titles (K,) are what the classes are called, one for each at least.
    """
    from markupsafe import Markup

    if comparison is None:
        return None
    strategies = [summary.strategy for summary in comparison.summaries]
    found = by_class(images, strategies, len(titles))
    order = found.order(comparison.baseline) if found.accuracy else []
    if not order:
        return None
    listed = len(order) <= MOST_LISTED
    pairs = confused_pairs(images, strategies, len(titles))
    return ClassByClass(
        figure=Markup(classes_figure(found, comparison.baseline, titles)),
        words=_words(found, len(order)),
        header=("class", "images", *found.accuracy),
        rows=class_rows(found, comparison.baseline, titles) if listed else (),
        pairs_header=("class → taken for", "images", *found.accuracy),
        pairs=pair_rows(pairs, found, titles),
    )


def _words(found: ByClass, known: int) -> str:
    """Which classes the diagram shows, and how much an image is worth."""
    shown = rows_shown(len(found.accuracy))
    some = found.images[found.images > 0]
    fewest, most = int(some.min()), int(some.max())
    count = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    several = len(found.accuracy) > 1
    what = "in which the strategies lie furthest apart" if several else "of the lowest accuracy"
    which = (
        f"The {shown} of {known:,} classes {what}."
        if known > shown
        else f"The classes {what} stand first."
    )
    unseen = len(found.images) - known
    without = f" {unseen:,} without validation images are left out." if unseen else ""
    return f"{which}{without} A class has {count} validation images."
