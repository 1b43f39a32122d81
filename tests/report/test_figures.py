"""Each diagram, asked what it drew: where every dot, line and bar is, and whose it is."""

import re

import matplotlib
import numpy as np
import pytest

from mixbench.report.drawing import COLOURS, Look, looks, wrapped
from mixbench.report.figures import (
    LONG_RUN,
    accuracy_figure,
    cost_figure,
    curves,
    curves_figure,
    difference_figure,
    draw_accuracy,
    draw_cost,
    draw_curves,
    draw_differences,
    draw_lam,
    draw_steps,
    lam_figure,
    pareto_front,
    step_figure,
)
from mixbench.report.significance import compare
from mixbench.runs.rows import EpochRow

FIGURES = {
    "cutmix": {0: 70.0, 1: 72.0, 2: 71.0},
    "transmix(attention_weight=1.0)": {0: 73.0, 1: 72.5, 2: 76.0},
    "mixup": {0: 60.0, 1: None, 2: 66.0},
}
STYLE = looks(list(FIGURES))


@pytest.fixture
def axis():
    """Axes that nothing is drawn on yet."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots()
    yield axis
    plt.close(figure)


def points(line):
    """The points of a line, [(x, y), ...]."""
    return list(zip(*(np.asarray(values).tolist() for values in line.get_data()), strict=True))


def rows_of(axis):
    """The name beside each whole number of the vertical axis."""
    ticks = zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)
    return {int(tick): label.get_text().replace("\n", "") for tick, label in ticks}


def row_lines(axis, row):
    """The lines of a row in order: every seed, the interval, the mean."""
    return [
        line
        for line in axis.lines
        if all(abs(float(y) - row) < 0.5 for y in line.get_ydata())
        and line.get_color() != "#333333"
    ]


# Seeds and means, a row for each strategy.


def test_dots_and_means_of_the_accuracy(axis):
    summaries = compare(FIGURES).summaries
    draw_accuracy(axis, summaries, STYLE)
    assert rows_of(axis) == dict(enumerate(FIGURES)) and axis.get_xlabel() == "top-1 (%)"
    bottom, top = axis.get_ylim()
    assert bottom > top  # the first strategy stands above
    for row, summary in enumerate(summaries):
        dots, interval, mean = row_lines(axis, row)
        values = [value for value in FIGURES[summary.strategy].values() if value is not None]
        assert dots.get_xdata().tolist() == values and dots.get_marker() == "o"
        assert dots.get_linestyle() == "None"
        assert interval.get_xdata().tolist() == [summary.low, summary.high]
        assert mean.get_xdata().tolist() == [np.mean(values)] and mean.get_marker() == "|"
        assert {line.get_color() for line in (dots, interval, mean)} == {
            STYLE[summary.strategy].colour
        }
    assert len(axis.lines) == 9


def test_one_seed_has_no_interval(axis):
    draw_accuracy(axis, compare({"cutmix": {0: 70.0}}).summaries, STYLE)
    dots, mean = row_lines(axis, 0)
    assert points(dots) == [(70.0, 0.22)] and points(mean) == [(70.0, -0.08)]


def test_dots_and_means_of_the_differences(axis):
    comparison = compare(FIGURES)
    draw_differences(axis, comparison.differences, "cutmix", STYLE)
    assert rows_of(axis) == {0: "transmix(attention_weight=1.0)", 1: "mixup"}
    [zero] = [line for line in axis.lines if line.get_color() == "#333333"]
    assert list(zero.get_xdata()) == [0, 0]  # the reference, from the bottom to the top
    assert axis.get_xlabel() == "top-1 minus cutmix's, same seed (points)"
    for row, expected in enumerate(([3.0, 0.5, 5.0], [-10.0, -5.0])):
        difference = comparison.differences[row]
        dots, interval, mean = row_lines(axis, row)
        assert dots.get_xdata().tolist() == expected
        assert interval.get_xdata().tolist() == [difference.low, difference.high]
        assert mean.get_xdata().tolist() == [pytest.approx(np.mean(expected))]
        assert mean.get_color() == STYLE[difference.strategy].colour


def test_strategies_without_a_figure_have_no_row():
    comparison = compare(FIGURES | {"none": {0: None}})
    for svg in (accuracy_figure(comparison), difference_figure(comparison)):
        assert ">mixup</text>" in svg and ">none</text>" not in svg


# Accuracy against cost.


def test_cost_lies_across_and_accuracy_upward(axis):
    summaries = compare(FIGURES).summaries
    costs = {
        "cutmix": [1.0, 2.0, 3.0],
        "transmix(attention_weight=1.0)": [4.0, 5.0, 9.0],
        "mixup": [5.0, 7.0],
    }
    draw_cost(axis, summaries, costs, "hours", STYLE)
    assert axis.get_xlabel() == "training time of one run (hours)"
    assert axis.get_ylabel() == "top-1 (%)"
    front, *lines = axis.lines
    assert front.get_color() == "#888888"
    cutmix, transmix = (2.0, 71.0), (6.0, pytest.approx(221.5 / 3))
    assert points(front) == [cutmix, transmix]  # mixup is dearer than CutMix, and worse
    for number, summary in enumerate(summaries):
        accuracies, times, mean = lines[3 * number : 3 * number + 3]
        cost = np.mean(costs[summary.strategy])
        low, high = min(costs[summary.strategy]), max(costs[summary.strategy])
        assert points(accuracies) == [(cost, summary.low), (cost, summary.high)]
        assert points(times) == [(low, summary.mean), (high, summary.mean)]
        assert points(mean) == [(cost, summary.mean)]
        look = STYLE[summary.strategy]
        assert (mean.get_color(), mean.get_marker()) == (look.colour, look.marker)
        assert mean.get_label().replace("\n", "") == summary.strategy


@pytest.mark.parametrize(
    ("seconds", "unit"),
    [(90.0, "seconds"), (120.0, "minutes"), (7199.0, "minutes"), (7200.0, "hours")],
)
def test_the_unit_suits_the_longest_time(seconds, unit, monkeypatch):
    drawn = {}

    def remember(axis, summaries, costs, unit, style):
        axis.plot([0], [0], label="cutmix")
        drawn.update(costs=costs, unit=unit)

    monkeypatch.setattr("mixbench.report.figures.draw_cost", remember)
    cost_figure(compare({"cutmix": {0: 70.0}}), {"cutmix": [seconds]})
    size = {"seconds": 1, "minutes": 60, "hours": 3600}[unit]
    assert drawn == {"costs": {"cutmix": [seconds / size]}, "unit": unit}


def test_the_front_is_what_nothing_beats():
    rng = np.random.default_rng(0)
    places = {str(i): (float(c), float(a)) for i, (c, a) in enumerate(rng.integers(0, 6, (25, 2)))}
    front = pareto_front(places)
    for name, (cost, accuracy) in places.items():
        beaten = any(
            (c < cost and a >= accuracy) or (c <= cost and a > accuracy) for c, a in places.values()
        )
        assert (name in front) != beaten
    assert [places[n][0] for n in front] == sorted(places[n][0] for n in front)


# Curves.


def epoch_row(epoch, top1, **changes):
    return EpochRow(
        epoch=epoch, lr=0.1, train_loss=2.0 - epoch, top1=top1, top5=90.0, seconds=1.0, **changes
    )


def test_curves_hold_the_finite_figures_of_a_column():
    logs = {
        ("cutmix", 0): [epoch_row(0, 30.0), epoch_row(1, 40.0)],
        ("cutmix", 1): [epoch_row(0, 35.0), epoch_row(1, float("nan"))],
        ("mixup", 0): [epoch_row(0, float("inf"))],
    }
    assert curves(logs, "top1") == {"cutmix": [{1: 30.0, 2: 40.0}, {1: 35.0}]}
    assert curves(logs, "train_loss")["mixup"] == [{1: 2.0}] and curves(logs, "top1_ema") == {}
    assert curves_figure(logs, "top1_ema", "top-1 (%)", ["cutmix"]) == ""


def test_a_thin_line_for_each_run_and_a_thick_one_for_their_mean(axis):
    runs = {
        "mixup": [{1: 10.0, 2: 20.0, 3: 25.0}],
        "cutmix": [{1: 30.0, 2: 40.0, 3: 50.0}, {1: 50.0, 2: 44.0, 3: 70.0}, {1: 0.0}],
    }
    draw_curves(axis, runs, "top-1 (%)", STYLE)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "top-1 (%)")
    *thin, cutmix, mixup = axis.lines
    assert [points(line) for line in thin] == [list(run.items()) for run in runs["cutmix"]]
    assert points(cutmix) == [(1, 40.0), (2, 42.0), (3, 60.0)]  # of those that came furthest
    assert points(mixup) == list(runs["mixup"][0].items())  # one run is its mean
    assert max(line.get_linewidth() for line in thin) < cutmix.get_linewidth()
    for line, name in ((cutmix, "cutmix"), (mixup, "mixup")):
        assert (line.get_label(), line.get_color()) == (name, STYLE[name].colour)


def test_the_axis_of_a_long_run_leaves_out_its_beginning(axis):
    late = {epoch: 50.0 + epoch for epoch in range(1, LONG_RUN + 1)}
    draw_curves(axis, {"cutmix": [late | {1: -900.0}]}, "top-1 (%)", STYLE)
    low, high = axis.get_ylim()
    first = 50 + LONG_RUN // 4 + 1
    assert first - 1 < low < first and 50 + LONG_RUN < high < 51 + LONG_RUN


# The parts of a step.


def test_bars_are_stacked_in_the_order_of_a_step(axis):
    times = {"cutmix": [1.0, 30.0, 60.0, 4.0], "puzzlemix": [50.0, 31.0, 61.0, 5.0]}
    draw_steps(axis, times)
    assert rows_of(axis) == {0: "cutmix", 1: "puzzlemix"}
    assert axis.get_xlabel() == "milliseconds a step"
    assert [bars.get_label() for bars in axis.containers] == [
        "mix",
        "forward",
        "backward",
        "optimizer",
    ]
    for number, bars in enumerate(axis.containers):
        for row, (bar, parts) in enumerate(zip(bars, times.values(), strict=True)):
            assert bar.get_width() == parts[number] and bar.get_x() == sum(parts[:number])
            assert bar.get_y() + bar.get_height() / 2 == pytest.approx(row)
    colours = {matplotlib.colors.to_hex(bars[0].get_facecolor()) for bars in axis.containers}
    assert len(colours) == 4


# What the labels say.


def test_histograms_are_shares_of_the_images(axis):
    pairs = np.array([[0.01, 0.99], [0.02, 0.97], [0.52, 0.98], [0.53, 0.06], [np.nan, 0.5]])
    draw_lam(axis, "transmix(attention_weight=1.0)", pairs)
    area, used = axis.patches
    expected = np.zeros((2, 20))
    expected[0, [0, 10]], expected[1, [1, 19]] = 50, (25, 75)
    for steps, heights in zip((area, used), expected, strict=True):
        values, edges, _ = steps.get_data()
        np.testing.assert_allclose(values, heights)
        np.testing.assert_allclose(edges, np.linspace(0, 1, 21))
    assert (area.get_label(), used.get_label()) == ("by area", "as used in the label")
    assert area.get_fill() and not used.get_fill()
    assert matplotlib.colors.to_hex(used.get_edgecolor()).upper() == COLOURS[1]
    assert axis.get_title(loc="left") == "transmix(attention_weight=1.0)"
    assert axis.get_ylabel() == "% of images" and axis.get_xlim() == (0, 1)


def test_shares_beyond_the_ends_count_at_the_ends(axis):
    draw_lam(axis, "mixup", np.array([[-0.1, 1.2], [1.3, 1.0]]))
    (area, _, _), (used, _, _) = (steps.get_data() for steps in axis.patches)
    assert (area[0], area[-1]) == (50, 50) and (used[0], used[-1]) == (0, 100)


# Whole drawings.


def test_every_strategy_has_a_look_of_its_own():
    assert looks(["a", "b"]) == {"a": Look(COLOURS[0], "o"), "b": Look(COLOURS[1], "s")}
    assert len(set(looks([str(i) for i in range(8)]).values())) == 8


def test_long_names_are_broken_after_a_bracket_or_comma():
    name = "transmix(base=saliencymix, attention_weight=1.0)"
    lines = wrapped(name).splitlines()
    assert lines == ["transmix(", "base=saliencymix,", "attention_weight=1.0)"]
    assert wrapped("cutmix") == "cutmix"


def test_drawings_are_the_same_each_time_and_share_no_names():
    comparison = compare(FIGURES)
    logs = {("cutmix", 0): [epoch_row(0, 30.0), epoch_row(1, 40.0)]}
    drawings = [
        [
            accuracy_figure(comparison),
            difference_figure(comparison),
            cost_figure(comparison, {"cutmix": [90.0], "mixup": [60.0]}),
            curves_figure(logs, "top1", "top-1 (%)", list(FIGURES)),
            curves_figure(logs, "train_loss", "training loss", list(FIGURES)),
            step_figure({"cutmix": [1.0, 2.0, 3.0, 4.0]}),
            lam_figure({"cutmix": np.full((3, 2), 0.5), "mixup": np.full((3, 2), 0.25)}),
        ]
        for _ in range(2)
    ]
    assert drawings[0] == drawings[1]
    names = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in drawings[0]]
    assert all(names) and len(set.union(*names)) == sum(map(len, names))
