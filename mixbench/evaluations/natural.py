"""Figures of confidences on natural adversaries (the paper's Table 4; Hendrycks et al., 2021)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BIN = 100  # samples of a bin
LAST_BINS = ("drop", "keep")


def _one_dimensional(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Values (N,) of NumPy or torch as float64; ValueError for another shape and for NaN."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must be (N,) with a value or more, not of shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name} must be numbers, and {int(np.isnan(array).sum())} are NaN")
    return array


def _pair(confidence: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    pair = _one_dimensional(confidence, "confidence"), _one_dimensional(correct, "correct")
    if len(pair[0]) != len(pair[1]):
        raise ValueError(f"confidence has {len(pair[0])} values and correct {len(pair[1])}")
    return pair


def rms_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, last_bin: str = "drop"
) -> float:
    """The root mean square of confidence minus accuracy over bins of 100 samples, 0..1.

    confidence (N,) in [0, 1], correct (N,) bool. Samples are sorted by confidence, the last bin has
    what is left over. 'drop' leaves that bin, the most confident one, out of the sum but not out of
    N, as the released code does; 'keep' counts it. ValueError for fewer than 200 samples, of which
    the released code makes 0 or an IndexError. Source: Hendrycks et al., 2021.
    """
    if last_bin not in LAST_BINS:
        raise ValueError(f"last_bin must be one of {', '.join(LAST_BINS)}, not {last_bin!r}")
    values, right = _pair(confidence, correct)
    if len(values) < 2 * BIN:
        raise ValueError(
            f"a calibration error in bins of {BIN} needs {2 * BIN} samples or more, not "
            f"{len(values)}"
        )
    order = np.argsort(values, kind="stable")
    starts = np.arange(len(values) // BIN) * BIN
    counts = np.diff([*starts, len(values)])
    gaps = np.add.reduceat(values[order] - right[order], starts) / counts
    squares = counts / len(values) * gaps**2
    return float(np.sqrt(squares[:-1].sum() if last_bin == "drop" else squares.sum()))


def aurra(confidence: ArrayLike, correct: ArrayLike) -> float:
    """The area under the response rate accuracy curve, 0..1: mean accuracy of the most confident.

    confidence (N,), correct (N,) bool; of equal confidences the first stays first.
    Source: Hendrycks et al., 2021.
    """
    values, right = _pair(confidence, correct)
    sorted_right = right[np.argsort(-values, kind="stable")]
    return float((sorted_right.cumsum() / np.arange(1, len(right) + 1)).mean())


def aupr_out(in_confidence: ArrayLike, out_confidence: ArrayLike) -> float:
    """The average precision of telling images of no known class by their low confidence, 0..1.

    in_confidence (N,) of images of known classes, out_confidence (M,) of the others, which are the
    positives: a guess gives M / (N + M). Source: Hendrycks et al., 2021.
    """
    inside = _one_dimensional(in_confidence, "in_confidence")
    outside = _one_dimensional(out_confidence, "out_confidence")
    confidence = np.concatenate([inside, outside])
    positive = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    order = np.argsort(confidence, kind="stable")
    found = positive[order].cumsum()
    # equal confidences are told apart by nothing: one threshold for all of them
    last = np.flatnonzero(np.diff(confidence[order], append=np.inf) > 0)
    precision, recall = found[last] / (last + 1), found[last] / len(outside)
    return float((np.diff(recall, prepend=0) * precision).sum())
