"""IoU and accuracies of a segmentation, from the counts of true and predicted classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mixbench.data.label_maps import IGNORED


def confusion(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels (K, K) by true and predicted class; those with the label IGNORED do not count."""
    counted = labels != IGNORED
    pairs = labels[counted].astype(np.int64) * num_classes + predicted[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True, eq=False)
class Scores:
    """What counts (K, K) over a data set say, in percent, as mmsegmentation has it.

    A class that is neither there nor predicted has no IoU (NaN), and one that is not there no
    accuracy; the means are over the others.
    """

    counts: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Pixels that are right, by all that are of a class or predicted as it, (K,)."""
        union = self.counts.sum(0) + self.counts.sum(1) - self.counts.diagonal()
        return self._share(union)

    @property
    def accuracy(self) -> np.ndarray:
        """Pixels that are right, by those of a class, (K,)."""
        return self._share(self.counts.sum(1))

    @property
    def miou(self) -> float:
        """The mean IoU."""
        return _mean(self.iou)

    @property
    def macc(self) -> float:
        """The mean accuracy of the classes."""
        return _mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """Pixels that are right, by all that count."""
        return 100 * float(self.counts.trace()) / float(self.counts.sum() or math.nan)

    def _share(self, of: np.ndarray) -> np.ndarray:
        return 100 * self.counts.diagonal() / np.where(of > 0, of, math.nan)


def _mean(values: np.ndarray) -> float:
    """The mean of what is known; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
