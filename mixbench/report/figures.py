"""The report's diagrams, drawn from numbers alone.

A function `draw_...` draws on given axes; a function `..._figure` makes the SVG text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mixbench.report.drawing import COLOURS, Drawing, Look, fitted, looks, wrapped
from mixbench.report.significance import Difference, Paired, Summary
from mixbench.runs.rows import EpochRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONG_RUN = 20  # epochs from which the curves' axis leaves out what the first quarter alone reaches
PHASES = ("mix", "forward", "backward", "optimizer")


def _height(names: Sequence[str], row: float) -> float:
    """Inches of a diagram with a row for each name; the longest name sets the rows' height."""
    return 0.8 + len(names) * max(row, 0.16 * max(wrapped(name).count("\n") + 1 for name in names))


def _label_rows(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), [wrapped(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)


def _columns(names: Sequence[str]) -> int:
    """Columns of a legend below a diagram."""
    return 2 if max(map(len, names)) <= 20 else 1


# Seeds and their mean, a row for each strategy.


def _draw_dots(axis: Axes, row: int, figures: Summary | Difference, colour: str) -> None:
    """Every seed as a dot below the mean with its interval."""
    assert figures.mean is not None
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


def draw_accuracy(axis: Axes, summaries: Sequence[Summary], style: Mapping[str, Look]) -> None:
    """Top-1 of each strategy: mean, 95 % t interval and every seed, a row each."""
    for row, summary in enumerate(summaries):
        _draw_dots(axis, row, summary, style[summary.strategy].colour)
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
        draw_accuracy(axis, summaries, _looks(comparison))
    return drawing.svg


def draw_differences(
    axis: Axes, differences: Sequence[Difference], baseline: str, style: Mapping[str, Look]
) -> None:
    """Top-1 minus the baseline's: mean, BCa interval and every seed, a row each, beside 0."""
    from rich.cells import cell_len

    axis.axvline(0, color="#333333", linewidth=1)
    for row, difference in enumerate(differences):
        _draw_dots(axis, row, difference, style[difference.strategy].colour)
    _label_rows(axis, [difference.strategy for difference in differences])
    widest = max(cell_len(line) for d in differences for line in wrapped(d.strategy).splitlines())
    gap = "\n" if widest + cell_len(baseline) > 34 else " "  # the label has the axis' room
    axis.set_xlabel(f"top-1 minus {fitted(baseline, 26)}'s,{gap}same seed (points)")


def difference_figure(
    comparison: Paired, name: str = "differences", strategies: Sequence[str] = ()
) -> str:
    """Top-1 of each strategy minus the baseline's, as SVG.

    Where a page has several, each has its name, and a strategy the look of its place in
    `strategies`.
    """
    differences = [d for d in comparison.differences if d.mean is not None]
    drawing = Drawing(
        name,
        f"Top-1 of each strategy minus that of {comparison.baseline}, by seed",
        _height([difference.strategy for difference in differences], 0.55),
    )
    with drawing as [axis]:
        style = looks(strategies) if strategies else _looks(comparison)
        draw_differences(axis, differences, comparison.baseline, style)
    return drawing.svg


def _looks(comparison: Paired) -> dict[str, Look]:
    return looks([summary.strategy for summary in comparison.summaries])


# Accuracy against cost.


class Point(NamedTuple):
    """A training time and the accuracy that it bought."""

    cost: float
    accuracy: float


def pareto_front(points: Mapping[str, Point | tuple[float, float]]) -> list[str]:
    """The names of points that no other is as cheap and as accurate as, and better in either.

    Points are (cost, accuracy); the names go from cheap to costly.
    """

    def beaten(cost: float, accuracy: float) -> bool:
        return any(
            c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points.values()
        )

    return sorted(
        (name for name, point in points.items() if not beaten(*point)),
        key=lambda name: points[name],
    )


def draw_cost(
    axis: Axes,
    summaries: Sequence[Summary],
    costs: Mapping[str, Sequence[float]],
    unit: str,
    style: Mapping[str, Look],
) -> None:
    """Top-1 and its interval against the training time of a run, its mean and range.

    costs[strategy] are the times of its runs in `unit`; the line is the front of the means.
    """
    means = {
        s.strategy: Point(float(np.mean(costs[s.strategy])), float(s.mean or 0)) for s in summaries
    }
    front = [means[name] for name in pareto_front(means)]
    axis.plot(
        [point.cost for point in front],
        [point.accuracy for point in front],
        color="#888888",
        linewidth=1,
        zorder=1,
    )
    for summary in summaries:
        look, (cost, accuracy) = style[summary.strategy], means[summary.strategy]
        times = costs[summary.strategy]
        if summary.low is not None and summary.high is not None:
            axis.plot([cost] * 2, [summary.low, summary.high], color=look.colour, linewidth=1.2)
        axis.plot([min(times), max(times)], [accuracy] * 2, color=look.colour, linewidth=1.2)
        axis.plot(
            [cost],
            [accuracy],
            color=look.colour,
            marker=look.marker,
            markersize=7,
            linestyle="",
            label=wrapped(summary.strategy, 44),
        )
    axis.margins(0.1)
    axis.set(xlabel=f"training time of one run ({unit})", ylabel="top-1 (%)")


def cost_figure(comparison: Paired, seconds: Mapping[str, Sequence[float]]) -> str:
    """Mean top-1 against the training time of a run, in a unit that suits the longest, as SVG."""
    summaries = [s for s in comparison.summaries if s.mean is not None and s.strategy in seconds]
    names = [summary.strategy for summary in summaries]
    longest = max(max(values) for values in seconds.values())
    units = (("hours", 3600), ("minutes", 60), ("seconds", 1))
    unit, size = next((u, s) for u, s in units if longest >= 2 * s or s == 1)
    costs = {name: [value / size for value in seconds[name]] for name in names}
    drawing = Drawing("cost", "Top-1 against training time", 3.4 + 0.17 * len(names))
    with drawing as [axis]:
        draw_cost(axis, summaries, costs, unit, _looks(comparison))
        drawing.figure.legend(loc="outside lower center", ncols=_columns(names))
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


def draw_curves(
    axis: Axes, runs: Mapping[str, Sequence[Curve]], label: str, style: Mapping[str, Look]
) -> None:
    """Curves by epoch: a thin line a run, a thick one for the mean of those that came furthest."""
    for strategy in (name for name in style if name in runs):
        look = style[strategy]
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
            color=look.colour,
            linewidth=2,
            marker=look.marker,
            markersize=4,
            markevery=max(1, len(epochs) // 8),
            label=wrapped(strategy, 44),
        )
    axis.set(xlabel="epoch", ylabel=label)
    _leave_out_beginning(axis)
    axis.locator_params(axis="x", integer=True)


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
    drawing = Drawing(f"curves-{column}", f"{label} by epoch", 3.4 + 0.17 * len(runs))
    with drawing as [axis]:
        draw_curves(axis, runs, label, looks(strategies))
        drawing.figure.legend(loc="outside lower center", ncols=_columns(list(runs)))
    return drawing.svg


# The parts of a step.


def draw_steps(axis: Axes, times: Mapping[str, Sequence[float]]) -> None:
    """Stacked bars of a step's parts; times[strategy] are milliseconds, in the order of PHASES."""
    left = [0.0] * len(times)
    for number, (phase, hatch) in enumerate(zip(PHASES, ("", "//", "", ".."), strict=True)):
        widths = [parts[number] for parts in times.values()]
        axis.barh(
            range(len(times)),
            widths,
            left=left,
            color=COLOURS[number],
            hatch=hatch,
            edgecolor="white",
            label=phase,
        )
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    _label_rows(axis, list(times))
    axis.set_xlabel("milliseconds a step")


def step_figure(times: Mapping[str, Sequence[float]]) -> str:
    """Milliseconds of a step in each of PHASES by strategy, as SVG."""
    drawing = Drawing("steps", "Step time by phase", 0.5 + _height(list(times), 0.42))
    with drawing as [axis]:
        draw_steps(axis, times)
        drawing.figure.legend(loc="outside lower center", ncols=4)
    return drawing.svg


# What the labels say.


def draw_lam(axis: Axes, strategy: str, pairs: np.ndarray) -> None:
    """Histograms of A's share by area (grey) and as used in the label (line); pairs (N, 2)."""
    edges = np.linspace(0, 1, 21)
    pairs = pairs[np.isfinite(pairs).all(1)]
    # weights make each bar a share of the images
    area, used = (
        np.histogram(np.clip(column, 0, 1), edges)[0] / max(len(column), 1) * 100
        for column in pairs.T
    )
    axis.stairs(area, edges, fill=True, color="#bbbbbb", label="by area")
    axis.stairs(used, edges, color=COLOURS[1], linewidth=2, label="as used in the label")
    axis.set_title(wrapped(strategy, 56), fontsize=10, loc="left")
    axis.set_ylabel("% of images")
    axis.set_xlim(0, 1)


def lam_figure(samples: Mapping[str, np.ndarray]) -> str:
    """Histograms of A's shares, samples[strategy] (N, 2), below one another, as SVG."""
    height = 0.9 + 1.35 * len(samples)
    drawing = Drawing("lam", "A's share by area and in the label", height, rows=len(samples))
    with drawing as axes:
        for axis, (strategy, pairs) in zip(axes, samples.items(), strict=True):
            draw_lam(axis, strategy, pairs)
        axes[-1].set_xlabel("A's share")
        handles, labels = axes[0].get_legend_handles_labels()
        drawing.figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return drawing.svg
