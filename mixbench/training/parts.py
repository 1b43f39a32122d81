"""A strategy's own parameters and state: they live in the model that they train with, as `mixing`.

So optimizer, averaged weights, gradient clipping and the state on disk have them, without a word
about them anywhere else. Written weights and the model's count of parameters leave them out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mixbench import rules
from mixbench.mix import MixStrategy, hashed_seed
from mixbench.spec import strategy_spec
from mixbench.strategies.alternate import part_named

NAME = "mixing"


def build_part(
    strategy: MixStrategy, model: nn.Module, num_classes: int, image_size: int, seed: int
) -> nn.Module | None:
    """What a strategy builds for a model, on its device; None where it builds nothing.

    torch's global generator is as before: the weights of others must not depend on it.
    """
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hashed_seed("build", seed, strategy_spec(strategy)))
        part = strategy.build(model, num_classes, image_size)
    rules.require(
        part is None or isinstance(part, nn.Module),
        f"build must give a torch.nn.Module or None, not {type(part).__name__}",
    )
    return None if part is None else part.to(device).train()


def attach(model: nn.Module, part: nn.Module | None) -> None:
    """Make a part the model's `mixing`, before anything holds the model's parameters."""
    if part is None:
        return
    if hasattr(model, NAME):
        raise ValueError(
            f"{type(model).__name__}.{NAME} is where a strategy's part goes: rename it"
        )
    setattr(model, NAME, part)


def inner_part(outer: MixStrategy, inner: MixStrategy, part: nn.Module | None) -> nn.Module | None:
    """The part of `inner`, which the recipe put into `outer` as the first of those in turn."""
    while outer is not inner and part is not None:
        outer, part = outer.first, part_named("first", part)  # type: ignore[attr-defined]
    return part


def parameter_count(model: nn.Module) -> int:
    """The parameters of a model without a strategy's part."""
    return _count(model) - _count(getattr(model, NAME, None))


def part_count(model: nn.Module) -> int:
    """The parameters of a strategy's part in a model."""
    return _count(getattr(model, NAME, None))


def _count(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def without_part(state: dict[str, Any]) -> dict[str, Any]:
    """A model's state_dict without a strategy's part, as any loader expects it."""
    return {name: value for name, value in state.items() if not name.startswith(f"{NAME}.")}
