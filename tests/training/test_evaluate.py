"""Evaluation, image by image: hits, likelihood and calibration."""

import numpy as np
import pytest
import torch

from mixbench.runtime import Failed, Runtime
from mixbench.training.evaluate import calibration_error, evaluate

CPU = torch.device("cpu")


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


def test_a_model_that_cannot_be_evaluated_is_a_value_and_the_others_are_evaluated():
    class Broken(torch.nn.Module):
        def forward(self, images):
            raise RuntimeError("no forward")

    loader = [(torch.eye(3), torch.arange(3))]
    models = [Broken(), torch.nn.Identity()]
    broken, whole = evaluate(models, loader, False, Runtime(device=CPU))
    assert broken == Failed("failed: RuntimeError: no forward") and whole.top(1) == 100


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
