"""A model without memory for its weights, and what it counts: parameters and multiply-adds."""

from __future__ import annotations

import functools

import torch
from torch import nn

from mixbench.models.build import build_model


@functools.cache
def blank_model(name: str, num_classes: int = 1000) -> nn.Module:
    """timm's model without memory for its weights, on the meta device, in eval mode."""
    with torch.device("meta"):
        return build_model(name, num_classes).eval()


def count(model: nn.Module, image_size: int = 224) -> tuple[int, int]:
    """Parameters, and multiply-adds for one image.

    The model is in eval mode, on any device (meta will do).
    """
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.empty(1, 3, image_size, image_size, device=next(model.parameters()).device)
    # not under no_grad: the counter fails there on CaiT
    with FlopCounterMode(display=False) as counter:
        model(image)
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2
