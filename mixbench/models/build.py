"""The one builder of timm models."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from mixbench.errors import reason
from mixbench.mix import hashed_seed
from mixbench.models.factory import is_made
from mixbench.models.hub import reach_hub
from mixbench.recipe import MODEL_PARTS, Recipe, check_multiple
from mixbench.values import did_you_mean, shown

CHECKED_CLASSES = 3


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
    raise ValueError(f"unknown {noun} {shown(name)}: {did_you_mean(name, known)}")


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
    the model lacks and for parts that do not fit together; ConnectionError where pretrained weights
    are neither cached nor in reach.
    """
    import timm

    check_name(name)
    if pretrained:
        config = timm.get_pretrained_cfg(name)
        reach_hub(getattr(config, "hf_hub_id", None))
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
    except TypeError as error:
        raise ValueError(
            f"{name} does not take all of {', '.join(given)} ({reason(error)}): set what it lacks "
            "to null"
        ) from None
    except Exception as error:  # whatever a network finds wrong with its parts
        if pretrained:  # timm's words for weights that cannot be had
            raise
        size = f" at {image_size} px" if image_size else ""
        raise ValueError(f"{name} cannot be built with {given}{size}: {reason(error)}") from None


def check_model(field: str, name: str, image_size: int, **parts: Any) -> None:
    """ValueError where the recipe's `field` names a network that cannot be trained so.

    It is built without memory for its weights and takes images without pixels: no logits, an image
    size that its patches do not divide, and parts that do not fit are found at once.
    """
    check_name(name)
    device = "cpu" if is_made(name) else "meta"  # timm's models can be built without memory
    images = torch.zeros(2, 3, image_size, image_size, device=device)
    with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
        model = build_model(name, CHECKED_CLASSES, image_size=image_size, **parts).train()
        patches = _watch_patches(model)
        try:
            logits = model(images)
        except Exception as error:
            if isinstance(error, NotImplementedError) or "meta" in str(error).lower():
                return  # it reads numbers on its way, and nothing more is known
            raise ValueError(
                f"{field} {name} cannot take images of {image_size} px ({reason(error)}): "
                f"choose another size, or another model"
            ) from None
    _check_patches(f"{field.removesuffix('model')}image_size", image_size, patches)
    # a function of anyone's own may give one network for whatever number of classes
    classes = (
        logits.shape[-1:]
        if is_made(name) and isinstance(logits, torch.Tensor)
        else (CHECKED_CLASSES,)
    )
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, *classes):
        raise ValueError(f"{field} {name} gives no logits of classes: choose a classifier")


def _watch_patches(model: nn.Module) -> list[tuple[int, int, int]]:
    """Have a network list, on its way, its convolutions that cut patches of images or tokens.

    Each is the number of its input channels, the side of what it cuts, and a patch's side.
    """
    patches: list[tuple[int, int, int]] = []

    def note(module: nn.Conv2d, inputs: tuple[torch.Tensor, ...]) -> None:
        patches.append((module.in_channels, inputs[0].shape[-1], int(module.stride[0])))

    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d) or module.padding not in (0, (0, 0)):
            continue
        cuts = module.kernel_size == module.stride and module.stride[0] > 1
        if cuts and (module.in_channels == 3 or "patch_embed" in name):
            module.register_forward_pre_hook(note)
    return patches


def _check_patches(field: str, image_size: int, patches: list[tuple[int, int, int]]) -> None:
    """ValueError where patches do not divide what they are cut of."""
    if not any(side % patch for _, side, patch in patches):
        return
    whole = math.lcm(*(patch for channels, _, patch in patches if channels == 3))
    deeper = math.prod(patch for channels, _, patch in patches if channels != 3)
    check_multiple(field, image_size, whole * deeper)


def recipe_model(recipe: Recipe, num_classes: int, seed: int) -> nn.Module:
    """The recipe's model with its initial weights, the same for the same seed."""
    return build_model(
        recipe.model, num_classes, seed, image_size=recipe.image_size, **_parts(recipe)
    )


def check_recipe_model(recipe: Recipe, field: str = "model") -> None:
    """ValueError where the recipe's model, which `field` names, cannot be trained."""
    check_model(field, recipe.model, recipe.image_size, **_parts(recipe))


def _parts(recipe: Recipe) -> dict[str, Any]:
    """What the recipe says of its model's parts, by timm's names."""
    parts = {name: getattr(recipe, name) for name in MODEL_PARTS}
    return parts | {"drop_rate": recipe.drop_rate, "drop_path_rate": recipe.drop_path}
