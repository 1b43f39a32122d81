"""What can be known to fail before data are read or anything is written."""

from __future__ import annotations

import torch

from mixbench.comparison.plan import Plan
from mixbench.data.transforms import train_transform
from mixbench.models.build import check_recipe_model
from mixbench.models.start import check_start
from mixbench.runtime import choose_device
from mixbench.training.batches import check_division
from mixbench.training.optim import check_optimizer
from mixbench.watch import process_count


def check_plan(plan: Plan) -> None:
    """ValueError where the plan's recipe cannot run, on whatever machine."""
    recipe = plan.recipe
    if plan.trains:
        check_recipe_model(recipe)
        check_start(recipe)
        train_transform(recipe)
    if plan.times and not (plan.trains and recipe.timed == recipe):
        check_recipe_model(recipe.timed, "model" if recipe.timed == recipe else "speed_model")
    check_optimizer(recipe)


def check_machine(plan: Plan) -> None:
    """ValueError where the plan cannot run on this machine.

    How several processes share the batch is checked once they have joined.
    """
    device = choose_device(plan.device)
    if plan.trains and process_count() == 1:
        check_division(plan.strategies, plan.recipe, device)


def check_job(plan: Plan, gpus: int) -> None:
    """ValueError where the processes of a job, one a GPU, cannot share the batch."""
    device = torch.device("cuda" if gpus else "cpu")
    check_division(plan.strategies, plan.recipe, device, max(gpus, 1))
