"""What can be known to fail before anything is measured or written."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from mixbench.comparison.evaluating import evaluations_of
from mixbench.comparison.loggers import check_loggers
from mixbench.comparison.plan import Plan
from mixbench.data.check import check_headers
from mixbench.data.class_names import check_class_names
from mixbench.data.loaders import check_batch, remark_on_copies
from mixbench.data.masks import check_objects
from mixbench.data.memory import keep_in_memory
from mixbench.data.objects import MaskAugmentation
from mixbench.data.sources import Data
from mixbench.data.transforms import train_transform
from mixbench.evaluations.speed import timed_classes
from mixbench.mix import MixStrategy
from mixbench.models.build import check_recipe_model, recipe_model
from mixbench.models.class_token import patch_grid
from mixbench.models.start import check_start, remarks
from mixbench.recipe import Recipe
from mixbench.rules import parts_of
from mixbench.runtime import Runtime, choose_device
from mixbench.services.look import make_look
from mixbench.services.tokens import tap_of
from mixbench.training.batches import check_division
from mixbench.training.estimate import remark_on_memory
from mixbench.training.guard import needs_of
from mixbench.training.optim import build_optimizer, check_optimizer
from mixbench.watch import process_count

RANDOM = "training starts from random weights: --init and --pretrained name others"


def check_plan(plan: Plan) -> None:
    """ValueError where the plan's recipe cannot run on any machine, or what it names is missing."""
    recipe = plan.recipe
    if plan.trains:
        check_recipe_model(recipe)
        check_start(recipe)
        train_transform(recipe)
    if plan.times and not (plan.trains and recipe.timed == recipe):
        check_recipe_model(recipe.timed, "model" if recipe.timed == recipe else "speed_model")
    check_optimizer(recipe)
    evaluations_of(plan.evaluate)
    check_loggers(plan)


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


def prepare(plan: Plan, data: Data, runtime: Runtime) -> Data:
    """The data as training reads them, once all is known to fit that can be known beforehand.

    The runtime hears what a user should know. ValueError where the plan cannot run on them here.
    """
    recipe, strategies, classes = plan.recipe, plan.strategies, len(data.classes)
    for remark in data.remarks:
        runtime.say(remark)
    if plan.class_names is not None:
        unnamed = check_class_names(plan.class_names, data.classes)
        if unnamed:
            runtime.say(unnamed)
    if plan.trains:
        if len(data.train.labels) == classes:
            runtime.say("train/ has one image a class: more would tell what a class has in common")
        check_batch(recipe, data)
        check_division(strategies, recipe, runtime.device, runtime.world.size)
        if runtime.first and not data.drawn:
            check_headers(data.val)
        check_strategies(strategies, recipe, classes, runtime.device)
        if any(needs_of(strategy)[0].objects for strategy in strategies):
            remark_objects(data, recipe, runtime)
        if recipe.layer_decay is not None:  # whether the network has layers that timm knows
            build_optimizer(recipe_model(recipe, classes, 0), recipe)
        remark_start(recipe, data, runtime)
    if plan.times and not (plan.trains and recipe.timed == recipe):
        check_strategies(strategies, recipe.timed, timed_classes(recipe, classes), runtime.device)
    if plan.trains and plan.cache == "ram":
        copies = int(os.environ.get("LOCAL_WORLD_SIZE", runtime.world.size))
        data = keep_in_memory(data, runtime.say, copies)
    return data


def remark_objects(data: Data, recipe: Recipe, runtime: Runtime) -> None:
    """Say what of the objects' masks is missing or empty; ValueError where they do not fit."""
    MaskAugmentation(train_transform(recipe))
    if runtime.first:
        remark = check_objects(data.train, "train")
        if remark:
            runtime.say(remark)


def remark_start(recipe: Recipe, data: Data, runtime: Runtime) -> None:
    """Say what a user should know of weights, copies of images and memory."""
    sentences = (
        *(remarks(recipe, data.classes) or ([] if data.drawn else [RANDOM])),
        remark_on_copies(recipe.aug_repeats, runtime.world),
        remark_on_memory(recipe, len(data.classes), runtime),
    )
    for sentence in filter(None, sentences):
        runtime.say(sentence)


def check_strategies(
    strategies: Sequence[MixStrategy], recipe: Recipe, num_classes: int, device: torch.device
) -> None:
    """ValueError where the model cannot give what a strategy asks for, or images do not fit it."""
    model, side = recipe_model(recipe, num_classes, 0).to(device), recipe.image_size
    grid = patch_grid(model, side, side)
    for strategy in strategies:
        needs, failure = needs_of(strategy)
        if failure is not None:
            continue  # its row will say so
        tap_of(model, needs)
        if needs.look:
            make_look(model, needs.look)
        for part in parts_of(strategy):
            try:
                part.check_images(side, side, grid)
            except ValueError:
                raise
            except Exception:  # a plug-in may raise anything: its row will say so
                continue
