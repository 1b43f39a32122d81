"""Each diagram, asked what it drew: where every dot, line and bar is, and whose it is."""

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from mixbench.report.drawing import BAND, FAINT, INK, MARK, label_room, wrapped
from mixbench.report.figures import (
    LONG_RUN,
    MOST_POINTS,
    Cost,
    Shares,
    accuracy_figure,
    control_band,
    cost_figure,
    curves,
    curves_figure,
    difference_figure,
    draw_accuracy,
    draw_cost,
    draw_curves,
    draw_differences,
    draw_gains,
    draw_ratios,
    draw_shares,
    gains_figure,
    pareto_front,
    ratio_figure,
    removed_errors,
    shares_figure,
    shares_of,
)
from mixbench.report.looks import look_of
from mixbench.report.significance import compare
from mixbench.runs.rows import EpochRow
from tests.support.rows import speed_row

pytestmark = pytest.mark.pictures

FIGURES = {
    "cutmix": {0: 70.0, 1: 72.0, 2: 71.0},
    "transmix(attention_weight=1.0)": {0: 73.0, 1: 72.5, 2: 76.0},
    "mixup": {0: 60.0, 1: None, 2: 66.0},
}


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
        if all(abs(float(y) - row) < 0.5 for y in line.get_ydata()) and line.get_color() != INK
    ]


# Seeds and means, a row for each strategy.


def test_dots_and_means_of_the_accuracy(axis):
    summaries = compare(FIGURES).summaries
    draw_accuracy(axis, summaries)
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
            look_of(summary.strategy).colour
        }
    assert len(axis.lines) == 9


def test_one_seed_has_no_interval(axis):
    draw_accuracy(axis, compare({"cutmix": {0: 70.0}}).summaries)
    dots, mean = row_lines(axis, 0)
    assert points(dots) == [(70.0, 0.22)] and points(mean) == [(70.0, -0.08)]


def test_dots_and_means_of_the_differences(axis):
    comparison = compare(FIGURES)
    draw_differences(axis, comparison.differences, "cutmix")
    assert rows_of(axis) == {0: "transmix(attention_weight=1.0)", 1: "mixup"}
    [zero] = [line for line in axis.lines if line.get_color() == INK]
    assert list(zero.get_xdata()) == [0, 0]  # the reference, from the bottom to the top
    assert axis.get_xlabel() == "top-1 minus cutmix's, same seed (points)"
    for row, expected in enumerate(([3.0, 0.5, 5.0], [-10.0, -5.0])):
        difference = comparison.differences[row]
        dots, interval, mean = row_lines(axis, row)
        assert dots.get_xdata().tolist() == expected
        assert interval.get_xdata().tolist() == [difference.low, difference.high]
        assert mean.get_xdata().tolist() == [pytest.approx(np.mean(expected))]
        assert mean.get_color() == look_of(difference.strategy).colour


def test_strategies_without_a_figure_have_no_row():
    comparison = compare(FIGURES | {"none": {0: None}})
    for svg in (accuracy_figure(comparison), difference_figure(comparison)):
        assert ">mixup</text>" in svg and ">none</text>" not in svg


# Accuracy against cost.


def marks(axis):
    """The marks beside the names that stand right of the axes, by name, and the names' places."""
    drawn = [line for line in axis.lines if line.get_label() == MARK]
    names = [text.get_text().replace("\n", "") for text in axis.texts]
    return dict(zip(names, drawn, strict=True))


def test_speed_lies_across_and_accuracy_upward(axis):
    summaries = compare(FIGURES).summaries
    costs = {
        "cutmix": Cost(1.0, 1.0, 1.0),
        "transmix(attention_weight=1.0)": Cost(0.9, 0.85, 0.93),
        "mixup": Cost(0.95, None, None),
    }
    draw_cost(axis, summaries, costs, "speed", (0.98, 1.02), 2.6)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("speed", "top-1 (%)")
    [band] = axis.patches
    assert (band.get_x(), band.get_width()) == (0.98, pytest.approx(0.04))
    assert matplotlib.colors.to_hex(band.get_facecolor()) == BAND
    front, *lines = [line for line in axis.lines if line.get_label() != MARK]
    assert front.get_color() == FAINT
    best = pytest.approx(221.5 / 3)
    assert points(front) == [(0.9, best), (1.0, 71.0)]  # mixup is slower than CutMix, and worse
    for summary in summaries:
        value, low, high = costs[summary.strategy]
        if low is None:
            accuracies, mean = lines[:2]
            lines = lines[2:]
        else:
            accuracies, speeds, mean = lines[:3]
            lines = lines[3:]
            assert points(speeds) == [(low, summary.mean), (high, summary.mean)]
        assert points(accuracies) == [(value, summary.low), (value, summary.high)]
        assert points(mean) == [(value, summary.mean)]
        look, mark = look_of(summary.strategy), marks(axis)[summary.strategy]
        for line in (mean, mark):
            assert (line.get_color(), line.get_marker()) == (look.colour, look.marker)
            assert line.get_markerfacecolor() == look.face
    assert not lines
    ends = {text.get_text().replace("\n", ""): text.xy for text in axis.texts}
    assert ends == {s.strategy: (costs[s.strategy].value, s.mean) for s in summaries}
    low, high = axis.get_xlim()
    assert 0.8 < low < 0.85 and 1.02 < high < 1.06  # around the data


