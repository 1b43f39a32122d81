"""The one builder of timm models."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mixbench.mix import hashed_seed
from mixbench.values import did_you_mean


def build_model(
    name: str, num_classes: int, seed: int, *, image_size: int, **parts: Any
) -> nn.Module:
    """A fresh timm model, the same for the same seed; `parts` that are None keep the model's own; ValueError for an unknown name."""
    import timm

    if not timm.is_model(name):
        raise ValueError(f"unknown model {name!r}: {did_you_mean(name, timm.list_models())}")
    kwargs = {key: value for key, value in parts.items() if value is not None}
    torch.manual_seed(hashed_seed("init", seed))
    try:
        return timm.create_model(name, num_classes=num_classes, img_size=image_size, **kwargs)
    except AssertionError as error:
        raise ValueError(
            f"{name} cannot be built with {kwargs} at {image_size} px: {error}"
        ) from None
    except TypeError:  # convolutional networks take any size and no img_size
        torch.manual_seed(hashed_seed("init", seed))
        try:
            return timm.create_model(name, num_classes=num_classes, **kwargs)
        except TypeError as error:
            raise ValueError(
                f"{name} does not take all of {', '.join(kwargs)} ({error}): set what it lacks to null"
            ) from None
