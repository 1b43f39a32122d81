"""How well confidence meets accuracy: bins of confidence, and the calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15  # of confidence


@dataclass(frozen=True, eq=False)
class Bins:
    """The images of each bin of confidence, (bins,) each; the means of an empty bin are NaN."""

    count: np.ndarray
    confidence: np.ndarray  # mean, in [0, 1]
    accuracy: np.ndarray  # share that was right


def confidence_bins(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Bins:
    """What is in each of `bins` equal intervals (low, high]; a confidence of 0 is in the first.

    confidence (N,) in [0, 1], of which NaN is left out; correct (N,) bool.
    """
    known = np.isfinite(confidence)
    values, right = confidence[known], correct[known]
    index = np.clip(np.ceil(values * bins), 1, bins).astype(int) - 1
    count = np.bincount(index, minlength=bins)
    some = np.where(count, count, np.nan)
    return Bins(
        count, np.bincount(index, values, bins) / some, np.bincount(index, right, bins) / some
    )


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error in percent; confidence (N,) in [0, 1], correct (N,) bool.

    |accuracy - confidence| of each of the bins, weighted by its images; NaN without any.
    Source: Guo et al. 2017.
    """
    found = confidence_bins(confidence, correct, bins)
    if not found.count.any():
        return float("nan")
    gaps = found.count * np.abs(found.accuracy - found.confidence)
    return 100 * float(np.nansum(gaps) / found.count.sum())
