"""What models say of the validation images, image by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from mixbench.data.loaders import readable
from mixbench.distributed import World
from mixbench.runtime import Failed, Runtime, explain
from mixbench.training.calibration import calibration_error

NOWHERE = 2**20  # the rank of a class whose score is not finite
NO_CLASS = -1  # what is predicted where a score is not finite
FIGURES = 5  # of an image, as `_scores` gives them


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model says of N validation images, image by image, on the CPU."""

    rank: Tensor  # (N,) int64, classes that score above the true one; NOWHERE if not finite
    predicted: Tensor  # (N,) int64, the class of rank 0; NO_CLASS if not finite
    nll: Tensor  # (N,) float32, nats
    confidence: Tensor  # (N,) float32, probability of the predicted class
    brier: Tensor  # (N,) float32 in [0, 2], sum over the classes of (probability - one-hot)^2

    def top(self, k: int) -> float:
        """The share of images whose class is among the k best, in percent."""
        return 100 * float((self.rank < k).double().mean())

    @property
    def correct(self) -> np.ndarray:
        """Which images were right, (N,) bool."""
        return (self.rank == 0).numpy()

    @property
    def finite(self) -> bool:
        """Whether every image has a likelihood."""
        return bool(self.nll.isfinite().all())

    @property
    def mean_nll(self) -> float:
        """The mean negative log-likelihood, in nats."""
        return float(self.nll.mean())

    def calibration_error(self) -> float:
        """The expected calibration error, in percent."""
        return calibration_error(self.confidence.double().numpy(), self.correct)


@dataclass
class _Scores:
    """What one model has said so far, and what went wrong."""

    parts: list[Tensor] = field(default_factory=list)  # (FIGURES, B) each
    trouble: Failed | None = None


def is_evaluated(epoch: int, epochs: int, interval: int) -> bool:
    """Whether the validation images are evaluated after an epoch, from 0, of so many.

    That is after every interval-th one and after the last. The same in every process.
    """
    return (epoch + 1) % interval == 0 or epoch + 1 == epochs


@torch.no_grad()
def evaluate(
    models: Sequence[nn.Module],
    loader: Iterable[tuple[Tensor, Tensor]],
    amp: bool,
    runtime: Runtime,
) -> list[Evaluation | Failed]:
    """What each model says of every validation image, or why it could not be run.

    The images are loaded once for all models. Each process's loader gives the images rank,
    rank + size, ...
    """
    device = runtime.device
    scores = [_Scores() for _ in models]
    for model in models:
        model.eval()
    for images, labels in readable(loader):
        images = images.to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        for model, score in zip(models, scores, strict=True):
            if score.trouble is not None:
                continue
            try:
                with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                    logits = model(images)
                score.parts.append(_scores(logits.float(), labels))
            except Exception as error:  # it must not hurt the others
                score.trouble = explain(error)
    return [_result(score, runtime) for score in scores]


def _result(score: _Scores, runtime: Runtime) -> Evaluation | Failed:
    reason = runtime.world.agree(score.trouble.reason if score.trouble else None)
    if reason is not None:
        return Failed(reason)
    if score.parts:
        return _gathered(torch.cat(score.parts, 1), runtime.world)
    return _gathered(torch.zeros(FIGURES, 0, device=runtime.device), runtime.world)


def _scores(logits: Tensor, labels: Tensor) -> Tensor:
    """An image's figures in the order of Evaluation's fields; a class is a float32, exact to 2^24.

    logits (B, K), labels (B,) -> (FIGURES, B). Of equal scores the lower class comes first.
    """
    true = logits.gather(1, labels[:, None])  # (B, 1)
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    tied = (logits == true) & before
    finite = logits.isfinite().all(1)
    rank = ((logits > true) | tied).sum(1).where(finite, NOWHERE)
    predicted = logits.argmax(1).where(finite, NO_CLASS)
    log_probability = logits.log_softmax(1)
    nll = -log_probability.gather(1, labels[:, None])[:, 0]
    probability = log_probability.exp()
    one_hot = nn.functional.one_hot(labels, logits.shape[1])
    brier = (probability - one_hot).square().sum(1)
    return torch.stack([rank.float(), predicted.float(), nll, probability.amax(1), brier])


def _gathered(scores: Tensor, world: World) -> Evaluation:
    """The scores (FIGURES, n) of this process and all others in the order of the data set."""
    if world.size > 1:
        count = world.total(torch.tensor(scores.shape[1], device=scores.device))
        whole = scores.new_zeros(FIGURES, int(count))
        whole[:, world.rank :: world.size] = scores
        scores = world.total(whole)
    rank, predicted, nll, confidence, brier = scores.cpu()
    return Evaluation(rank.long(), predicted.long(), nll, confidence, brier)
