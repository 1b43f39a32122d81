"""Confidence against accuracy: the bins, and the calibration error over them."""

import numpy as np
import pytest
import torch

from mixbench.training.calibration import BINS, calibration_error, confidence_bins


def test_calibration_equals_torchmetrics():
    from torchmetrics.functional.classification import multiclass_calibration_error

    generator = torch.Generator().manual_seed(0)
    logits, labels = (
        3 * torch.randn(500, 7, generator=generator),
        torch.randint(7, (500,), generator=generator),
    )
    confidence, predicted = logits.double().softmax(-1).max(-1)
    expected = multiclass_calibration_error(
        logits.double().softmax(-1), labels, num_classes=7, n_bins=15, norm="l1"
    )
    assert calibration_error(confidence.numpy(), (predicted == labels).numpy()) == pytest.approx(
        100 * expected.item(), rel=1e-6
    )


def test_calibration_by_hand():
    # two images at confidence 3/4, one right: |1/2 - 3/4|; two at 1, both right: 0
    assert calibration_error(
        np.array([0.75, 0.75, 1, 1]), np.array([True, False, True, True])
    ) == pytest.approx(12.5)


def test_bins_equal_scikit_learns_calibration_curve():
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 400)
    correct = rng.random(400) < confidence**2
    bins = confidence_bins(confidence, correct)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=BINS)
    some = bins.count > 0
    assert not some[0] and some.sum() == BINS - 1  # no confidence is below a tenth
    np.testing.assert_allclose(bins.accuracy[some], accuracy)
    np.testing.assert_allclose(bins.confidence[some], mean)
    assert np.isnan(bins.accuracy[0]) and bins.count.sum() == 400


def test_ends_of_the_bins_and_what_is_no_number():
    """An interval holds its upper end; 0 is in the first; NaN is in none."""
    confidence = np.array([0.0, 0.2, 0.2000001, 1.0, np.nan])
    bins = confidence_bins(confidence, np.array([0, 1, 1, 1, 1], bool), bins=5)
    assert bins.count.tolist() == [2, 1, 0, 0, 1] and bins.accuracy[0] == 0.5
    assert np.isnan(calibration_error(np.array([np.nan]), np.array([True])))
    assert calibration_error(confidence, np.ones(5, bool), 5) == pytest.approx(
        100 * (2 * 0.9 + 0.7999999) / 4
    )
