"""The report's diagrams, drawn from numbers alone, as SVG text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mixbench.report.significance import Comparison, Difference, Summary


COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#7A6A00",
    "#56B4E9",
    "#000000",
    "#E69F00",
)  # Okabe and Ito's, yellow darkened


MARKERS = "osD^vP*X"


# Diagrams. Five inches wide with text of ten points: legible on a phone, where an SVG unit is about a pixel.

STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _wrapped(name: str, width: int = 22) -> str:
    """Lines of about `width` characters, broken after an opening bracket or a comma."""
    lines = [""]
    for part in re.findall(r"[^(,]*[(,]?\s*", name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


class _Drawing:
    """One diagram: `with _Drawing(name, description, height) as (figure, axes)`, then `svg`, text that needs no other file."""

    def __init__(self, name: str, description: str, height: float, rows: int = 1):
        self.name, self.description, self.height, self.rows = name, description, height, rows
        self.svg = ""

    def __enter__(self) -> tuple[Any, Any]:
        self.plt = _pyplot()
        self._style = self.plt.rc_context({**STYLE, "svg.hashsalt": self.name})
        self._style.__enter__()
        self.figure, axes = self.plt.subplots(
            self.rows, 1, figsize=(5, self.height), squeeze=False, layout="constrained"
        )
        return self.figure, axes[:, 0]

    def __exit__(self, kind: Any, *rest: Any) -> None:
        import html
        import io

        if kind is None:
            stream = io.StringIO()
            self.figure.savefig(
                stream,
                format="svg",
                metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
            )
            text = stream.getvalue()
            text = text[text.index("<svg") :]
            text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
            text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
            text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
            text = re.sub(r'\bid="', f'id="{self.name}-', text)  # several drawings share one page
            text = re.sub(r'(href="#|url\(#)', rf"\1{self.name}-", text)
            label = html.escape(self.description, quote=True)
            self.svg = text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
        self.plt.close(self.figure)
        self._style.__exit__(kind, *rest)


def looks(strategies: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each strategy, the same in every diagram."""
    return {
        name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(strategies)
    }


def _height(names: Sequence[str], row: float) -> float:
    """The height of a diagram with a row for each name, in inches; a row holds the longest name's lines."""
    return 0.8 + len(names) * max(row, 0.16 * max(_wrapped(name).count("\n") + 1 for name in names))


