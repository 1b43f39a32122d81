"""IoU and accuracies, held against torchmetrics and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score
from torchmetrics.classification import MulticlassJaccardIndex

from mixbench.transfer.scores import Scores, confusion

CLASSES = 7


def maps(seed, absent=()):
    """Labels with IGNORED among them and predictions, without the classes `absent`."""
    rng = np.random.default_rng(seed)
    present = [each for each in range(CLASSES) if each not in absent]
    labels = rng.choice([*present, 255], size=(3, 20, 30)).astype(np.uint8)
    random = rng.choice(present, size=labels.shape)
    return labels, np.where(rng.random(labels.shape) < 0.6, np.minimum(labels, 6), random)


def test_counts_are_scikit_learns():
    labels, predicted = maps(0)
    known = labels != 255
    expected = confusion_matrix(labels[known], predicted[known], labels=range(CLASSES))
    counts = confusion(labels, predicted, CLASSES)
    assert np.array_equal(counts, expected)
    apart = sum(confusion(a, b, CLASSES) for a, b in zip(labels, predicted, strict=True))
    assert np.array_equal(counts, apart)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_torchmetrics_and_scikit_learns(seed):
    labels, predicted = maps(seed)
    scores = Scores(confusion(labels, predicted, CLASSES))
    tensors = torch.from_numpy(predicted), torch.from_numpy(labels.astype(int))
    each, mean = (
        MulticlassJaccardIndex(CLASSES, average=average, ignore_index=255)(*tensors)
        for average in (None, "macro")
    )
    assert scores.iou == pytest.approx(100 * each.numpy(), rel=1e-6)
    assert scores.miou == pytest.approx(100 * float(mean), rel=1e-6)
    known = labels != 255
    recall = recall_score(labels[known], predicted[known], average=None)
    assert scores.accuracy == pytest.approx(100 * recall)
    assert scores.macc == pytest.approx(100 * recall.mean())
    assert scores.pixel_accuracy == pytest.approx(100 * (labels == predicted)[known].mean())


def test_a_class_that_is_nowhere_has_no_iou_and_is_not_averaged():
    labels, predicted = maps(1, absent=(2,))
    predicted[predicted == 2] = 0
    scores = Scores(confusion(labels, predicted, CLASSES))
    tensors = torch.from_numpy(predicted), torch.from_numpy(labels.astype(int))
    each = MulticlassJaccardIndex(CLASSES, average=None, ignore_index=255)(*tensors).numpy()
    assert each[2] == 0  # where ours is NaN
    assert math.isnan(scores.iou[2]) and math.isnan(scores.accuracy[2])
    assert scores.miou == pytest.approx(100 * np.delete(each, 2).mean(), rel=1e-6)


def test_a_class_that_is_predicted_alone_has_an_iou_of_0_and_no_accuracy():
    scores = Scores(np.array([[3, 1], [0, 0]]))
    assert scores.iou.tolist() == [75, 0] and scores.miou == 37.5
    assert scores.accuracy[0] == scores.macc == 75 and math.isnan(scores.accuracy[1])


def test_nothing_labelled_is_nan():
    scores = Scores(np.zeros((3, 3), np.int64))
    assert all(map(math.isnan, (scores.miou, scores.macc, scores.pixel_accuracy)))