@pytest.mark.parametrize("count", [2, 12])
@pytest.mark.parametrize("alike", [True, False])
def test_names_beside_a_diagram_do_not_collide(axis, count, alike):
    """Measured by matplotlib, also where all points are one, and on long names."""
    names = ["cutmix", "transmix(base=saliencymix, attention_weight=1.0)"]
    names += [f"plugin{i}" for i in range(count - 2)]
    figures = {name: {0: 70.0 + (0 if alike else 3 * i)} for i, name in enumerate(names)}
    costs = {name: Cost(1.0, None, None) for name in names}
    height = max(2.6, label_room(names))
    axis.figure.set_size_inches(5, height + 0.6)
    axis.figure.set_layout_engine("constrained")
    draw_cost(axis, compare(figures).summaries, costs, "speed", None, height)
    axis.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axis.texts]  # without the line
    assert len(boxes) == count
    for i, box in enumerate(boxes):
        assert axis.bbox.x1 < box.x0 and box.x1 <= axis.figure.bbox.width + 1
        assert box.y0 >= -1 and box.y1 <= axis.figure.bbox.height + 1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_gains_stand_over_the_label_error_that_is_removed(axis):
    """By hand: transmix removes 3 and 5 points in the seeds that both have, mixup none."""
    errors = {
        "cutmix": {0: 20.0, 1: 22.0, 2: None},
        "transmix(attention_weight=1.0)": {0: 17.0, 1: 17.0, 2: 1.0},
        "mixup": {0: 20.0, 1: 22.0},
        "none": {0: 0.0, 1: 0.0},
        "puzzlemix": {0: None},
    }
    removed = removed_errors(errors, "cutmix")
    assert removed == {"transmix(attention_weight=1.0)": 4.0, "mixup": 0.0}
    assert removed_errors(errors, "resizemix") == {}
    differences = [each for each in compare(FIGURES).differences if each.strategy in removed]
    draw_gains(axis, differences, removed, 2.6)
    assert axis.get_xlabel() == "label error removed of cutmix's (points)"
    for difference in differences:
        colour = look_of(difference.strategy).colour
        interval, mean = [each for each in axis.lines
                          if each.get_color() == colour and each.get_label() != MARK]  # fmt: skip
        assert points(mean) == [(removed[difference.strategy], pytest.approx(difference.mean))]
        assert interval.get_ydata().tolist() == [difference.low, difference.high]
    assert set(marks(axis)) == {"transmix(attention_weight=1.0)", "mixup"}
    assert gains_figure(compare(FIGURES), {}) == ""
    assert ">mixup</text>" in gains_figure(compare(FIGURES), errors)


def test_the_front_is_what_nothing_beats():
    rng = np.random.default_rng(0)
    places = {str(i): (float(c), float(a)) for i, (c, a) in enumerate(rng.integers(0, 6, (25, 2)))}
    front = pareto_front(places)
    for name, (cost, accuracy) in places.items():
        beaten = any(
            (c > cost and a >= accuracy) or (c >= cost and a > accuracy) for c, a in places.values()
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


def test_curves_pass_through_the_epochs_that_were_evaluated(axis):
    first = [epoch_row(0, None), epoch_row(1, 40.0), epoch_row(2, None), epoch_row(3, 50.0)]
    second = [epoch_row(0, None), epoch_row(1, None), epoch_row(2, 45.0), epoch_row(3, 60.0)]
    logs = {("cutmix", 0): first, ("cutmix", 1): second, ("mixup", 0): [epoch_row(0, None)]}
    runs = curves(logs, "top1")
    assert runs == {"cutmix": [{2: 40.0, 4: 50.0}, {3: 45.0, 4: 60.0}]}
    assert [list(run) for run in curves(logs, "train_loss")["cutmix"]] == [[1, 2, 3, 4]] * 2
    draw_curves(axis, runs, "top-1 (%)", 2.6)
    lines = [line for line in axis.lines if line.get_label() != MARK]
    assert [points(line) for line in lines] == [
        [(2, 40.0), (4, 50.0)],
        [(3, 45.0), (4, 60.0)],
        [(4, 55.0)],  # the mean where both were evaluated
    ]


def test_a_thin_line_for_each_run_and_a_thick_one_for_their_mean(axis):
    runs = {
        "mixup": [{1: 10.0, 2: 20.0, 3: 25.0}],
        "cutmix": [{1: 30.0, 2: 40.0, 3: 50.0}, {1: 50.0, 2: 44.0, 3: 70.0}, {1: 0.0}],
    }
    draw_curves(axis, runs, "top-1 (%)", 2.6)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "top-1 (%)")
    lines = [line for line in axis.lines if line.get_label() != MARK]
    mixup, *thin, cutmix = lines
    assert [points(line) for line in thin] == [list(run.items()) for run in runs["cutmix"]]
    assert points(cutmix) == [(1, 40.0), (2, 42.0), (3, 60.0)]  # of those that came furthest
    assert points(mixup) == list(runs["mixup"][0].items())  # one run is its mean
    assert max(line.get_linewidth() for line in thin) < cutmix.get_linewidth()
    for line, name in ((cutmix, "cutmix"), (mixup, "mixup")):
        assert (line.get_label(), line.get_color()) == (name, look_of(name).colour)
    ends = {text.get_text(): text.xy for text in axis.texts}
    assert ends == {"cutmix": (3, 60.0), "mixup": (3, 25.0)}


