"""What all processes of a run must have in common, so that no exchange waits for one of them."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path

from mixbench.comparison.plan import Plan
from mixbench.data.sources import Data
from mixbench.mix import MixStrategy
from mixbench.recipe import PLACES
from mixbench.rules import parts_of
from mixbench.runs.environment import versions
from mixbench.spec import strategy_spec


def facts(plan: Plan, data: Data) -> dict[str, str]:
    """What must be the same in all processes of a run, in words by name."""
    identity, recipe = data.identity, dataclasses.asdict(plan.recipe)
    for name in PLACES:
        del recipe[name]
    return {
        "the strategies": ", ".join(map(strategy_spec, plan.strategies)),
        "the plug-ins' code": " ".join(sorted(set(map(code_of, plan.strategies)))),
        **{f"the recipe's {name}": str(value) for name, value in recipe.items()},
        "the seeds": str(plan.seeds),
        "the part to measure": f"{plan.mode}, {plan.rounds} rounds",
        "--resume": str(plan.resume),
        "--val-interval": str(plan.val_interval),
        "the versions": versions(),
        "the number of classes": str(len(identity.classes)),
        "the number of training images": str(identity.train_images),
        "the number of validation images": str(identity.val_images),
        "the list of classes": _digest("\n".join(identity.classes)),
        "the list of training images": identity.train,
        "the list of validation images": identity.val,
    }


def code_of(strategy: MixStrategy) -> str:
    """A digest of the file that a strategy, and each that it is made of, was written in."""
    modules = [sys.modules.get(type(part).__module__) for part in parts_of(strategy)]
    files = [getattr(module, "__file__", None) for module in modules]
    return " ".join(
        _digest(Path(file).read_text(encoding="utf-8")) if file else "" for file in files
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
