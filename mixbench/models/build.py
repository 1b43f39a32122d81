"""The one builder of timm models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from mixbench.mix import hashed_seed
from mixbench.recipe import Recipe
from mixbench.values import did_you_mean


def check_name(name: str, noun: str = "model", also: Iterable[str] = ()) -> None:
    """ValueError with the nearest names where timm has no model of this name, or not the tag in it.

    The error calls the model a `noun`; `also` are names that it may propose beside timm's.
    """
    import timm

    if timm.is_model(name):
        try:
            timm.get_pretrained_cfg(name)
            return
        except RuntimeError:  # the tag after the dot
            known = timm.list_pretrained()
    else:
        known = [*timm.list_models(), *also]
    raise ValueError(f"unknown {noun} {name!r}: {did_you_mean(name, known)}")


def build_model(
    name: str,
    num_classes: int | None = None,
    seed: int | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    pretrained: bool = False,
    **parts: Any,
) -> nn.Module:
    """timm's model of this name, with the same initial weights for the same seed.

    What is None keeps the model's default: its classes, its image size, a part such as `depth`, and
    the weights drawn from torch's global generator. ValueError for an unknown name, for parts that
    the model lacks and for parts that do not fit together.
    """
    import timm

    check_name(name)
    given = {part: value for part, value in parts.items() if value is not None}

    def create(img_size: int | tuple[int, int] | None) -> nn.Module:
        if seed is not None:
            torch.manual_seed(hashed_seed("init", seed))
        return timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, img_size=img_size, **given
        )

    try:
        try:
            return create(image_size)
        except TypeError:  # convolutional networks take any size and no img_size
            return create(None)
    except AssertionError as error:
        size = f" at {image_size} px" if image_size else ""
        raise ValueError(f"{name} cannot be built with {given}{size}: {error}") from None
    except TypeError as error:
        raise ValueError(
            f"{name} does not take all of {', '.join(given)} ({error}): set what it lacks to null"
        ) from None


def recipe_model(recipe: Recipe, num_classes: int, seed: int) -> nn.Module:
    """The recipe's model with its initial weights, the same for the same seed."""
    return build_model(
        recipe.model,
        num_classes,
        seed,
        image_size=recipe.image_size,
        patch_size=recipe.patch_size,
        embed_dim=recipe.embed_dim,
        depth=recipe.depth,
        num_heads=recipe.num_heads,
        drop_rate=recipe.drop_rate,
        drop_path_rate=recipe.drop_path,
    )
