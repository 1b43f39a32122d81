"""The gradient of the loss by the images, Puzzle-Mix's saliency."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Hold `model` in eval mode without parameter gradients, and restore every flag after it."""
    training = [(module, module.training) for module in model.modules()]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, flag in training:
            module.training = flag


def input_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    amp: bool = False,
    net: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The gradient of the mean cross-entropy by the images, (B, C, H, W).

    It takes one forward pass on frozen weights. `amp` takes bfloat16 autocast; `net` calls the
    model where it is compiled. The model's gradients, flags and random state stay as they were.
    Source: Puzzle-Mix's saliency.
    """
    devices = [images.device] if images.is_cuda else []
    # `+ 0` keeps the input a non-leaf, which FLOP counters need
    with frozen(model), torch.enable_grad(), torch.random.fork_rng(devices):
        inputs = images.detach().requires_grad_()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
            logits = (net or model)(inputs + 0)
        loss = F.cross_entropy(logits.float(), labels.long())
        with torch.autocast(images.device.type, enabled=False):  # the caller's may be float16
            return torch.autograd.grad(loss, inputs)[0]
