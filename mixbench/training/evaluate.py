"""What a model says of the validation images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixbench.data.sources import UnreadableImage
from mixbench.distributed import World
from mixbench.runtime import explain

BINS = 15


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error in percent of confidences (N,) in [0, 1] and right answers (N,) bool.

    |accuracy - confidence| of each of `bins` equal intervals (low, high], weighted by its images. Source: Guo et al. 2017.
    """
    index = np.clip(np.ceil(confidence * bins), 1, bins).astype(int) - 1
    gap = np.bincount(index, correct, bins) - np.bincount(index, confidence, bins)
    return 100 * float(np.abs(gap).sum()) / len(confidence)


NOWHERE = 2**20  # the rank of a class whose score is not finite


@dataclass(frozen=True)
class Evaluation:
    """What a model says of N validation images, image by image, on the CPU."""

    rank: Tensor  # (N,) int64, classes that score above the true one; NOWHERE where the scores are not finite
    nll: Tensor  # (N,) float32, nats
    confidence: Tensor  # (N,) float32, probability of the predicted class

    def top(self, k: int) -> float:
        """The share of images whose class is among the k best, in percent."""
        return 100 * float((self.rank < k).double().mean())


def evaluate(
    model: nn.Module, loader: Any, device: torch.device, amp: bool, world: World = World()
) -> Evaluation:
    """What `model` says of every validation image; RuntimeError where it cannot be run on them."""
    [found] = evaluate_all([model], loader, device, amp, world)
    if isinstance(found, str):
        raise RuntimeError(found)
    return found


@torch.no_grad()
def evaluate_all(
    models: list[nn.Module],
    loader: Any,
    device: torch.device,
    amp: bool,
    world: World = World(),
) -> list[Evaluation | str]:
    """What each model says of every validation image, or why it could not be run; the images are loaded once for all.

    Each process's loader gives the images rank, rank + size, ...
    """
    parts: list[list[Tensor]] = [[] for _ in models]
    errors: list[str | None] = [None] * len(models)
    for model in models:
        model.eval()
    for images, labels in readable(loader):
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        for number, model in enumerate(models):
            try:
                if errors[number] is None:
                    with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                        logits = model(images)
                    parts[number].append(_scores(logits.float(), labels))
            except Exception as error:  # it must not hurt the others
                errors[number] = explain(error)
    results: list[Evaluation | str] = []
    for part, own_error in zip(parts, errors, strict=True):
        failure = world.agree(own_error)
        found = torch.cat(part, 1) if part else torch.zeros(3, 0, device=device)
        results.append(_gathered(found, world) if failure is None else failure)
    return results


def _scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Rank of the true class, its negative log-likelihood and the predicted class's probability, (3, B); logits (B, K)."""
    own = logits.gather(1, labels[:, None])  # (B, 1)
    tied = (logits == own) & (torch.arange(logits.shape[1], device=logits.device) < labels[:, None])
    rank = ((logits > own) | tied).sum(1).where(logits.isfinite().all(1), NOWHERE)
    log_probability = logits.log_softmax(1)
    nll = -log_probability.gather(1, labels[:, None])[:, 0]
    return torch.stack([rank.float(), nll, log_probability.amax(1).exp()])


def _gathered(found: Tensor, world: World) -> Evaluation:
    """The scores (3, n) of this process and all others in the order of the data set."""
    if world.size > 1:
        count = world.total(torch.tensor(found.shape[1], device=found.device))
        whole = found.new_zeros(3, int(count))
        whole[:, world.rank :: world.size] = found
        found = world.total(whole)
    rank, nll, confidence = found.cpu()
    return Evaluation(rank.long(), nll, confidence)


def readable(loader: Any) -> Iterator[Any]:
    """The batches of a loader; an unreadable image is told in one sentence, where a worker process sends its traceback too."""
    try:
        yield from loader
    except UnreadableImage as error:
        raise UnreadableImage(
            str(error).strip().splitlines()[-1].partition("UnreadableImage: ")[2] or str(error)
        ) from None
