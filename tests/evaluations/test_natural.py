"""Calibration, AURRA and AUPR against scikit-learn, pandas, torchmetrics and closed forms."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score
from torchmetrics.classification import BinaryAveragePrecision

from mixbench.evaluations.natural import aupr_out, aurra, rms_calibration_error


def samples(count, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.005, 1, count)
    return confidence, rng.uniform(size=count) < confidence**2


@pytest.mark.parametrize("count", [200, 1000, 7500])
def test_calibration_is_scikit_learns_quantile_curve(count):
    confidence, correct = samples(count)
    true, predicted = calibration_curve(
        correct, confidence, n_bins=count // 100, strategy="quantile"
    )
    squares = (true - predicted) ** 2
    kept = rms_calibration_error(confidence, correct, "keep")
    assert kept == pytest.approx(np.sqrt(squares.mean()), abs=1e-12)
    dropped = rms_calibration_error(confidence, correct)
    assert dropped == pytest.approx(np.sqrt(squares[:-1].sum() / len(squares)), abs=1e-12)
    assert dropped < kept


def test_the_last_bin_has_what_is_left_over():
    confidence, correct = np.linspace(0, 1, 250), np.zeros(250)
    first, last = confidence[:100].mean(), confidence[100:].mean()
    expected = np.sqrt(0.4 * first**2 + 0.6 * last**2)
    assert rms_calibration_error(confidence, correct, "keep") == pytest.approx(expected)
    assert rms_calibration_error(confidence, correct) == pytest.approx(np.sqrt(0.4) * first)


def test_aurra_is_pandas_expanding_mean():
    confidence, correct = samples(997)
    confidence = confidence.round(2)  # with ties, of which the first stays first
    frame = pd.DataFrame({"confidence": confidence, "correct": correct.astype(float)})
    ordered = frame.sort_values("confidence", ascending=False, kind="stable").correct
    assert aurra(confidence, correct) == pytest.approx(ordered.expanding().mean().mean())
    assert aurra(confidence, np.ones(997)) == 1 and aurra(confidence, np.zeros(997)) == 0
    assert aurra([0.9, 0.5, 0.1], [1, 0, 0]) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


@pytest.mark.parametrize("digits", [1, 2, 12])
def test_aupr_is_scikit_learns_and_torchmetrics(digits):
    inside, outside = samples(900)[0].round(digits), samples(180, 1)[0].round(digits) ** 2
    scores = -np.concatenate([inside, outside])
    truth = np.concatenate([np.zeros(900, int), np.ones(180, int)])
    found = aupr_out(inside, outside)
    assert found == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    if digits == 12:  # in its float32 others become equal
        scores = torch.from_numpy(scores + 1)
        metric = BinaryAveragePrecision()(scores, torch.tensor(truth))
        assert found == pytest.approx(float(metric), abs=1e-6)


def test_aupr_of_the_best_and_of_a_guess():
    assert aupr_out(np.full(50, 0.9), np.full(10, 0.1)) == 1
    assert aupr_out(np.full(50, 0.5), np.full(10, 0.5)) == pytest.approx(10 / 60)


def test_the_order_of_samples_does_not_matter_and_tensors_are_welcome():
    confidence, correct = samples(640)
    order = np.random.default_rng(2).permutation(640)
    for figure in (rms_calibration_error, aurra):
        whole = figure(confidence, correct)
        assert figure(confidence[order], correct[order]) == pytest.approx(whole)
        tensors = torch.from_numpy(confidence), torch.from_numpy(correct)
        assert figure(*tensors) == pytest.approx(whole)


def test_what_is_refused():
    confidence, correct = samples(199)
    with pytest.raises(ValueError, match="needs 200 samples or more, not 199"):
        rms_calibration_error(confidence, correct)
    with pytest.raises(ValueError, match="last_bin must be one of drop, keep, not 'all'"):
        rms_calibration_error(*samples(200), "all")
    with pytest.raises(ValueError, match="confidence has 199 values and correct 198"):
        aurra(confidence, correct[1:])
    with pytest.raises(ValueError, match="must be numbers, and 1 are NaN"):
        aurra([np.nan, 0.5], [1, 0])
    with pytest.raises(ValueError, match=r"out_confidence must be \(N,\) with a value or more"):
        aupr_out(confidence, [])
