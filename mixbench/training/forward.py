"""A model as it is run: with the class attention that a strategy asks for, compiled or not."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from mixbench.mix import ModelOutput
from mixbench.services.attention import attention_tap

F = TypeVar("F", bound=Callable[..., object])
Forward = Callable[[Tensor], ModelOutput]


def compiled_alone(function: F) -> F:
    """torch.compile with a cache that no other function shares.

    It caches by code object and does not look at hooks: with one code for all, a model with a tap
    could run what was compiled for one without, and eight learners would exhaust the cache.
    """
    assert isinstance(function, types.FunctionType)
    copy = types.FunctionType(
        function.__code__.replace(), function.__globals__, closure=function.__closure__
    )
    return torch.compile(copy)  # type: ignore[return-value]


class Network:
    """A model and, where it is asked for, its class attention: `with network: network(images)`.

    attention is a name as `attention_tap` takes it. NoClassAttention where the model has none.
    """

    def __init__(self, model: nn.Module, attention: str | None = None, *, compile: bool = False):
        self.model = model
        self.compiled = compile
        self._tap = attention_tap(model, attention) if attention else None
        self._forward: Forward = self._with_attention if self._tap else self._without_attention
        self._plain: Forward = self._without_attention
        if compile:
            self._forward = _compiled(self._forward)
            self._plain = _compiled(self._plain)

    def _with_attention(self, images: Tensor) -> ModelOutput:
        assert self._tap is not None
        return self._tap(images)

    def _without_attention(self, images: Tensor) -> ModelOutput:
        return ModelOutput(self.model(images))

    def __enter__(self) -> Network:
        if self._tap:
            self._tap.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._tap:
            self._tap.__exit__(*exception)

    def __call__(self, images: Tensor) -> ModelOutput:
        """images (B, C, H, W) -> logits (B, K), and attn (B, h, w) where it was asked for."""
        return self._forward(images)

    def logits(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> logits (B, K), without attention."""
        return self._plain(images).logits

    def forget(self) -> None:
        """Let go of the recorded attention, which may be large."""
        if self._tap:
            self._tap.forget()

    @property
    def extra_parameters(self) -> int:
        """Parameters of an external attention provider."""
        return self._tap.extra_parameters if self._tap else 0


def _compiled(forward: Forward) -> Forward:
    def run(images: Tensor) -> ModelOutput:
        return forward(images)

    return compiled_alone(run)
