"""What a comparison will cost: before anything is measured, and in words."""

from __future__ import annotations

import torch

from mixbench.comparison.plan import Plan
from mixbench.data.datasets import open_data
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


def plan_data(plan: Plan) -> Data:
    """The data that a plan names."""
    return open_data(
        data=plan.data,
        dataset=plan.dataset,
        download=plan.download,
        image_size=plan.recipe.image_size,
        limit_train=plan.limit_train,
        limit_val=plan.limit_val,
    )


def training_cost(plan: Plan) -> str:
    """What is known before anything is measured: images, and the network's arithmetic."""
    data, recipe = plan_data(plan), plan.recipe
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