def _strategy_axis(axis: Any, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), [_wrapped(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)


def _dots(axis: Any, row: int, found: Summary | Difference, colour: str) -> None:
    """Every seed as a dot below the mean with its interval."""
    values = list(found.values.values())
    axis.plot(
        values,
        [row + 0.22] * len(values),
        linestyle="",
        marker="o",
        markersize=4.5,
        color=colour,
        alpha=0.6,
    )
    if found.low is not None:
        axis.plot([found.low, found.high], [row - 0.08] * 2, color=colour, linewidth=2)
    axis.plot(
        [found.mean], [row - 0.08], marker="|", markersize=13, markeredgewidth=2.5, color=colour
    )


def accuracy_figure(comparison: Comparison) -> str:
    """Top-1 of each strategy: mean, 95 % t interval and every seed; SVG."""
    found = [summary for summary in comparison.summaries if summary.mean is not None]
    style = looks([summary.strategy for summary in comparison.summaries])
    drawing = _Drawing(
        "accuracy",
        "Top-1 of each strategy, with every seed",
        _height([s.strategy for s in found], 0.55),
    )
    with drawing as (_, (axis,)):
        for row, summary in enumerate(found):
            _dots(axis, row, summary, style[summary.strategy][0])
        _strategy_axis(axis, [summary.strategy for summary in found])
        axis.set_xlabel("top-1 (%)")
    return drawing.svg


def difference_figure(comparison: Comparison) -> str:
    """Top-1 of each strategy minus the baseline's: mean, BCa interval and every seed; SVG."""
    found = [difference for difference in comparison.differences if difference.mean is not None]
    style = looks([summary.strategy for summary in comparison.summaries])
    height = _height([difference.strategy for difference in found], 0.55)
    drawing = _Drawing(
        "differences",
        f"Top-1 of each strategy minus that of {comparison.baseline}, by seed",
        height,
    )
    with drawing as (_, (axis,)):
        axis.axvline(0, color="#333333", linewidth=1)
        for row, difference in enumerate(found):
            _dots(axis, row, difference, style[difference.strategy][0])
        _strategy_axis(axis, [difference.strategy for difference in found])
        axis.set_xlabel(f"top-1 minus {comparison.baseline}'s, same seed (points)")
    return drawing.svg


def cost_figure(comparison: Comparison, seconds: Mapping[str, Sequence[float]]) -> str:
    """Mean top-1 with its interval against the training time of a run, its mean and range; the line is the front of the means; SVG."""
    found = {
        summary.strategy: summary
        for summary in comparison.summaries
        if summary.mean is not None and summary.strategy in seconds
    }
    style = looks([summary.strategy for summary in comparison.summaries])
    longest = max(max(values) for values in seconds.values())
    unit, size = next(
        (u, s)
        for u, s in (("hours", 3600), ("minutes", 60), ("seconds", 1))
        if longest >= 2 * s or s == 1
    )
    costs = {name: [value / size for value in seconds[name]] for name in found}
    means = {
        name: (float(np.mean(costs[name])), float(summary.mean or 0))
        for name, summary in found.items()
    }
    drawing = _Drawing("cost", "Top-1 against training time", 3.4 + 0.17 * len(found))
    with drawing as (figure, (axis,)):
        axis.plot(
            *zip(*(means[name] for name in pareto_front(means)), strict=True),
            color="#888888",
            linewidth=1,
            zorder=1,
        )
        for name, summary in found.items():
            colour, marker = style[name]
            cost, accuracy = means[name]
            if summary.low is not None:
                axis.plot([cost, cost], [summary.low, summary.high], color=colour, linewidth=1.2)
            axis.plot(
                [min(costs[name]), max(costs[name])], [accuracy] * 2, color=colour, linewidth=1.2
            )
            axis.plot(
                [cost],
                [accuracy],
                color=colour,
                marker=marker,
                markersize=7,
                linestyle="",
                label=_wrapped(name, 44),
            )
        axis.margins(0.1)
        axis.set(xlabel=f"training time of one run ({unit})", ylabel="top-1 (%)")
        figure.legend(loc="outside lower center", ncols=2 if max(map(len, found)) <= 20 else 1)
    return drawing.svg


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names for which no other point (cost, accuracy) is as cheap and as accurate and better in one, from cheap to costly."""

    def beaten(cost: float, accuracy: float) -> bool:
        return any(
            c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points.values()
        )

    return sorted(
        (name for name, point in points.items() if not beaten(*point)),
        key=lambda name: points[name],
    )


LONG_RUN = 20  # epochs from which the curves' axis leaves out what the first quarter alone reaches


def curves_figure(
    logs: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]],
    column: str,
    label: str,
    strategies: Sequence[str],
) -> str:
    """A column of the logs by epoch: a thin line a run, a thick one for the mean of those that came furthest; SVG, '' without figures."""
    style = looks(strategies)
    runs: dict[str, list[dict[int, float]]] = {}
    for (strategy, _), log in logs.items():
        run = {
            int(row["epoch"]) + 1: row[column]
            for row in log
            if row.get(column) is not None and np.isfinite(row[column])
        }
        if run:
            runs.setdefault(strategy, []).append(run)
    if not runs:
        return ""
    drawing = _Drawing(f"curves-{column}", f"{label} by epoch", 3.4 + 0.17 * len(runs))
    with drawing as (figure, (axis,)):
        for strategy in (name for name in strategies if name in runs):
            colour, marker = style[strategy]
            if len(runs[strategy]) > 1:
                for run in runs[strategy]:
                    axis.plot(
                        list(run), list(run.values()), color=colour, linewidth=0.7, alpha=0.45
                    )
            last = max(max(run) for run in runs[strategy])
            whole = [run for run in runs[strategy] if last in run]
            epochs = sorted(set.intersection(*(set(run) for run in whole)))
            means = [float(np.mean([run[epoch] for run in whole])) for epoch in epochs]
            axis.plot(
                epochs,
                means,
                color=colour,
                linewidth=2,
                marker=marker,
                markersize=4,
                markevery=max(1, len(epochs) // 8),
                label=_wrapped(strategy, 44),
            )
        axis.set(xlabel="epoch", ylabel=label)
        late = [
            value
            for line in axis.lines
            for epoch, value in zip(*line.get_data(), strict=True)
            if epoch > axis.dataLim.x1 / 4
        ]
        if axis.dataLim.x1 >= LONG_RUN:
            pad = 0.05 * (max(late) - min(late)) or 1
            axis.set_ylim(min(late) - pad, max(late) + pad)
        axis.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside lower center", ncols=2 if max(map(len, runs)) <= 20 else 1)
    return drawing.svg


PHASES = ("mix", "forward", "backward", "optimizer")


def step_figure(times: Mapping[str, Mapping[str, float]]) -> str:
    """Milliseconds of a step in each phase, times[strategy][phase]; SVG."""
    drawing = _Drawing("steps", "Step time by phase", 0.5 + _height(list(times), 0.42))
    with drawing as (figure, (axis,)):
        for phase, colour, hatch in zip(PHASES, COLOURS, ("", "//", "", ".."), strict=False):
            left = [
                sum(t[before] for before in PHASES[: PHASES.index(phase)]) for t in times.values()
            ]
            widths = [t[phase] for t in times.values()]
            axis.barh(
                range(len(times)),
                widths,
                left=left,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                label=phase,
            )
        _strategy_axis(axis, list(times))
        axis.set_xlabel("milliseconds a step")
        figure.legend(loc="outside lower center", ncols=4)
    return drawing.svg


def lam_figure(samples: Mapping[str, np.ndarray]) -> str:
    """Histograms of A's share by area (grey) and as used in the label (line), samples[strategy] (N, 2); SVG."""
    drawing = _Drawing(
        "lam", "A's share by area and in the label", 0.9 + 1.35 * len(samples), rows=len(samples)
    )
    edges = np.linspace(0, 1, 21)
    with drawing as (figure, axes):
        for axis, (strategy, pairs) in zip(axes, samples.items(), strict=True):
            # weights make each bar a share of the images
            pairs = pairs[np.isfinite(pairs).all(1)]
            shares = [
                np.histogram(np.clip(column, 0, 1), edges)[0] / max(len(column), 1) * 100
                for column in pairs.T
            ]
            axis.stairs(shares[0], edges, fill=True, color="#bbbbbb", label="by area")
            axis.stairs(
                shares[1], edges, color=COLOURS[1], linewidth=2, label="as used in the label"
            )
            axis.set_title(_wrapped(strategy, 56), fontsize=10, loc="left")
            axis.set_ylabel("% of images")
            axis.set_xlim(0, 1)
        axes[-1].set_xlabel("A's share")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return drawing.svg
