"""What can be known to fail before data are read or anything is written."""

from __future__ import annotations

import torch

from mixbench.comparison.plan import Plan
from mixbench.data.transforms import train_transform
from mixbench.models.build import check_model, check_recipe_model
from mixbench.runtime import choose_device
from mixbench.training.batches import check_groups, resolve_sizes
from mixbench.training.optim import check_optimizer
from mixbench.watch import process_count


def check_plan(plan: Plan) -> None:
    """ValueError where the plan's recipe cannot run, on whatever machine."""
    recipe = plan.recipe
    if plan.trains:
        check_recipe_model(recipe)
        train_transform(recipe)
    if plan.times:
        check_model("speed_model", recipe.speed_model, recipe.speed_image_size)
    check_optimizer(recipe)


def check_machine(plan: Plan) -> None:
    """ValueError where the plan cannot run on this machine."""
    device, recipe = choose_device(plan.device), plan.recipe
    if plan.trains and _known(device) and process_count() == 1:
        check_groups(plan.strategies, recipe, resolve_sizes(recipe, device))


def _known(device: torch.device) -> bool:
    """Whether the micro-batch is known without a trial."""
    return device.type != "cuda"
