"""The calibration curve, asked what it drew."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from mixbench.report.drawing import INK, MARK
from mixbench.report.looks import look_of
from mixbench.report.reliability import (
    FEWEST,
    draw_confidence,
    draw_reliability,
    reliability,
    reliability_figure,
)
from mixbench.runs.samples import ImageResults
from mixbench.training.calibration import BINS

pytestmark = pytest.mark.pictures


def results(confidence, right):
    label = np.zeros(len(right), int)
    confidence = np.asarray(confidence, np.float32)
    return ImageResults(
        label=label,
        predicted=np.where(right, 0, 1),
        confidence=confidence,
        nll=1 - confidence,
        brier=1 - confidence,
    )


@pytest.fixture
def images():
    """Two seeds of cutmix, whose confidence is twice what it gets right, and one of mixup."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0, 1, 600)
    return {
        ("cutmix", 0): results(confidence[:300], rng.random(300) < confidence[:300] / 2),
        ("cutmix", 1): results(confidence[300:], rng.random(300) < confidence[300:] / 2),
        ("mixup", 0): results([0.5] * FEWEST + [0.9], [True, False] * (FEWEST // 2) + [True]),
    }


def test_seeds_are_taken_together(images):
    from sklearn.calibration import calibration_curve

    curves = reliability(images, ["none", "mixup", "cutmix"])
    assert list(curves) == ["mixup", "cutmix"] and curves["cutmix"].seeds == 2
    both = [images["cutmix", seed] for seed in range(2)]
    right = np.concatenate([each.bitmap.right for each in both])
    confidence = np.concatenate([each.confidence for each in both])
    accuracy, mean = calibration_curve(right, confidence, n_bins=BINS)
    np.testing.assert_allclose(curves["cutmix"].bins.accuracy, accuracy)
    np.testing.assert_allclose(curves["cutmix"].bins.confidence, mean, rtol=1e-5)


def test_a_bin_of_enough_images_is_a_point_beside_the_diagonal(axis, images):
    curves = reliability(images, ["cutmix", "mixup"])
    draw_reliability(axis, curves, 2.8)
    diagonal, cutmix, mixup = [line for line in axis.lines if line.get_label() != MARK]
    assert diagonal.get_color() == INK
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 100]
    bins = curves["cutmix"].bins
    enough = bins.count >= FEWEST
    np.testing.assert_allclose(cutmix.get_xdata(), 100 * bins.confidence[enough])
    np.testing.assert_allclose(cutmix.get_ydata(), 100 * bins.accuracy[enough])
    assert mixup.get_xdata().tolist() == [50] and mixup.get_ydata().tolist() == [50]
    for line, spec in ((cutmix, "cutmix"), (mixup, "mixup")):
        look = look_of(spec)
        assert (to_hex(line.get_color()), line.get_marker()) == (look.colour.lower(), look.marker)
    assert {text.get_text() for text in axis.texts} == {"cutmix", "mixup"}


def test_the_images_of_each_bin_are_a_seeds_on_average(axis, images):
    curves = reliability(images, ["cutmix", "mixup"])
    draw_confidence(axis, curves)
    cutmix, mixup = axis.lines
    assert sum(cutmix.get_ydata()) == 300 and sum(mixup.get_ydata()) == FEWEST + 1
    assert cutmix.get_ydata().tolist() == (curves["cutmix"].bins.count / 2).tolist()
    assert cutmix.get_xdata()[[0, -1]].tolist() == pytest.approx([100 / 30, 100 - 100 / 30])


def test_too_few_images_have_no_curve(axis):
    few = reliability({("cutmix", 0): results([0.5] * 3, [True] * 3)}, ["cutmix"])
    assert reliability_figure(few) == reliability_figure({}) == ""
    draw_reliability(axis, few, 2.8)
    assert not axis.texts


def test_confidence_that_is_no_number_is_left_out():
    curves = reliability({("cutmix", 0): results([np.nan, 0.5], [False, True])}, ["cutmix"])
    assert curves["cutmix"].bins.count.sum() == 1


def test_the_figure_has_both_parts(images):
    svg = reliability_figure(reliability(images, ["cutmix", "mixup"]))
    for words in ("images that are right (%)", "confidence (%)", ">images<", ">cutmix<"):
        assert words in svg
