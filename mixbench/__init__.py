"""mixbench: which way of mixing images and labels is worth its cost on your model and data?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mixbench.models import register_models

if TYPE_CHECKING:
    from mixbench.attention import ClassAttention, NoClassAttention, attention_tap
    from mixbench.mix import (
        MixContext,
        MixedBatch,
        MixStrategy,
        ModelOutput,
        Needs,
        make_context,
        soft_targets,
        step_rng,
    )
    from mixbench.registry import (
        create_strategies,
        create_strategy,
        list_strategies,
        register_strategy,
        strategy_spec,
    )

__version__ = "0.1.0"

# Lazy, so that importing mixbench costs nothing until a name is used.
_HOME = {
    **dict.fromkeys(
        (
            "MixStrategy",
            "MixedBatch",
            "MixContext",
            "ModelOutput",
            "Needs",
            "make_context",
            "step_rng",
            "soft_targets",
        ),
        "mix",
    ),
    **dict.fromkeys(
        (
            "register_strategy",
            "list_strategies",
            "create_strategy",
            "create_strategies",
            "strategy_spec",
        ),
        "registry",
    ),
    **dict.fromkeys(("ClassAttention", "NoClassAttention", "attention_tap"), "attention"),
}

__all__ = [
    "ClassAttention",
    "MixContext",
    "MixStrategy",
    "MixedBatch",
    "ModelOutput",
    "Needs",
    "NoClassAttention",
    "attention_tap",
    "create_strategies",
    "create_strategy",
    "list_strategies",
    "make_context",
    "register_strategy",
    "soft_targets",
    "step_rng",
    "strategy_spec",
]


register_models()  # timm.create_model("pvt_small") works from here on


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mixbench' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mixbench.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
