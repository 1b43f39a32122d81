"""How far a strategy's labels are from what is visible, on drawn scenes, whose objects have masks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from mixbench.services.context import make_context
from mixbench.training.learner import Learner
from mixbench.training.objective import forward_pass

if TYPE_CHECKING:
    from mixbench.data.scenes import Scene


BATCH = 50


def visible_share(mask: torch.Tensor, objects: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    """A's share of the object pixels that a mask leaves visible, (B,); NaN where it leaves none.

    mask (B or 1, 1, H or 1, W or 1) is A's share of each pixel, objects (B, 1, H, W) are 1 on the object of each image.
    """
    ours = (mask * objects).sum((1, 2, 3))
    theirs = ((1 - mask) * objects[partner]).sum((1, 2, 3))
    return ours / (ours + theirs)


@torch.no_grad()
def label_error(
    learner: Learner,
    scenes: Sequence[Scene],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    seed: int = 0,
) -> float | None:
    """The mean |lam - visible share| of a trained learner's strategy over scenes, in percent; None where it moves pixels.

    Source: the paper's first figure, which shows area and content disagree; the measure is mixbench's own.
    """
    errors = []
    learner.model.eval()
    for step in range(len(scenes) // BATCH):
        batch = scenes[step * BATCH : (step + 1) * BATCH]
        pixels = (
            torch.stack([torch.from_numpy(scene.image) for scene in batch])
            .permute(0, 3, 1, 2)
            .to(device)
        )
        objects = (
            torch.stack([torch.from_numpy(scene.mask) for scene in batch])[:, None]
            .float()
            .to(device)
        )
        labels = torch.tensor([scene.label for scene in batch], device=device)
        column_mean, column_std = (
            torch.tensor(v, device=device).reshape(-1, 1, 1) for v in (mean, std)
        )
        images = (pixels / 255 - column_mean) / column_std
        ctx = make_context(
            learner.strategy, learner.model, images, seed=seed, step=step, mean=mean, std=std
        )
        mixed = learner.strategy.mix(images, labels, ctx)
        seen = mixed.mask * images + (1 - mixed.mask) * images[mixed.partner]
        if not torch.allclose(seen, mixed.images, atol=1e-4):
            return None
        with learner.tap or nullcontext():
            lam = learner.strategy.relabel(
                mixed, forward_pass(learner.model, learner.tap, False)(mixed.images)
            )
        errors.append((lam - visible_share(mixed.mask, objects, mixed.partner)).abs())
    return 100 * float(torch.cat(errors).nanmean())
