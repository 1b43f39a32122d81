"""A model as it is run: with the attention and tokens a strategy asks for, compiled or not."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from mixbench.data.normalisation import Normalisation
from mixbench.mix import ModelOutput, Needs
from mixbench.services.tokens import tap_of

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
    """A model and what a strategy needs of it beside logits: `with network: network(images)`.

    normalisation is that of the images, for an attention provider that has another; part is what
    the strategy built. NoClassAttention or ValueError where the model does not give
    what it needs.
    """

    def __init__(
        self,
        model: nn.Module,
        needs: Needs | None = None,
        normalisation: Normalisation | None = None,
        *,
        part: nn.Module | None = None,
        compile: bool = False,
    ):
        self.model, self.part = model, part
        self.compiled = compile
        self.normalisation = normalisation
        self._tap = tap_of(model, needs or Needs(), normalisation=normalisation)
        self._forward: Forward = self._tapped if self._tap else self._logits_alone
        self._plain: Forward = self._logits_alone
        if compile:
            self._forward = _compiled(self._forward)
            self._plain = _compiled(self._plain)

    def _tapped(self, images: Tensor) -> ModelOutput:
        assert self._tap is not None
        return self._tap(images)

    def _logits_alone(self, images: Tensor) -> ModelOutput:
        return ModelOutput(self.model(images))

    def __enter__(self) -> Network:
        if self._tap:
            self._tap.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._tap:
            self._tap.__exit__(*exception)

    def __call__(self, images: Tensor) -> ModelOutput:
        """images (B, C, H, W) -> logits (B, K), and what else a strategy needs."""
        return self._forward(images)

    def logits(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> logits (B, K), nothing else."""
        return self._plain(images).logits

    def forget(self) -> None:
        """Let go of what was recorded, which may be large."""
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
