"""What a comparison will cost: before anything is measured, and in words."""

from __future__ import annotations

import torch

from mixbench.comparison.plan import Plan
from mixbench.data.sources import Data
from mixbench.models.build import recipe_model
from mixbench.models.zoo import count

UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60))


def duration(seconds: float) -> str:
    """A time as a person says it."""
    for unit, size in UNITS:
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} seconds"


def training_cost(plan: Plan, data: Data) -> str:
    """What is known before anything is measured: images, and the network's arithmetic."""
    recipe = plan.recipe
    with torch.device("meta"):
        params, macs = count(recipe_model(recipe, len(data.classes), 0), recipe.image_size)
    steps = len(data.train.labels) // recipe.batch_size
    images = steps * recipe.batch_size * recipe.total_epochs
    # forward and twice that backward, two operations each
    flops = 6 * macs * images * len(plan.strategies) * len(plan.seeds)
    return (
        f"{images:,} images for each strategy and seed; {params / 1e6:.2f}M parameters; "
        f"{flops / 1e15:,.3g} PFLOP in all, without what a strategy adds"
    )
