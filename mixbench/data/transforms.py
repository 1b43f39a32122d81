"""DeiT's augmentation and the evaluation transform, by timm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixbench.data.draws import Draw
from mixbench.data.normalisation import Normalisation
from mixbench.recipe import Recipe

if TYPE_CHECKING:
    from torchvision.transforms import Compose


def train_transform(recipe: Recipe) -> Compose:
    """DeiT's training augmentation by timm, PIL image -> normalised (3, H, W) float32."""
    from timm.data import create_transform

    try:
        transform = create_transform(
            recipe.image_size,
            is_training=True,
            scale=recipe.scale,
            ratio=recipe.ratio,
            hflip=recipe.hflip,
            color_jitter=recipe.color_jitter if recipe.aa else 0.0,
            auto_augment=recipe.aa,
            interpolation=recipe.train_interpolation,
            mean=recipe.mean,
            std=recipe.std,
            re_prob=recipe.reprob,
            re_mode=recipe.remode,
            re_count=recipe.recount,
        )
    except (AssertionError, KeyError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"aa {recipe.aa!r} is not a policy of timm ({reason}): write rand-m9-mstd0.5-inc1, "
            "or null"
        ) from None
    _keep_one_bit(transform)
    return transform


def loader_transform(recipe: Recipe) -> Compose | Draw:
    """What the loader does to a training image, with the draws and the bits of `train_transform`.

    All of it, or the crop and the draws where the device does the rest.
    """
    transform = train_transform(recipe)
    if recipe.augment_on == "device":
        return Draw(transform)
    names = [type(step).__name__ for step in transform.transforms]
    place = names.index("MaybeToTensor")
    assert names[place + 1] == "Normalize"
    normalise = _Normalise(Normalisation.of(recipe.mean, recipe.std))
    transform.transforms[place : place + 2] = [normalise]
    return transform


@dataclass(frozen=True)
class _Normalise:
    """ToTensor and Normalize as one: the same bits in half the time, since nothing is copied."""

    normalisation: Normalisation

    def __call__(self, image: Image.Image) -> Tensor:
        """A normalised RGB image, (3, H, W) float32."""
        levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        shares = levels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        return shares.sub_(self.normalisation.mean).div_(self.normalisation.std)


def _keep_one_bit(transform: Compose) -> None:
    """Let posterize keep a bit: timm's strongest level keeps none, which Pillow refuses."""
    for step in transform.transforms:
        pairs = getattr(step, "policy", ())  # AutoAugment's operations, two by two
        for op in [*getattr(step, "ops", ()), *chain.from_iterable(pairs)]:
            if getattr(op, "name", "").startswith("Posterize"):
                op.level_fn = _AtLeastOne(op.level_fn)


@dataclass(frozen=True)
class _AtLeastOne:
    level_fn: Callable[[float, dict[str, Any]], tuple[int]]

    def __call__(self, level: float, hparams: dict[str, Any]) -> tuple[int]:
        [bits] = self.level_fn(level, hparams)
        return (max(bits, 1),)


def eval_transform(recipe: Recipe) -> Compose:
    """Resize to image_size / crop_pct, crop the centre and normalise.

    PIL image -> (3, H, W) float32.
    """
    from timm.data import create_transform

    return create_transform(
        recipe.image_size,
        interpolation=recipe.interpolation,
        mean=recipe.mean,
        std=recipe.std,
        crop_pct=recipe.crop_pct,
    )


def squash_transform(recipe: Recipe) -> Compose:
    """The whole image at image_size x image_size, whatever its shape, and normalised.

    PIL image -> (3, H, W) float32.
    """
    from timm.data import create_transform

    return create_transform(
        recipe.image_size,
        interpolation=recipe.interpolation,
        mean=recipe.mean,
        std=recipe.std,
        crop_pct=1.0,
        crop_mode="squash",
    )
