"""A strategy's own parameters and state: they live in the model that they train with, as `mixing`.

So optimizer, averaged weights, gradient clipping and the state on disk have them, without a word
about them anywhere else. Written weights and the model's count of parameters leave them out.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from mixbench import rules
from mixbench.errors import reason
from mixbench.mix import MixStrategy, hashed_seed
from mixbench.spec import strategy_spec
from mixbench.strategies.alternate import part_named
from mixbench.training.guard import unchanged

NAME = "mixing"


def build_part(
    strategy: MixStrategy, model: nn.Module, num_classes: int, image_size: int, seed: int
) -> nn.Module | None:
    """What a strategy builds for a model, on its device; None where it builds nothing.

    Generators and settings are as before: the weights of others must not depend on it. BrokenRule
    where the part is none that can live in the model.
    """
    device = next(model.parameters()).device
    with unchanged("build", device):
        torch.manual_seed(hashed_seed("build", seed, strategy_spec(strategy)))
        part = strategy.build(model, num_classes, image_size)
    rules.built_part(part)
    if part is not None:
        _check_part(part, model)
    return None if part is None else part.to(device).train()


def _check_part(part: nn.Module, model: nn.Module) -> None:
    """BrokenRule for a part that holds the model, has parameters without a size, or no copy."""
    rules.require(
        model not in set(part.modules()),
        "build must not keep the model in its part: the part lives in the model",
    )
    values = [*part.parameters(), *part.buffers()]
    rules.require(
        not any(is_lazy(value) for value in values),
        "build must give a part whose parameters have sizes: run its lazy layers once",
    )
    try:
        copy.deepcopy(part)  # as averaged weights and each strategy of a group take one
    except Exception as error:
        raise rules.BrokenRule(
            f"build must give a part that can be copied ({reason(error)})"
        ) from error


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
