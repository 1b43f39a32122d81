"""Optimizer, schedule and weights average, by timm."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import torch
from torch import nn

from mixbench.models.build import build_model
from mixbench.recipe import Recipe


def recipe_model(recipe: Recipe, num_classes: int, seed: int) -> nn.Module:
    """The recipe's model."""
    return build_model(
        recipe.model,
        num_classes,
        seed,
        image_size=recipe.image_size,
        patch_size=recipe.patch_size,
        embed_dim=recipe.embed_dim,
        depth=recipe.depth,
        num_heads=recipe.num_heads,
        drop_rate=recipe.drop_rate,
        drop_path_rate=recipe.drop_path,
    )


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's optimizer; biases, norms, position embedding and class tokens are without weight decay."""
    from timm.optim import create_optimizer_v2, get_optimizer_class

    kind = get_optimizer_class(recipe.opt.removeprefix("lookahead_"), bind_defaults=False)
    fused: dict[str, Any] = (
        {"fused": True}
        if recipe.opt_fused and "fused" in inspect.signature(kind).parameters
        else {}
    )
    return create_optimizer_v2(
        model,
        opt=recipe.opt,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        eps=recipe.opt_eps,
        betas=recipe.opt_betas,
        **fused,
    )


def build_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> Any:
    """timm's cosine schedule with warm-up, by epochs or, with sched_on_updates, by steps."""
    from timm.scheduler import CosineLRScheduler

    logging.getLogger("timm.scheduler.cosine_lr").setLevel(
        logging.ERROR
    )  # it warns of every run of one epoch
    unit = steps_per_epoch if recipe.sched_on_updates else 1
    return CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * unit,
        lr_min=recipe.min_lr,
        warmup_t=round(recipe.warmup_epochs * unit),
        warmup_lr_init=recipe.warmup_lr,
        t_in_epochs=not recipe.sched_on_updates,
    )


def schedule(scheduler: Any, recipe: Recipe, epoch: int, step: int) -> None:
    """Set the learning rate of a step; both counts start at 0."""
    if recipe.sched_on_updates:
        scheduler.step_update(step)
    else:
        scheduler.step(max(epoch - recipe.lr_epoch_lag, 0))
