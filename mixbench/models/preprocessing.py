"""How images were prepared for a file's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixbench.recipe import Recipe, parse_value

# by the recipe's names
PREPROCESSING = ("image_size", "mean", "std", "crop_pct", "interpolation")


def recorded_preprocessing(recorded: Any, path: Path) -> dict[str, Any]:
    """What a file says of it; {} where it says nothing, ValueError where what it says is wrong."""
    if not isinstance(recorded, dict):
        return {}
    given = {name: recorded[name] for name in PREPROCESSING if name in recorded}
    try:
        return {name: parse_value(name, value) for name, value in given.items()}
    except ValueError as error:
        raise ValueError(
            f"{path} says how its images were prepared, and is wrong ({error}): "
            "save its weights alone"
        ) from None


def timms_config(model: str) -> Any:
    """What timm says of its weights of a model, whose name may have a tag; None where nothing."""
    import timm

    return timm.get_pretrained_cfg(model) if timm.is_model(model) else None


def timms_preprocessing(model: str) -> dict[str, Any]:
    """How images were prepared for timm's weights of a model."""
    config = timms_config(model)
    if config is None:
        return {}
    said = {
        "image_size": config.input_size[-1],
        "mean": tuple(config.mean),
        "std": tuple(config.std),
        "crop_pct": config.crop_pct,
    }
    if config.interpolation in Recipe.options()["interpolation"].choices:
        said["interpolation"] = config.interpolation
    return said
