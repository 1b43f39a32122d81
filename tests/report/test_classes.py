"""Class by class: accuracy and confusions as scikit-learn counts them, and what is drawn."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_hex

from mixbench.report.classes import (
    MOST_INCHES,
    MOST_LISTED,
    MOST_PAIRS,
    MOST_ROWS,
    ByClass,
    Pair,
    by_class,
    class_by_class,
    class_count,
    class_rows,
    classes_figure,
    confused_pairs,
    draw_classes,
    pair_rows,
    rows_shown,
)
from mixbench.report.drawing import FAINT
from mixbench.report.looks import look_of
from mixbench.report.significance import compare
from mixbench.runs.samples import ImageResults

pytestmark = pytest.mark.pictures

LONG = "transmix(base=saliencymix, attention_weight=1.0)"


def results(label, predicted):
    """Results of images, of which the class alone matters."""
    label, predicted = np.asarray(label, int), np.asarray(predicted, int)
    share = np.full(len(label), 0.5)
    return ImageResults(label=label, predicted=predicted, confidence=share, nll=share, brier=share)


def drawn_results(classes=6, count=300, seeds=2, strategies=("cutmix", "transmix")):
    """Random results, none of the last class."""
    rng = np.random.default_rng(0)
    label = rng.integers(classes - 1, size=count)
    return {
        (spec, seed): results(
            label, np.where(rng.random(count) < 0.6, label, rng.integers(classes, size=count))
        )
        for spec in strategies
        for seed in range(seeds)
    }


# What is counted.


def test_accuracy_of_each_class_equals_scikit_learns_recall():
    from sklearn.metrics import recall_score

    images = drawn_results()
    found = by_class(images, ["transmix", "cutmix"], 6)
    assert list(found.accuracy) == ["transmix", "cutmix"]
    for spec, accuracy in found.accuracy.items():
        recalls = [
            recall_score(each.label, each.predicted, labels=range(5), average=None)
            for (name, _), each in images.items()
            if name == spec
        ]
        np.testing.assert_allclose(accuracy[:5], 100 * np.mean(recalls, 0))
        assert np.isnan(accuracy[5])  # of which there is no image
    label = images["cutmix", 0].label
    assert found.images.tolist() == [*np.bincount(label).tolist(), 0]
    assert 5 not in found.order("cutmix") and len(found.order("cutmix")) == 5


def test_confusions_equal_scikit_learns_matrix():
    from sklearn.metrics import confusion_matrix

    images = drawn_results()
    matrices = {
        spec: np.mean(
            [
                confusion_matrix(each.label, each.predicted, labels=range(6))
                for (name, _), each in images.items()
                if name == spec
            ],
            axis=0,
        )
        for spec in ("cutmix", "transmix")
    }
    pairs = confused_pairs(images, ["cutmix", "transmix"], 6)
    assert len(pairs) == MOST_PAIRS
    for pair in pairs:
        assert pair.label != pair.predicted
        for spec, matrix in matrices.items():
            assert pair.counts[spec] == matrix[pair.label, pair.predicted]
    total = sum(matrices.values())
    np.fill_diagonal(total, 0)
    most = np.sort(total, axis=None)[::-1][:MOST_PAIRS]
    assert [sum(pair.counts.values()) for pair in pairs] == most.tolist()


def test_ties_go_by_class_and_what_is_not_finite_is_taken_for_nothing():
    images = {("cutmix", 0): results([0, 0, 1, 1, 2, 2], [1, 0, 0, 1, -1, 2])}
    assert confused_pairs(images, ["cutmix", "mixup"], 3) == [
        Pair(0, 1, {"cutmix": 1.0}),
        Pair(1, 0, {"cutmix": 1.0}),
    ]
    assert by_class(images, ["cutmix"], 3).accuracy["cutmix"].tolist() == [50, 50, 50]
    assert class_count(images) == 3 and class_count({}) == 0
    assert confused_pairs({}, ["cutmix"], 3) == [] and by_class({}, ["cutmix"], 3).accuracy == {}


def test_the_furthest_apart_come_first_then_those_the_baseline_finds_hardest():
    found = ByClass(
        {
            "mixup": np.array([10.0, 50.0, 30.0, np.nan, 90.0]),
            "cutmix": np.array([20.0, 50.0, 40.0, np.nan, 50.0]),
        },
        np.array([5, 5, 5, 0, 5]),
    )
    assert found.spread().tolist()[:3] == [10, 0, 10]
    assert found.order("cutmix") == [4, 0, 2, 1]
    assert found.order("none") == [4, 0, 2, 1]  # with the first strategy
    one = ByClass({"cutmix": np.array([60.0, 20.0, 40.0])}, np.array([5, 5, 5]))
    assert one.order("cutmix") == [1, 2, 0]


def test_large_numbers_of_classes_need_no_matrix():
    """One of 21,841 classes would take 3.8 GB."""
    classes = 21841
    label = np.arange(0, classes, 7)
    images = {("cutmix", 0): results(label, np.full(len(label), classes - 1))}
    pairs = confused_pairs(images, ["cutmix"], classes)
    assert [(pair.label, pair.predicted) for pair in pairs[:2]] == [(0, 21840), (7, 21840)]


# What is drawn.


@pytest.mark.parametrize("strategies", [1, 2, 12, 40])
def test_the_diagram_has_room_for_its_rows(strategies):
    rows = rows_shown(strategies)
    assert 1 <= rows <= MOST_ROWS
    assert (rows_shown(2), rows_shown(12)) == (20, 9) and MOST_INCHES < 10


def test_a_row_has_a_mark_for_each_strategy_in_a_lane_of_its_own(axis):
    found = ByClass(
        {"cutmix": np.array([20.0, 40.0, 60.0]), "mixup": np.array([30.0, 40.0, 10.0])},
        np.array([50, 50, 50]),
    )
    draw_classes(axis, found, [2, 0], ["ant", "bee", "cat"])
    assert [text.get_text() for text in axis.get_yticklabels()] == ["cat", "ant"]
    assert axis.get_yticks().tolist() == [0, 1]
    bottom, top = axis.get_ylim()
    assert bottom > top  # the first class stands above
    spans = [line for line in axis.lines if line.get_color() == FAINT]
    assert [line.get_xdata().tolist() for line in spans] == [[10, 60], [20, 30]]
    cutmix, mixup = [line for line in axis.lines if line.get_color() != FAINT]
    assert cutmix.get_xdata().tolist() == [60, 20] and mixup.get_xdata().tolist() == [10, 30]
    above, below = cutmix.get_ydata(), mixup.get_ydata()
    for row in range(2):
        assert row - 0.5 < above[row] < row < below[row] < row + 0.5
    for line, spec in ((cutmix, "cutmix"), (mixup, "mixup")):
        look = look_of(spec)
        assert (to_hex(line.get_color()), line.get_marker()) == (look.colour.lower(), look.marker)
        assert line.get_linestyle() == "None" and line.get_label() == spec


@pytest.mark.parametrize("count", [2, 12])
def test_names_of_classes_do_not_collide(axis, count):
    rng = np.random.default_rng(0)
    found = ByClass(
        {f"plugin{i}": rng.uniform(0, 100, 100) for i in range(count)}, np.full(100, 50)
    )
    shown = found.order("plugin0")[: rows_shown(count)]
    axis.figure.set_size_inches(5, 0.3 * len(shown) if count == 2 else 1.0 * len(shown))
    draw_classes(axis, found, shown, [f"a class with a name that is long {i}" for i in range(100)])
    axis.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axis.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    assert all(text.get_text().endswith("…") for text in axis.get_yticklabels())


def test_the_figure_names_every_strategy_and_the_classes_that_differ_most():
    rng = np.random.default_rng(0)
    names = ["cutmix", LONG, *(f"plugin{i}" for i in range(10))]
    found = ByClass({name: rng.uniform(0, 100, 100) for name in names}, np.full(100, 50))
    svg = classes_figure(found, "cutmix", [f"class {i}" for i in range(100)])
    shown = found.order("cutmix")[: rows_shown(12)]
    for label in range(100):
        assert (f">class {label}</text>" in svg) == (label in shown)
    for name in ("cutmix", "plugin9", "attention_weight=1.0)"):
        assert f"{name}</text>" in svg


# What the page says.


def section(images, classes):
    figures = {spec: {0: 50.0} for spec in dict.fromkeys(spec for spec, _ in images)}
    return class_by_class(images, [f"class {i}" for i in range(classes)], compare(figures))


def test_the_section_says_which_classes_it_shows():
    few = section(drawn_results(), 6)
    assert few.words.startswith(
        "The classes in which the strategies lie furthest apart stand first"
    )
    assert " 1 without validation images are left out." in few.words and len(few.rows) == 5
    label = np.arange(200) % 100
    many = section({(spec, 0): results(label, label) for spec in ("cutmix", "mixup")}, 100)
    assert many.words == (
        "The 20 of 100 classes in which the strategies lie furthest apart. A class has 2 "
        "validation images."
    )
    assert many.pairs == [] and len(many.rows) == 100
    alone = section({("cutmix", 0): results(label, label)}, 100)
    assert alone.words.startswith("The 20 of 100 classes of the lowest accuracy.")
    wide = np.arange(MOST_LISTED + 1)
    assert section({("cutmix", 0): results(wide, wide)}, MOST_LISTED + 1).rows == ()
    assert section({("cutmix", 0): results([], [])}, 3) is None
    assert class_by_class({}, [], None) is None


def test_the_tables_have_a_column_for_each_strategy():
    images = {
        ("cutmix", 0): results([0, 0, 0, 1], [1, 1, 0, 1]),
        ("cutmix", 1): results([0, 0, 0, 1], [1, 0, 0, 1]),
        ("mixup", 0): results([0, 0, 0, 1], [0, 0, 0, 0]),
    }
    found = by_class(images, ["cutmix", "mixup"], 2)
    titles = ["tench", "church"]
    assert class_rows(found, "cutmix", titles) == [
        ("church", "1", "100.0", "0.0"),
        ("tench", "3", "50.0", "100.0"),
    ]
    pairs = confused_pairs(images, ["cutmix", "mixup"], 2)
    assert pair_rows(pairs, found, titles) == [
        ("tench → church", "3", "1.5 (50 %)", "0.0 (0 %)"),
        ("church → tench", "1", "0.0 (0 %)", "1.0 (100 %)"),
    ]
