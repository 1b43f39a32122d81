"""mixbench: which way of mixing images and labels is worth its cost on your model and data?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mixbench.models.register import register_models

if TYPE_CHECKING:
    from mixbench.comparison.api import Comparison, compare
    from mixbench.mix import (
        MixContext,
        MixedBatch,
        MixStrategy,
        ModelOutput,
        Needs,
        soft_targets,
        step_rng,
    )
    from mixbench.models.class_token import NoClassAttention
    from mixbench.registry import list_strategies, register_strategy
    from mixbench.services.attention import ClassAttention, attention_tap
    from mixbench.services.context import make_context
    from mixbench.spec import create_strategies, create_strategy, strategy_spec

__version__ = "0.1.0"

# Lazy, so that importing mixbench costs nothing until a name is used.
_HOME = {
    "mix": (
        "MixContext",
        "MixStrategy",
        "MixedBatch",
        "ModelOutput",
        "Needs",
        "soft_targets",
        "step_rng",
    ),
    "comparison.api": ("Comparison", "compare"),
    "models.class_token": ("NoClassAttention",),
    "registry": ("list_strategies", "register_strategy"),
    "services.attention": ("ClassAttention", "attention_tap"),
    "services.context": ("make_context",),
    "spec": ("create_strategies", "create_strategy", "strategy_spec"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "ClassAttention",
    "Comparison",
    "MixContext",
    "MixStrategy",
    "MixedBatch",
    "ModelOutput",
    "Needs",
    "NoClassAttention",
    "attention_tap",
    "compare",
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
    if name not in _MODULE:
        raise AttributeError(f"module 'mixbench' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mixbench.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
