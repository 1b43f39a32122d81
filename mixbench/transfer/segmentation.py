"""The transfer of trained models to segmentation: one recipe, the same crops, a row a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mixbench.data.label_maps import LabelledData, open_labelled, pixels_by_class, with_most_pixels
from mixbench.evaluations.evaluation import Figure, Result
from mixbench.evaluations.subjects import CheckpointModel, run_recipe, run_rows
from mixbench.models.checkpoints import read_checkpoint
from mixbench.recipe import Recipe
from mixbench.runs.directory import RunDirectory
from mixbench.runs.evaluated import data_hash, is_measured, keep, result_file, write_evaluations
from mixbench.runs.rows import EvaluationRow
from mixbench.runtime import Runtime, explain
from mixbench.transfer.drawing import painted, palette, side_by_side
from mixbench.transfer.inference import RATIOS, probabilities
from mixbench.transfer.network import SegmentationNetwork, Start, segmentation_network
from mixbench.transfer.recipe import SegmentationRecipe
from mixbench.transfer.scores import Scores, confusion
from mixbench.transfer.tasks import MULTI, SINGLE, TASKS
from mixbench.transfer.training import augmentation_of, train_network
from mixbench.values import did_you_mean, shown

CONTROL = "random weights"  # what rows call the control
DRAWN = 4  # validation images of a picture


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """How models are transferred and measured; what `runs.evaluated` asks of an evaluation."""

    recipe: SegmentationRecipe
    ms: bool = False  # also at several sizes, mirrored
    name: str = TASKS["seg"].name

    @property
    def training(self) -> Segmentation:
        """The training alone: one serves every way to measure."""
        return Segmentation(recipe=self.recipe)

    @property
    def text(self) -> str:
        """The options as text."""
        recipe = self.recipe
        text = f"decoder={recipe.decoder}, epochs={recipe.epochs}, recipe={recipe.digits}"
        return f"{text}, ms=True" if self.ms else text


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
    return found + [_control(recipe, seed) for seed in seeds]


def _trained(recipe: Recipe, file: Path) -> Start:
    return Start(model=recipe, weights=read_checkpoint(file), use_ema=recipe.headline == "ema")


def of_checkpoint(model: CheckpointModel, seed: int, control: bool) -> list[Candidate]:
    """A file's model, with `control` its random weights too."""
    start = Start(model=model.recipe, weights=model.file)
    found = [Candidate(model.name, seed, lambda: start)]
    return found + ([_control(model.recipe, seed)] if control else [])


def _control(recipe: Recipe, seed: int) -> Candidate:
    return Candidate(CONTROL, seed, lambda: Start(model=recipe, weights=None))


def open_transfer_data(root: Path, recipe: SegmentationRecipe, runtime: Runtime) -> LabelledData:
    """The labelled images of a folder, with the recipe's classes; every label map is read.

    The runtime hears of classes that no image has. ValueError where something is missing or wrong.
    """
    data = open_labelled(root)
    pixels = pixels_by_class(data.train, len(data.classes))
    if recipe.limit_classes:
        data = with_most_pixels(data, pixels, recipe.limit_classes)
        runtime.say(f"{data.name}: the classes are {', '.join(data.classes)}")
        pixels = pixels_by_class(data.train, len(data.classes))
    splits = {"training": pixels, "validation": pixels_by_class(data.val, len(data.classes))}
    for split, counts in splits.items():
        if not counts.any():
            raise ValueError(f"no pixel of the {split} images of {root} has a class")
        absent = [name for name, count in zip(data.classes, counts, strict=True) if not count]
        if absent:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            runtime.say(f"no {split} image of {data.name} has {', '.join(absent[:5])}{more}")
    return data


def transfer_all(
    run: RunDirectory,
    candidates: Sequence[Candidate],
    task: Segmentation,
    data: LabelledData,
    runtime: Runtime,
) -> tuple[list[EvaluationRow], bool]:
    """Transfer what the directory does not hold; the rows of this task, and any failure.

    evaluations.csv is written anew. What fails is named, and the others go on.
    """
    failed = False
    for candidate in candidates:
        spec, seed = candidate.spec, candidate.seed
        file = result_file(run, spec, seed, task, data)
        if is_measured(file):
            continue
        try:
            start = candidate.load()
            network = segmentation_network(start, task.recipe, len(data.classes), seed)
            network.to(runtime.device)
            weights = result_file(run, spec, seed, task.training, data).with_suffix(".pt")
            augmentation = augmentation_of(task.recipe, start.model)
            train_network(
                network, data.train, augmentation, task.recipe, seed, weights, runtime, spec
            )
            result = measure(network, data, task, start.model, runtime)
        except Exception as error:  # the others go on
            failed = True
            runtime.say(f"no {task.name} of {spec}, seed {seed}: {explain(error).reason}")
            continue
        keep(file, spec, seed, task, data, result)
        miou = next(each.value for each in result.figures if each.metric == "miou")
        runtime.say(f"measured {task.name} of {spec}, seed {seed}: mIoU {miou:.1f}")
    order = list(dict.fromkeys(each.spec for each in candidates))
    key = task.name, task.text, data_hash(data)
    rows = write_evaluations(run, order)
    return [row for row in rows if (row.evaluation, row.options, row.data_hash) == key], failed


@torch.inference_mode()
def measure(
    network: SegmentationNetwork,
    data: LabelledData,
    task: Segmentation,
    model: Recipe,
    runtime: Runtime,
) -> Result:
    """mIoU, mean and pixel accuracy of the validation images, and IoU and accuracy by class.

    The picture shows the first images, each beside its true and its predicted classes.
    """
    network.eval()
    settings: dict[str, tuple[Sequence[float], bool]] = {SINGLE: ((1.0,), False)}
    if task.ms:
        settings[MULTI] = RATIOS, True
    classes, count = len(data.classes), len(data.val.labels)
    counts = {setting: np.zeros((classes, classes), np.int64) for setting in settings}
    per_image = np.full(count, math.nan)
    colours, drawn = palette(classes), []
    for index in range(count):
        image, labels = data.val.load(index), np.asarray(data.val.mask(index))
        for setting, (ratios, mirrored) in settings.items():
            shares = probabilities(
                network,
                image,
                task.recipe,
                model.mean,
                model.std,
                runtime.device,
                ratios,
                mirrored,
            )
            predicted = shares.argmax(0).cpu().numpy()
            counted = confusion(labels, predicted, classes)
            counts[setting] += counted
            if setting != SINGLE:
                continue
            per_image[index] = Scores(counted).pixel_accuracy
            if index < DRAWN:
                maps = (labels, predicted)
                drawn.append([image, *(painted(image, each, colours) for each in maps)])
    figures = [
        figure
        for setting in settings
        for figure in _figures(Scores(counts[setting]), setting, data.classes, count)
    ]
    return Result(
        figures=tuple(figures),
        images={"pixel_accuracy": per_image},
        files={".png": side_by_side(drawn)},
    )


def _figures(scores: Scores, setting: str, classes: Sequence[str], n: int) -> Iterator[Figure]:
    """The means under a setting, and at a single scale what each class has."""
    for metric in ("miou", "macc", "pixel_accuracy"):
        yield Figure(setting=setting, metric=metric, value=getattr(scores, metric), n=n)
    for metric in ("iou", "accuracy") if setting == SINGLE else ():
        for name, value in zip(classes, getattr(scores, metric), strict=True):
            known = None if math.isnan(value) else float(value)
            yield Figure(setting=name, metric=f"class_{metric}", value=known, n=n)