def test_the_axis_of_a_long_run_leaves_out_its_beginning(axis):
    late = {epoch: 50.0 + epoch for epoch in range(1, LONG_RUN + 1)}
    draw_curves(axis, {"cutmix": [late | {1: -900.0}]}, "top-1 (%)", 2.6)
    low, high = axis.get_ylim()
    first = 50 + LONG_RUN // 4 + 1
    assert first - 1 < low < first and 50 + LONG_RUN < high < 51 + LONG_RUN


# The speed of a step.


def test_ratios_stand_beside_one_and_the_control_band(axis):
    slow = speed_row("puzzlemix", ratio_to_cutmix=0.5, ratio_lo=0.49, ratio_hi=0.52)
    rows = [speed_row(), slow, speed_row("mixup", control_lo=0.97, ratio_lo=None)]
    band = control_band(rows)
    assert band == (0.97, 1.02)
    draw_ratios(axis, rows, band)
    assert rows_of(axis) == {0: "cutmix", 1: "puzzlemix", 2: "mixup"}
    assert axis.get_xlabel() == "speed, ratio to CutMix (right is faster)"
    [area] = axis.patches
    assert (area.get_x(), area.get_width()) == (0.97, pytest.approx(0.05))
    assert area.get_label() == "CutMix against itself"
    [one] = [line for line in axis.lines if line.get_color() == INK]
    assert list(one.get_xdata()) == [1, 1]
    interval, mean = row_lines(axis, 1)
    assert points(interval) == [(0.49, 1), (0.52, 1)] and points(mean) == [(0.5, 1)]
    assert (mean.get_marker(), mean.get_color()) == ("^", look_of("puzzlemix").colour)
    [mean] = row_lines(axis, 2)  # no interval is known
    assert points(mean) == [(1.0, 2)]


def test_an_unknown_control_draws_no_band(axis):
    rows = [speed_row(control_lo=None, control_hi=None)]
    assert control_band(rows) is None
    draw_ratios(axis, rows, None)
    assert not axis.patches and "<svg" in ratio_figure(rows)


# What the labels say.


def test_shares_are_of_mixed_images_and_say_how_far_apart_they_are():
    pairs = np.array([[0.2, 0.4], [1.0, 1.0], [0.5, 0.4], [np.nan, 0.5], [1.0, 0.9]])
    shares = shares_of(pairs)
    assert shares.pairs.tolist() == [[0.2, 0.4], [0.5, 0.4], [1.0, 0.9]]
    assert shares.apart == pytest.approx(100 * (0.2 + 0.1 + 0.1) / 3) and not shares.by_area
    assert shares_of(np.array([[0.3, 0.301], [0.7, 0.7]])).by_area
    assert shares_of(np.ones((4, 2))) is shares_of(np.full((2, 2), np.nan)) is None


def test_a_mark_is_an_images_share_beside_the_identity(axis):
    shares = Shares(np.array([[0.2, 0.4], [0.5, 0.4]]), 15.0)
    draw_shares(axis, "transmix", shares)
    identity, marks = axis.lines
    assert points(identity) == [(0, 0), (1, 1)]
    assert points(marks) == [(0.2, 0.4), (0.5, 0.4)] and marks.get_linestyle() == "None"
    assert (marks.get_marker(), marks.get_color()) == ("s", look_of("transmix").colour)
    assert axis.get_title(loc="left") == "transmix\n15.0 points from the line"
    assert axis.get_aspect() == 1.0 and axis.get_xlim() == axis.get_ylim()


def test_of_many_images_some_are_drawn(axis):
    pairs = np.random.default_rng(0).random((2 * MOST_POINTS + 1, 2))
    draw_shares(axis, "transmix", Shares(pairs, 30.0))
    assert len(points(axis.lines[1])) == -(-len(pairs) // 3) <= MOST_POINTS
    assert points(axis.lines[1])[1] == tuple(pairs[3])


# Whole drawings.


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
            cost_figure(comparison, {n: Cost(1.0, 0.9, 1.1) for n in ("cutmix", "mixup")}, "speed"),
            curves_figure(logs, "top1", "top-1 (%)", list(FIGURES)),
            curves_figure(logs, "train_loss", "training loss", list(FIGURES)),
            ratio_figure([speed_row()]),
            shares_figure(
                {n: Shares(np.full((3, 2), 0.5), 0.0) for n in ("cutmix", "mixup", "none")}
            ),
        ]
        for _ in range(2)
    ]
    assert drawings[0] == drawings[1]
    names = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in drawings[0]]
    assert all(names) and len(set.union(*names)) == sum(map(len, names))
