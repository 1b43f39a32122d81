"""Where a model's class token looks in each image, beside an untrained model's, in one pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mixbench.data.loaders import readable
from mixbench.errors import reason
from mixbench.evaluations.evaluation import Subject
from mixbench.models.build import check_recipe_model, recipe_model
from mixbench.models.checkpoints import adapt
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.services.attention import ClassAttention

SUBJECT, UNTRAINED = "", "untrained model"  # settings
HEADS = ("best", "mean")
BATCH = 16


def class_maps(
    subject: Subject,
    recipe: Recipe,
    samples: Dataset[tuple[Any, ...]],
    heads: str,
    runtime: Runtime,
) -> Iterator[tuple[dict[str, np.ndarray], tuple[Any, ...]]]:
    """Of each sample the last block's class attention by setting, (heads, h, w), and the rest.

    A sample is an image (3, H, W) of the recipe's size, and more. heads 'best' gives each head,
    'mean' their average as one. The untrained model is the subject's with the weights of its seed.
    NoClassAttention where the model has none.
    """
    fresh = recipe_model(subject.recipe, len(subject.classes), subject.seed)
    taps = {
        setting: ClassAttention(model_at(model, subject, recipe).to(runtime.device).eval())
        for setting, model in ((SUBJECT, subject.model), (UNTRAINED, fresh))
    }
    loader = DataLoader(
        samples, batch_size=BATCH, num_workers=runtime.workers, collate_fn=_collated
    )
    done, count = 0, len(samples)  # type: ignore[arg-type]
    for images, others in readable(loader):
        images = images.to(runtime.device)
        maps = {setting: _seen(tap, images, heads) for setting, tap in taps.items()}
        for row, other in enumerate(others):
            yield {setting: each[row] for setting, each in maps.items()}, other
        done += len(images)
        runtime.tick(done, count)


def _collated(samples: Sequence[tuple[Any, ...]]) -> tuple[Tensor, list[tuple[Any, ...]]]:
    return torch.stack([sample[0] for sample in samples]), [sample[1:] for sample in samples]


@torch.no_grad()
def _seen(tap: ClassAttention, images: Tensor, heads: str) -> np.ndarray:
    """(B, heads, h, w) float32, one head where they are averaged."""
    with tap:
        tap(images)
        maps = tap.per_head()
    return (maps if heads == "best" else maps.mean(1, keepdim=True)).cpu().numpy()


def model_at(model: nn.Module, subject: Subject, recipe: Recipe) -> nn.Module:
    """A model of the subject's kind for a recipe's image size, itself where that is its own.

    Position embeddings are resampled as `checkpoints.adapt` does it. ValueError where weights do
    not fit that size.
    """
    size = recipe.image_size
    if size == subject.recipe.image_size:
        return model
    other = recipe_model(recipe, len(subject.classes), subject.seed)
    try:
        other.load_state_dict(adapt(model.state_dict(), other))
    except RuntimeError as error:
        raise ValueError(
            f"the weights of {recipe.model} at {subject.recipe.image_size} px do not fit it at "
            f"{size} px ({reason(error)}): take --protocol recipe --size 0"
        ) from None
    return other


def at_size(recipe: Recipe, size: int, **fields: Any) -> Recipe:
    """A recipe with images of another size, 0 for its own, and other fields changed.

    ValueError where its model takes no images of that size.
    """
    if size in (0, recipe.image_size):
        return dataclasses.replace(recipe, **fields)
    try:
        other = dataclasses.replace(recipe, image_size=size, **fields)
        check_recipe_model(other)
    except ValueError as error:
        words = str(error).replace("--image-size", "--protocol recipe --size")
        raise ValueError(words) from None
    return other


def by_setting(metric: str, values: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """A value an image of each setting, as a result keeps them: 'metric setting'."""
    return {
        f"{metric} {setting}".strip(): np.array(each, np.float64)
        for setting, each in values.items()
    }
