"""Optimizer, schedule and averaged weights, by timm."""

from __future__ import annotations

import inspect
import logging
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mixbench.errors import reason
from mixbench.recipe import Recipe
from mixbench.values import did_you_mean, shown

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler
    from timm.utils import ModelEmaV3


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's optimizer; biases, norms, position embedding and class tokens have no weight decay."""
    from timm.optim import create_optimizer_v2, get_optimizer_class

    kind = get_optimizer_class(recipe.opt.removeprefix("lookahead_"), bind_defaults=False)
    fused: dict[str, Any] = {}
    if recipe.opt_fused and "fused" in inspect.signature(kind).parameters:
        fused["fused"] = True
    optimizer = create_optimizer_v2(
        model,
        opt=recipe.opt,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        eps=recipe.opt_eps,
        betas=recipe.opt_betas,
        layer_decay=recipe.layer_decay,
        **fused,
    )
    scales = {group.get("lr_scale", 1.0) for group in optimizer.param_groups}
    if recipe.layer_decay not in (None, 1.0) and len(scales) == 1:
        raise ValueError(
            f"layer_decay {recipe.layer_decay:g} has no effect on {type(model).__name__}, whose "
            "layers timm cannot tell apart: leave it out"
        )
    return optimizer


def check_optimizer(recipe: Recipe) -> None:
    """ValueError where timm has no such optimizer, or it cannot take a step as training does."""
    from timm.optim import list_optimizers

    known = [str(name) for name in list_optimizers()]
    if recipe.opt.lower().removeprefix("lookahead_").replace("_", "") not in known:
        raise ValueError(
            f"unknown optimizer {shown(recipe.opt)}: {did_you_mean(recipe.opt, known)}"
        )
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 2))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                optimizer = build_optimizer(model, replace(recipe, layer_decay=None))
                model(torch.ones(2, 3, 2, 2)).sin().sum().backward()
                optimizer.step()
        except Exception as error:  # it asks for other arguments, a package, second derivatives ...
            raise ValueError(
                f"opt {recipe.opt} cannot train here ({reason(error)}): choose another, such as "
                "adamw, sgd or lamb"
            ) from None


def build_scheduler(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int
) -> Scheduler:
    """timm's cosine schedule with warm-up, by epochs or, with sched_on_updates, by steps."""
    from timm.scheduler import CosineLRScheduler

    # it warns of every run of one epoch
    logging.getLogger("timm.scheduler.cosine_lr").setLevel(logging.ERROR)
    unit = steps_per_epoch if recipe.sched_on_updates else 1
    return CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * unit,
        lr_min=recipe.min_lr,
        warmup_t=round(recipe.warmup_epochs * unit),
        warmup_lr_init=recipe.warmup_lr,
        t_in_epochs=not recipe.sched_on_updates,
    )


def schedule(scheduler: Scheduler, recipe: Recipe, epoch: int, step: int) -> None:
    """Set the learning rate of a step; both counts start at 0."""
    if recipe.sched_on_updates:
        scheduler.step_update(step)
    else:
        scheduler.step(max(epoch - recipe.lr_epoch_lag, 0))


def build_ema(model: nn.Module, recipe: Recipe) -> ModelEmaV3 | None:
    """The average of the model's weights, None where the recipe has none.

    Its decay warms up with the steps: 0.99996 would leave a short run at its initial weights.
    """
    from timm.utils import ModelEmaV3

    if not recipe.model_ema:
        return None
    return ModelEmaV3(model, decay=recipe.model_ema_decay, use_warmup=True)
