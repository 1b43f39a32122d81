"""Evaluation, image by image: hits, likelihood and calibration."""

import numpy as np
import pytest
import torch

from mixbench.runtime import Failed, Runtime
from mixbench.training.evaluate import evaluate, is_evaluated

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("epochs", "interval", "evaluated"),
    [
        (4, 1, [1, 2, 3, 4]),
        (4, 2, [2, 4]),
        (4, 3, [3, 4]),
        (5, 2, [2, 4, 5]),
        (3, 9, [3]),
        (1, 1, [1]),
    ],
)
def test_every_so_many_epochs_are_evaluated_and_the_last(epochs, interval, evaluated):
    found = [epoch + 1 for epoch in range(epochs) if is_evaluated(epoch, epochs, interval)]
    assert found == evaluated


def test_evaluate_counts_like_torchmetrics_would():
    logits = torch.randn(23, 7)
    labels = torch.randint(7, (23,))
    loader = [(logits[:16], labels[:16]), (logits[16:], labels[16:])]
    [evaluation] = evaluate([torch.nn.Identity()], loader, False, Runtime(device=CPU))
    order = logits.argsort(1, descending=True)
    assert evaluation.top(1) == pytest.approx(100 * (order[:, 0] == labels).float().mean().item())
    assert evaluation.top(5) == pytest.approx(
        100 * sum(int(y) in row[:5].tolist() for row, y in zip(order, labels, strict=True)) / 23
    )
    assert torch.allclose(
        evaluation.nll,
        torch.nn.functional.cross_entropy(logits, labels, reduction="none"),
        atol=1e-6,
    )
    assert torch.allclose(evaluation.confidence, logits.softmax(1).amax(1))


def test_ties_and_scores_that_are_not_finite_are_no_hits():
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [float("nan"), 0.0, 0.0]])
    loader = [(logits, torch.tensor([0, 1, 0]))]
    [evaluation] = evaluate([torch.nn.Identity()], loader, False, Runtime(device=CPU))
    assert evaluation.rank.tolist() == [0, 1, 2**20] and evaluation.top(5) == pytest.approx(200 / 3)
    assert evaluation.predicted.tolist() == [0, 0, -1] and evaluation.confidence[2].isnan()
    assert evaluation.correct.tolist() == [True, False, False] and not evaluation.finite


def test_a_class_without_a_chance_is_no_prediction():
    """A score of minus infinity leaves the likelihood finite, and the image counts as wrong."""
    logits = torch.tensor([[1.0, float("-inf"), 0.0]])
    loader = [(logits, torch.tensor([0]))]
    [evaluation] = evaluate([torch.nn.Identity()], loader, False, Runtime(device=CPU))
    assert evaluation.predicted.tolist() == [-1] and evaluation.correct.tolist() == [False]
    assert evaluation.finite and evaluation.brier.isfinite().all()


def test_a_model_that_cannot_be_evaluated_is_a_value_and_the_others_are_evaluated():
    class Broken(torch.nn.Module):
        def forward(self, images):
            raise RuntimeError("no forward")

    loader = [(torch.eye(3), torch.arange(3))]
    models = [Broken(), torch.nn.Identity()]
    broken, whole = evaluate(models, loader, False, Runtime(device=CPU))
    assert broken == Failed("failed: RuntimeError: no forward") and whole.top(1) == 100


def test_likelihood_and_brier_score_equal_torchmetrics_and_scikit_learn():
    from sklearn.metrics import brier_score_loss, log_loss
    from torchmetrics.functional.classification import multiclass_accuracy

    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(300, 7, generator=rng)
    labels = torch.randint(6, (300,), generator=rng)  # of the last class there is no image
    [evaluation] = evaluate([torch.nn.Identity()], [(logits, labels)], False, Runtime(device=CPU))
    probability, classes = logits.double().softmax(1).numpy(), list(range(7))
    assert evaluation.mean_nll == pytest.approx(
        log_loss(labels.numpy(), probability, labels=classes), rel=1e-5
    )
    assert evaluation.brier.mean().item() == pytest.approx(
        brier_score_loss(labels.numpy(), probability, labels=classes, scale_by_half=False), rel=1e-5
    )
    one_hot = np.eye(7)[labels.numpy()]
    np.testing.assert_allclose(
        evaluation.brier.numpy(), ((probability - one_hot) ** 2).sum(1), atol=1e-5
    )
    expected = multiclass_accuracy(logits, labels, num_classes=7, average="micro")
    assert (evaluation.predicted == labels).float().mean().item() == pytest.approx(expected.item())


def test_the_brier_score_lies_between_0_and_2():
    logits = torch.tensor([[100.0, 0.0, 0.0], [100.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    loader = [(logits, torch.tensor([0, 1, 2]))]
    [evaluation] = evaluate([torch.nn.Identity()], loader, False, Runtime(device=CPU))
    assert evaluation.brier.tolist() == pytest.approx([0, 2, 2 / 3])
