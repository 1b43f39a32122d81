"""What a command transfers: the models of a run, a checkpoint, random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mixbench.evaluations.subjects import CheckpointModel, run_recipe, run_rows
from mixbench.models.checkpoints import Checkpoint, read_checkpoint
from mixbench.recipe import MODEL_PARTS, Recipe
from mixbench.runs.directory import RunDirectory
from mixbench.runtime import Runtime
from mixbench.values import did_you_mean, shown

CONTROL = "random weights"  # what rows call the control


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the encoder of a transfer begins with."""

    model: Recipe  # that the weights were trained by, or would be
    weights: Checkpoint | None  # None: random ones
    use_ema: bool | str = "auto"  # as of Checkpoint.choose_weights


@dataclass(frozen=True)
class Candidate:
    """A model to transfer, not yet loaded; the seed is the transfer's too."""

    spec: str
    seed: int
    load: Callable[[], Start]


def of_run(run: RunDirectory, specs: Sequence[str], control: bool) -> list[Candidate]:
    """The finished strategies and seeds of a run, or `specs` of them, with the recipe's headline.

    With `control` random weights for each seed come last. ValueError where there is none.
    """
    rows, recipe = run_rows(run), run_recipe(run)
    known = dict.fromkeys(row.strategy for row in rows)
    for spec in specs:
        if spec not in known:
            raise ValueError(f"{run.path} has no {shown(spec)}: {did_you_mean(spec, known)}")
    rows = [row for row in rows if not specs or row.strategy in specs]

    found = [
        Candidate(
            row.strategy,
            row.seed,
            partial(_trained, recipe, run.seed(row.strategy, row.seed).weights),
        )
        for row in rows
    ]
    seeds = sorted({row.seed for row in rows}) if control else []
    return found + [_control(CONTROL, recipe, seed) for seed in seeds]


def _trained(recipe: Recipe, file: Path) -> Start:
    return Start(model=recipe, weights=read_checkpoint(file), use_ema=recipe.headline == "ema")


def of_checkpoint(model: CheckpointModel, seed: int, control: bool) -> list[Candidate]:
    """A file's model, with `control` its random weights too."""
    start = Start(model=model.recipe, weights=model.file)
    found = [Candidate(model.name, seed, lambda: start)]
    parts = {name: getattr(model.recipe, name) for name in MODEL_PARTS}
    words = [f"{name} {value}" for name, value in parts.items() if value is not None]
    name = f"{CONTROL} of {', '.join([model.recipe.model, *words])}"  # beside other checkpoints'
    return found + ([_control(name, model.recipe, seed)] if control else [])


def _control(name: str, recipe: Recipe, seed: int) -> Candidate:
    return Candidate(name, seed, lambda: Start(model=recipe, weights=None))


def say_absent(
    data: str, split: str, classes: Sequence[str], counts: Iterable[int], runtime: Runtime
) -> None:
    """Say which classes no image of a split has; counts are of each class."""
    absent = [name for name, count in zip(classes, counts, strict=True) if not count]
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        runtime.say(f"no {split} image of {data} has {', '.join(absent[:5])}{more}")
