"""The report's diagrams, drawn from numbers alone.

A function `draw_...` draws on given axes; a function `..._figure` makes the SVG text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mixbench.report.drawing import (
    BAND,
    FAINT,
    INK,
    Drawing,
    fitted,
    label_beside,
    label_room,
    wrapped,
)
from mixbench.report.looks import look_of
from mixbench.report.significance import Difference, Figures, Paired, Summary, compare
from mixbench.runs.rows import EpochRow, SpeedRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONG_RUN = 20  # epochs from which the curves' axis leaves out what the first quarter alone reaches


def _height(names: Sequence[str], row: float) -> float:
    """Inches of a diagram with a row for each name; the longest name sets the rows' height."""
    return 0.8 + len(names) * max(row, 0.16 * max(wrapped(name).count("\n") + 1 for name in names))


def _label_rows(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), [wrapped(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)


# Seeds and their mean, a row for each strategy.


def _draw_dots(axis: Axes, row: int, figures: Summary | Difference) -> None:
    """Every seed as a dot below the mean with its interval."""
    assert figures.mean is not None
    colour = look_of(figures.strategy).colour
    values = list(figures.values.values())
    axis.plot(
        values,
        [row + 0.22] * len(values),
        linestyle="",
        marker="o",
        markersize=4.5,
        color=colour,
        alpha=0.6,
    )
    if figures.low is not None and figures.high is not None:
        axis.plot([figures.low, figures.high], [row - 0.08] * 2, color=colour, linewidth=2)
    axis.plot(
        [figures.mean], [row - 0.08], marker="|", markersize=13, markeredgewidth=2.5, color=colour
    )


def draw_accuracy(axis: Axes, summaries: Sequence[Summary]) -> None:
    """Top-1 of each strategy: mean, 95 % t interval and every seed, a row each."""
    for row, summary in enumerate(summaries):
        _draw_dots(axis, row, summary)
    _label_rows(axis, [summary.strategy for summary in summaries])
    axis.set_xlabel("top-1 (%)")


def accuracy_figure(comparison: Paired) -> str:
    """Top-1 of each strategy that has one, as SVG."""
    summaries = [summary for summary in comparison.summaries if summary.mean is not None]
    drawing = Drawing(
        "accuracy",
        "Top-1 of each strategy, with every seed",
        _height([summary.strategy for summary in summaries], 0.55),
    )
    with drawing as [axis]:
        draw_accuracy(axis, summaries)
    return drawing.svg


def draw_differences(axis: Axes, differences: Sequence[Difference], baseline: str) -> None:
    """Top-1 minus the baseline's: mean, BCa interval and every seed, a row each, beside 0."""
    from rich.cells import cell_len

    axis.axvline(0, color=INK, linewidth=1)
    for row, difference in enumerate(differences):
        _draw_dots(axis, row, difference)
    _label_rows(axis, [difference.strategy for difference in differences])
    widest = max(cell_len(line) for d in differences for line in wrapped(d.strategy).splitlines())
    gap = "\n" if widest + cell_len(baseline) > 34 else " "  # the label has the axis' room
    axis.set_xlabel(f"top-1 minus {fitted(baseline, 26)}'s,{gap}same seed (points)")


def difference_figure(comparison: Paired, name: str = "differences") -> str:
    """Top-1 of each strategy minus the baseline's, as SVG; of several on a page each has a name."""
    differences = [d for d in comparison.differences if d.mean is not None]
    drawing = Drawing(
        name,
        f"Top-1 of each strategy minus that of {comparison.baseline}, by seed",
        _height([difference.strategy for difference in differences], 0.55),
    )
    with drawing as [axis]:
        draw_differences(axis, differences, comparison.baseline)
    return drawing.svg


# Accuracy against cost.


class Cost(NamedTuple):
    """What a strategy costs, with its interval, which may be missing."""

    value: float
    low: float | None
    high: float | None


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of points that no other is as fast and as accurate as, and better in either.

    Points are (speed, accuracy); the names go from slow to fast.
    """

    def beaten(speed: float, accuracy: float) -> bool:
        return any(
            s >= speed and a >= accuracy and (s, a) != (speed, accuracy) for s, a in points.values()
        )

    return sorted(
        (name for name, point in points.items() if not beaten(*point)),
        key=lambda name: points[name],
    )


def draw_cost(
    axis: Axes,
    summaries: Sequence[Summary],
    costs: Mapping[str, Cost],
    label: str,
    band: tuple[float, float] | None,
    height: float,
) -> None:
    """Top-1 and its interval against a speed and its interval; better is up and to the right.

    `band` is what a control leaves open of the speed; the line is the front of the means; names
    stand beside axes of `height` inches.
    """
    means = {s.strategy: (costs[s.strategy].value, float(s.mean or 0)) for s in summaries}
    if band:
        axis.axvspan(*band, color=BAND, linewidth=0, zorder=0)
    front = [means[name] for name in pareto_front(means)]
    axis.plot(*zip(*front, strict=True), color=FAINT, linewidth=1, linestyle="--", zorder=1)
    for summary in summaries:
        look, cost = look_of(summary.strategy), costs[summary.strategy]
        value, accuracy = means[summary.strategy]
        if summary.low is not None and summary.high is not None:
            axis.plot([value] * 2, [summary.low, summary.high], color=look.colour, linewidth=1.2)
        if cost.low is not None and cost.high is not None:
            axis.plot([cost.low, cost.high], [accuracy] * 2, color=look.colour, linewidth=1.2)
        axis.plot(
            [value],
            [accuracy],
            markersize=7,
            linestyle="",
            label=summary.strategy,
            **look.style,
        )
    axis.margins(0.08)
    axis.set(xlabel=label, ylabel="top-1 (%)")
    label_beside(axis, means, height)


def cost_figure(
    comparison: Paired,
    costs: Mapping[str, Cost],
    label: str,
    band: tuple[float, float] | None = None,
) -> str:
    """Mean top-1 against a speed, as SVG; `band` is what a control leaves open of it."""
    summaries = [s for s in comparison.summaries if s.mean is not None and s.strategy in costs]
    height = max(2.6, label_room([summary.strategy for summary in summaries]))
    drawing = Drawing("cost", "Top-1 against speed", height + 0.6)
    with drawing as [axis]:
        draw_cost(axis, summaries, costs, label, band, height)
    return drawing.svg


# Accuracy against the label error.


def removed_errors(errors: Mapping[str, Figures], baseline: str) -> dict[str, float]:
    """How many points of the baseline's label error each strategy removes, mean of shared seeds.

    `none` mixes nothing, so that it has no error to remove, and is left out.
    """
    if baseline not in errors:
        return {}
    return {
        each.strategy: -each.mean
        for each in compare(errors, baseline=baseline).differences
        if each.mean is not None and each.strategy != "none"
    }


def draw_gains(
    axis: Axes, differences: Sequence[Difference], removed: Mapping[str, float], height: float
) -> None:
    """Top-1 gained over the baseline and its interval against the label error removed.

    The baseline is where the lines cross; names stand beside axes of `height` inches.
    """
    axis.axhline(0, color=INK, linewidth=1)
    axis.axvline(0, color=INK, linewidth=1)
    points = {}
    for difference in differences:
        look, across = look_of(difference.strategy), removed[difference.strategy]
        points[difference.strategy] = across, float(difference.mean or 0)
        if difference.low is not None and difference.high is not None:
            interval = [difference.low, difference.high]
            axis.plot([across] * 2, interval, color=look.colour, linewidth=1.2)
        axis.plot(*points[difference.strategy], markersize=7, linestyle="", **look.style)
    axis.margins(0.08)
    baseline = differences[0].baseline
    axis.set(
        xlabel=f"label error removed of {fitted(baseline, 20)}'s (points)",
        ylabel="top-1 gained (points)",
    )
    label_beside(axis, points, height)


def gains_figure(comparison: Paired, errors: Mapping[str, Figures]) -> str:
    """Top-1 gained over the baseline against the label error removed, as SVG; '' without any.

    errors are label errors in points, by strategy and seed.
    """
    removed = removed_errors(errors, comparison.baseline)
    differences = [
        each
        for each in comparison.differences
        if each.mean is not None and each.strategy in removed
    ]
    if not differences:
        return ""
    height = max(2.6, label_room([each.strategy for each in differences]))
    drawing = Drawing("gains", "Top-1 gained against label error removed", height + 0.6)
    with drawing as [axis]:
        draw_gains(axis, differences, removed, height)
    return drawing.svg


# Curves.

Curve = dict[int, float]  # a figure by epoch, from 1


def curves(
    logs: Mapping[tuple[str, int], Sequence[EpochRow]], column: str
) -> dict[str, list[Curve]]:
    """The finite figures of a column of the logs: curves by strategy, one for each run with any."""
    runs: dict[str, list[Curve]] = {}
    for (strategy, _), log in logs.items():
        figures = {row.epoch + 1: getattr(row, column) for row in log}
        run = {e: value for e, value in figures.items() if value is not None and np.isfinite(value)}
        if run:
            runs.setdefault(strategy, []).append(run)
    return runs


def draw_curves(axis: Axes, runs: Mapping[str, Sequence[Curve]], label: str, height: float) -> None:
    """Curves by epoch: a thin line a run, a thick one for the mean of those that came furthest.

    The names stand beside axes of `height` inches, at the curves' ends.
    """
    ends = {}
    for strategy in runs:
        look = look_of(strategy)
        if len(runs[strategy]) > 1:
            for run in runs[strategy]:
                epochs, values = list(run), list(run.values())
                axis.plot(epochs, values, color=look.colour, linewidth=0.7, alpha=0.45)
        last = max(max(run) for run in runs[strategy])
        whole = [run for run in runs[strategy] if last in run]
        epochs = sorted(set.intersection(*(set(run) for run in whole)))
        means = [float(np.mean([run[epoch] for run in whole])) for epoch in epochs]
        axis.plot(
            epochs,
            means,
            linewidth=2,
            markersize=5,
            markevery=max(1, len(epochs) // 8),
            label=strategy,
            **look.style,
        )
        ends[strategy] = (float(epochs[-1]), means[-1])
    axis.set(xlabel="epoch", ylabel=label)
    _leave_out_beginning(axis)
    axis.locator_params(axis="x", integer=True)
    label_beside(axis, ends, height)


def _leave_out_beginning(axis: Axes) -> None:
    """Fit the axis of a long run to what comes after its first quarter."""
    end = axis.dataLim.x1
    if end < LONG_RUN:
        return
    late: list[float] = []
    for line in axis.lines:
        epochs, values = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        late += values[epochs > end / 4].tolist()
    pad = 0.05 * (max(late) - min(late)) or 1
    axis.set_ylim(min(late) - pad, max(late) + pad)


def curves_figure(
    logs: Mapping[tuple[str, int], Sequence[EpochRow]],
    column: str,
    label: str,
    strategies: Sequence[str],
) -> str:
    """A column of the logs by epoch, as SVG; '' where it has no figures."""
    runs = curves(logs, column)
    if not runs:
        return ""
    runs = {name: runs[name] for name in strategies if name in runs}
    height = max(2.6, label_room(runs))
    drawing = Drawing(f"curves-{column}", f"{label} by epoch", height + 0.6)
    with drawing as [axis]:
        draw_curves(axis, runs, label, height)
    return drawing.svg


# The speed of a step.


def draw_ratios(axis: Axes, rows: Sequence[SpeedRow], band: tuple[float, float] | None) -> None:
    """The speed as a ratio to CutMix with its interval, a row each, beside 1 and the band.

    The band is CutMix timed against itself: an interval that meets it, or 1, shows no difference.
    """
    if band:
        axis.axvspan(*band, color=BAND, linewidth=0, zorder=0, label="CutMix against itself")
    axis.axvline(1, color=INK, linewidth=1, zorder=1)
    for place, row in enumerate(rows):
        assert row.ratio_to_cutmix is not None
        look = look_of(row.strategy)
        if row.ratio_lo is not None and row.ratio_hi is not None:
            axis.plot([row.ratio_lo, row.ratio_hi], [place] * 2, color=look.colour, linewidth=2)
        axis.plot(
            [row.ratio_to_cutmix],
            [place],
            markersize=7,
            linestyle="",
            **look.style,
        )
    _label_rows(axis, [row.strategy for row in rows])
    axis.set_xlabel("speed, ratio to CutMix (right is faster)")


def control_band(rows: Sequence[SpeedRow]) -> tuple[float, float] | None:
    """What CutMix timed against itself leaves open in all of the rows; None where it is unknown."""
    lows = [row.control_lo for row in rows if row.control_lo is not None]
    highs = [row.control_hi for row in rows if row.control_hi is not None]
    return (min(lows), max(highs)) if lows and highs else None


def ratio_figure(rows: Sequence[SpeedRow]) -> str:
    """The ratios to CutMix with their intervals and the control band, as SVG."""
    drawing = Drawing(
        "ratios",
        "Speed of each strategy as a ratio to CutMix",
        0.3 + _height([row.strategy for row in rows], 0.34),
    )
    with drawing as [axis]:
        band = control_band(rows)
        draw_ratios(axis, rows, band)
        if band:
            drawing.figure.legend(loc="outside lower center")
    return drawing.svg


# What the labels say.

MOST_POINTS = 300  # of a strategy in the picture of its labels
BESIDE = 0.005  # a share of the label that is further from that by area is not of rounding


class Shares(NamedTuple):
    """A's share by area and in the label of mixed images, (N, 2), and how far they lie apart."""

    pairs: np.ndarray
    apart: float  # mean distance of the two, in points

    @property
    def by_area(self) -> bool:
        """Whether every label is that by area."""
        return bool(np.all(np.abs(self.pairs[:, 0] - self.pairs[:, 1]) <= BESIDE))


def shares_of(pairs: np.ndarray) -> Shares | None:
    """The images of a sample (N, 2) that were mixed; None where there is none.

    An image that stayed as it was has all of A in both and says nothing.
    """
    pairs = pairs[np.isfinite(pairs).all(1)]
    pairs = pairs[(pairs < 1).any(1)]
    if not len(pairs):
        return None
    return Shares(pairs, float(100 * np.abs(pairs[:, 0] - pairs[:, 1]).mean()))


def draw_shares(axis: Axes, strategy: str, shares: Shares) -> None:
    """A's share in the label against its share by area, a dot an image, beside the identity."""
    look = look_of(strategy)
    every = -(-len(shares.pairs) // MOST_POINTS)
    area, used = shares.pairs[::every].T
    axis.plot([0, 1], [0, 1], color=INK, linewidth=1)
    axis.plot(
        area,
        used,
        linestyle="",
        marker=look.marker,
        markersize=3,
        markerfacecolor="none",
        markeredgewidth=0.7,
        color=look.colour,
    )
    name = "\n".join(fitted(line, 26) for line in wrapped(strategy, 26).splitlines())
    title = f"{name}\n{shares.apart:.1f} points from the line"
    axis.set_title(title, fontsize=9, loc="left")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")


def shares_figure(shares: Mapping[str, Shares]) -> str:
    """The label's share against that by area of each strategy, two beside one another, as SVG."""
    columns, rows = min(2, len(shares)), -(-len(shares) // 2)
    drawing = Drawing(
        "shares",
        "A's share in the label against its share by area",
        2.9 * rows + (0 if columns > 1 else 1.2),
        rows=rows,
        columns=columns,
    )
    with drawing as axes:
        for axis, (strategy, each) in zip(axes, shares.items(), strict=False):
            draw_shares(axis, strategy, each)
        for axis in axes[len(shares) :]:
            axis.set_visible(False)
        drawing.figure.supxlabel("A's share by area", fontsize=10)
        drawing.figure.supylabel("A's share in the label", fontsize=10)
    return drawing.svg
