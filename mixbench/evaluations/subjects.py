"""What is measured: the trained models of a run, with the weights of its recipe's headline."""

from __future__ import annotations

from pathlib import Path

import torch

from mixbench.data.datasets import check_dataset, limited, open_data
from mixbench.data.sources import Data
from mixbench.evaluations.evaluation import Subject
from mixbench.files import read_json
from mixbench.models.build import recipe_model
from mixbench.models.checkpoints import read_checkpoint
from mixbench.recipe import Recipe, load_recipe
from mixbench.runs.directory import RunDirectory
from mixbench.runs.identity import read_data
from mixbench.runs.merge import trained
from mixbench.runs.rows import RunRow, read_table
from mixbench.spec import create_strategy


def run_rows(run: RunDirectory) -> list[RunRow]:
    """The finished rows of a run, strategies in the order of its table; ValueError without any."""
    for file in (run.recipe, run.data, run.runs):
        if not file.is_file():
            raise ValueError(
                f"{run.path} is no run that this mixbench trained: it lacks {file.name}"
            )
    rows = [row for row in trained(read_table(run.runs, RunRow)) if row.status == "ok"]
    if not rows:
        raise ValueError(
            f"{run.path} has no finished strategy: train first, or go on with --resume"
        )
    return rows


def run_recipe(run: RunDirectory) -> Recipe:
    """The recipe that a run is of."""
    return load_recipe(run.recipe)


def run_subject(run: RunDirectory, row: RunRow, device: torch.device) -> Subject:
    """The trained model of one strategy and seed; ValueError where its weights are not there."""
    recipe, classes = run_recipe(run), read_data(run.data).data.classes
    weights = run.seed(row.strategy, row.seed).weights
    _, state = read_checkpoint(weights).choose_weights(recipe.headline == "ema")
    model = recipe_model(recipe, len(classes), row.seed)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit {recipe.model}: {error}") from None
    return Subject(
        spec=row.strategy,
        model=model.to(device).eval(),
        recipe=recipe,
        classes=classes,
        strategy=create_strategy(row.strategy),
        seed=row.seed,
    )


def run_data(run: RunDirectory, data: Path | None = None) -> Data:
    """The data that a run was trained on, where they were or in `data`.

    ValueError where they are not there, or are others.
    """
    stored, recipe = read_data(run.data), run_recipe(run)
    source, dataset = str(read_json(run.data)["source"]), None
    if data is None and Path(source).is_dir():
        data = Path(source)
    elif data is None:
        try:
            check_dataset(source)
        except ValueError:
            raise ValueError(
                f"the data of {run.path} are no longer in {source}: say --data DIR"
            ) from None
        dataset = source
    opened = open_data(data=data, dataset=dataset, image_size=recipe.image_size)
    opened = limited(opened, stored.limit_train, stored.limit_val)
    ours, theirs = opened.identity, stored.data
    if (ours.classes, ours.val) != (theirs.classes, theirs.val):
        raise ValueError(f"{data or source} holds other validation images than {run.path} is of")
    return opened
