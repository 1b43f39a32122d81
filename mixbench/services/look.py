"""A look at a batch before it is mixed: the model's logits and attention, without gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mixbench.mix import ModelOutput
from mixbench.models.class_token import attention_grid, model_name, rollout_modules
from mixbench.services.attention import ClassAttention, Net
from mixbench.services.gradient import frozen

KINDS = ("logits", "class", "patches")
Look = Callable[[Tensor], ModelOutput]


def make_look(model: nn.Module, kind: str, *, amp: bool = False, net: Net | None = None) -> Look:
    """The look at images (n, C, H, W) of a name in `Needs.look`.

    It gives logits (n, K), and with 'class' the last block's class attention (n, h, w), with
    'patches' its attention averaged over heads and over the patches that look; both float32. The
    model runs frozen, in bfloat16 with `amp`; its gradients, flags and torch's generators stay as
    they were. `net` gives the logits where the model is compiled or held by another. ValueError
    for another name and for a model without such attention.
    """
    if kind == "logits":
        return partial(_look, model, amp, net or model, _no_attention)
    if kind == "class":
        return partial(_look, model, amp, model, partial(_class_attention, ClassAttention(model)))
    if kind == "patches":
        return partial(_look, model, amp, model, partial(_patch_attention, model, _last(model)))
    raise ValueError(f"needs.look must be 'logits', 'class' or 'patches', not {kind!r}")


def _last(model: nn.Module) -> Any:
    """The last block's attention; NoClassAttention or ValueError where it is not timm's plain."""
    return rollout_modules(model)[-1]


Seen = Callable[[], Tensor | None]  # the attention (n, h, w) of what ran
Watched = Callable[[tuple[int, int]], Any]  # images' size -> a context in which Seen is filled


@torch.no_grad()
def _look(model: nn.Module, amp: bool, net: Net, watched: Watched, images: Tensor) -> ModelOutput:
    devices = [images.device] if images.is_cuda else []
    size = (images.shape[-2], images.shape[-1])
    with frozen(model), torch.random.fork_rng(devices), watched(size) as seen:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
            output = net(images)
        return ModelOutput(getattr(output, "logits", output), seen())


@contextmanager
def _no_attention(size: tuple[int, int]) -> Iterator[Seen]:
    yield lambda: None


@contextmanager
def _class_attention(tap: ClassAttention, size: tuple[int, int]) -> Iterator[Seen]:
    with tap:
        yield tap.mean


@contextmanager
def _patch_attention(model: nn.Module, attn: Any, size: tuple[int, int]) -> Iterator[Seen]:
    outputs: list[Tensor] = []
    handle = attn.qkv.register_forward_hook(lambda *seen: outputs.append(seen[-1]))
    grid = attention_grid(model, *size)
    try:
        yield lambda: patch_attention(attn, outputs[-1], grid, model_name(model))
    finally:
        handle.remove()


def patch_attention(attn: Any, qkv: Tensor, grid: tuple[int, int], name: str) -> Tensor:
    """What the patches attend to, the mean over them and over heads, (n, h, w) float32.

    qkv (n, N, 3 D) is the output of the attention module's projection. Columns of other tokens are
    left out, so the sum is 1 less what they get. One head at a time: (n, N, N) is large.
    """
    height, width = grid
    with torch.autocast(qkv.device.type, enabled=False):
        q, k, _ = qkv.float().unflatten(-1, (3, attn.num_heads, -1)).unbind(2)
        q, k = attn.q_norm(q) * attn.scale, attn.k_norm(k)
        prefix = q.shape[1] - height * width
        if prefix < 0:
            raise ValueError(f"{name} dropped or merged patches: no {height}x{width} grid is left")
        received = sum(
            (q[:, prefix:, head] @ k[:, :, head].mT).softmax(-1).mean(1)
            for head in range(attn.num_heads)
        )
        assert isinstance(received, Tensor)
    return (received[:, prefix:] / attn.num_heads).unflatten(-1, (height, width))
