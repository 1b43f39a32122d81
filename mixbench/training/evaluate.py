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

NOWHERE = 2**20  # the rank of a class whose score is not finite
BINS = 15  # of confidence, in the calibration error


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model says of N validation images, image by image, on the CPU."""

    rank: Tensor  # (N,) int64, classes that score above the true one; NOWHERE if not finite
    nll: Tensor  # (N,) float32, nats
    confidence: Tensor  # (N,) float32, probability of the predicted class

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

    def calibration_error(self) -> float:
        """The expected calibration error, in percent."""
        return calibration_error(self.confidence.double().numpy(), self.correct)


@dataclass
class _Scores:
    """What one model has said so far, and what went wrong."""

    parts: list[Tensor] = field(default_factory=list)  # (3, B) each, as `_scores` gives them
    trouble: Failed | None = None


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
    return _gathered(torch.zeros(3, 0, device=runtime.device), runtime.world)


def _scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Rank of the true class, its negative log-likelihood, the predicted class's probability.

    logits (B, K), labels (B,) -> (3, B). Of equal scores the lower class comes first.
    """
    true = logits.gather(1, labels[:, None])  # (B, 1)
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    tied = (logits == true) & before
    rank = ((logits > true) | tied).sum(1).where(logits.isfinite().all(1), NOWHERE)
    log_probability = logits.log_softmax(1)
    nll = -log_probability.gather(1, labels[:, None])[:, 0]
    return torch.stack([rank.float(), nll, log_probability.amax(1).exp()])


def _gathered(scores: Tensor, world: World) -> Evaluation:
    """The scores (3, n) of this process and all others in the order of the data set."""
    if world.size > 1:
        count = world.total(torch.tensor(scores.shape[1], device=scores.device))
        whole = scores.new_zeros(3, int(count))
        whole[:, world.rank :: world.size] = scores
        scores = world.total(whole)
    rank, nll, confidence = scores.cpu()
    return Evaluation(rank.long(), nll, confidence)


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error in percent; confidence (N,) in [0, 1], correct (N,) bool.

    |accuracy - confidence| of each of `bins` equal intervals (low, high], weighted by its images.
    Source: Guo et al. 2017.
    """
    index = np.clip(np.ceil(confidence * bins), 1, bins).astype(int) - 1
    gap = np.bincount(index, correct, bins) - np.bincount(index, confidence, bins)
    return 100 * float(np.abs(gap).sum()) / len(confidence)
