"""How far a strategy's labels are from what is visible, on drawn scenes with masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mixbench.data.normalisation import Normalisation
from mixbench.data.scenes import Scene
from mixbench.mix import MixStrategy
from mixbench.services.context import make_context
from mixbench.strategies.oacutmix import visible_share
from mixbench.training.forward import Network
from mixbench.training.guard import guarded

BATCH = 50  # scenes that are mixed at once


@torch.no_grad()
def label_error(
    strategy: MixStrategy,
    network: Network,
    scenes: Sequence[Scene],
    normalisation: Normalisation,
    seed: int = 0,
) -> float | None:
    """The mean |lam - visible share| of a strategy over scenes, in percent points.

    None where its pixels are not those that `compose` says, so that nobody knows what is visible.
    The last batch may be smaller; a single scene has no partner and is left out. ValueError for
    fewer than two scenes.
    Source: the paper's first figure shows that area and content disagree; the measure is ours.
    """
    if len(scenes) < 2:
        raise ValueError(f"label error needs 2 scenes or more to mix, not {len(scenes)}")
    errors = []
    strategy = guarded(strategy)
    network.model.eval()
    for step, begin in enumerate(range(0, len(scenes), BATCH)):
        batch = scenes[begin : begin + BATCH]
        if len(batch) < 2:
            break
        images, labels, objects = _tensors(batch, normalisation)
        ctx = make_context(
            strategy,
            network.model,
            images,
            seed=seed,
            step=step,
            mean=normalisation.mean,
            std=normalisation.std,
            objects=objects,
            part=network.part,
        )
        mixed = strategy.mix(images, labels, ctx)
        if not torch.allclose(mixed.compose(images, images), mixed.images, atol=1e-4):
            return None
        with network:
            lam = strategy.relabel(mixed, network(mixed.images))
        errors.append((lam - visible_share(mixed, objects)).abs())
    return 100 * float(torch.cat(errors).nanmean())


def _tensors(
    scenes: Sequence[Scene], normalisation: Normalisation
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised images (B, 3, H, W), labels (B,) and object masks (B, 1, H, W) of scenes."""
    device = normalisation.mean.device
    pixels = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
    objects = torch.from_numpy(np.stack([scene.mask for scene in scenes]))[:, None].float()
    labels = torch.tensor([scene.label for scene in scenes], device=device)
    return normalisation.apply(pixels.to(device) / 255), labels, objects.to(device)
