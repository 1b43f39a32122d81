"""The training part of a comparison: every strategy with every seed, as rows."""

from __future__ import annotations

import dataclasses
import gc
import os
from collections.abc import Collection, Iterator, Sequence
from functools import cache

import numpy as np
import torch

from mixbench.comparison.loggers import open_loggers
from mixbench.comparison.plan import Plan
from mixbench.comparison.screen import Screen
from mixbench.data.annotated import SCENES
from mixbench.data.normalisation import Normalisation
from mixbench.data.scene_area import Area
from mixbench.data.scenes import Scene, draw_scene
from mixbench.data.sources import Data
from mixbench.evaluations.label_error import label_error
from mixbench.files import WriteError
from mixbench.mix import MixStrategy, hashed_seed
from mixbench.models.build import recipe_model
from mixbench.models.start import weights_name
from mixbench.recipe import Recipe
from mixbench.report.gallery import (
    Example,
    Shown,
    draw_gallery,
    furthest_mixes,
    mixed_picture,
    varied_examples,
)
from mixbench.runs.directory import RunDirectory
from mixbench.runs.environment import device_name, precision_name, today, versions
from mixbench.runs.rows import RunRow
from mixbench.runs.samples import ImageResults, joined_names, write_images, write_lam
from mixbench.runtime import Runtime, explain
from mixbench.spec import strategy_spec
from mixbench.training.batches import Sizes, agreed_sizes
from mixbench.training.estimate import Room, cores, in_groups
from mixbench.training.evaluate import Evaluation
from mixbench.training.learner import LAMS, Learner, extra_params_m
from mixbench.training.loop import train
from mixbench.training.parts import parameter_count
from mixbench.training.state import begun as begun_before
from mixbench.training.state import clear as clear_state

NO_PICTURE = "no picture of the mixed images"
MOST_WORKERS = 8  # loader processes, unless more are asked for


def train_seeds(
    plan: Plan,
    data: Data,
    recipe_hash: str,
    runtime: Runtime,
    screen: Screen,
    room: Room | None = None,
) -> Iterator[list[RunRow]]:
    """The rows of every strategy, seed by seed; what is finished is not trained again.

    Where `room` does not hold the strategies of a seed side by side, they train in groups.
    """
    runtime = dataclasses.replace(
        runtime,
        workers=workers(plan, data),
        val_interval=plan.val_interval,
        logger=open_loggers(plan, runtime),
    )
    specs = [strategy_spec(strategy) for strategy in plan.strategies]
    ahead = [len(strategies) for strategies in missing(plan, recipe_hash)]
    for number, seed in enumerate(plan.seeds):
        seeded = dataclasses.replace(runtime, seed=seed)
        finished = RunDirectory(plan.out).results(recipe_hash)
        rows = {spec: finished[spec, seed] for spec in specs if (spec, seed) in finished}
        left = [strategy for strategy in plan.strategies if strategy_spec(strategy) not in rows]
        if left:
            show = seed == plan.seeds[0] and not rows
            # a seed's steps take the longer the more strategies they train
            later = sum(ahead[number + 1 :]) / len(left)
            trained = _train_seed(
                left, plan, data, recipe_hash, seeded, screen, room, show=show, later=later
            )
            for row in trained:
                rows[row.strategy] = row
        clear_state(specs, seeded)
        yield [rows[spec] for spec in specs]


def workers(plan: Plan, data: Data) -> int:
    """Loader processes: as asked, none for the drawn data, else one a core, eight at most."""
    if plan.workers is not None:
        return plan.workers
    if data.drawn:
        return 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(cores() // processes, 1), MOST_WORKERS)


def missing(plan: Plan, recipe_hash: str) -> list[list[MixStrategy]]:
    """The strategies that are still to be trained, seed by seed."""
    finished = RunDirectory(plan.out).results(recipe_hash)
    return [
        [each for each in plan.strategies if (strategy_spec(each), seed) not in finished]
        for seed in plan.seeds
    ]


def _train_seed(
    strategies: Sequence[MixStrategy],
    plan: Plan,
    data: Data,
    recipe_hash: str,
    runtime: Runtime,
    screen: Screen,
    room: Room | None,
    *,
    show: bool,
    later: float,
) -> list[RunRow]:
    """Train the strategies with the runtime's seed; their rows, those that finished are kept.

    later: the work of the seeds to come, as a multiple of this seed's.
    """
    begun = begun_before([strategy_spec(each) for each in strategies], runtime)
    sizes, at_once = _side_by_side(strategies, plan, data, runtime, room)
    groups = groups_of(strategies, at_once, begun)
    if len(groups) > 1:
        runtime.say(f"seed {runtime.seed}  {groups_sentence(list(map(len, groups)))}")
    rows: list[RunRow] = []
    mixes: list[Example] = []
    left = (1 + later) * len(strategies)  # strategies that are still to be trained
    try:
        for number, group in enumerate(groups, 1):
            left -= len(group)
            name = f"seed {runtime.seed}"
            if len(groups) > 1:
                name += f", group {number} of {len(groups)}"
            # a group's steps take the longer the more strategies they train
            later = left / len(group)
            with screen.counting(f"training, {name}, steps", f"{name}  step", later) as tick:
                ticking = dataclasses.replace(runtime, tick=tick)
                learners = train(group, plan.recipe, data, ticking, sizes)
            rows += _rows(learners, plan, data, recipe_hash, runtime)
            if show and runtime.first:
                mixes += _mixes(learners, plan.recipe, data, runtime)
            del learners
            if number < len(groups):
                gc.collect()  # they hold each other, and the next ones need their memory
                clear_state([row.strategy for row in rows], runtime)
                runtime.world.agree(None)  # the next ones find what is written
    finally:
        runtime.logger.close()
    if show and runtime.first and any(row.status == "ok" for row in rows):
        _draw(mixes, data, RunDirectory(plan.out), runtime)
    return rows


def _side_by_side(
    strategies: Sequence[MixStrategy], plan: Plan, data: Data, runtime: Runtime, room: Room | None
) -> tuple[Sizes | None, int]:
    """How the batch of several strategies is divided, in all groups, and how many train at once.

    That is what was asked for, else as many as fit in all processes.
    """
    if len(strategies) == 1:
        return None, 1
    model = recipe_model(plan.recipe, len(data.classes), runtime.seed)
    sizes = agreed_sizes(model, plan.recipe, runtime)
    if plan.side_by_side is not None:
        return sizes, plan.side_by_side
    fits = len(strategies) if room is None else max(room.strategies(sizes.micro_batch), 1)
    return sizes, int(runtime.world.lowest(torch.tensor(fits, device=runtime.device)))


def groups_of(
    strategies: Sequence[MixStrategy], at_once: int, begun: Collection[str] = ()
) -> list[Sequence[MixStrategy]]:
    """The strategies in groups that train one after another, those that have begun first."""
    first = [each for each in strategies if strategy_spec(each) in begun]
    others = [each for each in strategies if strategy_spec(each) not in begun]
    return in_groups(first, at_once) + in_groups(others, at_once)


def groups_sentence(sizes: Sequence[int]) -> str:
    """That strategies train in groups of such sizes, one after another."""
    return (
        f"{sum(sizes)} strategies train in {len(sizes)} groups ({', '.join(map(str, sizes))}), one "
        "after another: each reads the images anew, and figures are the same"
    )


def _rows(
    learners: Sequence[Learner], plan: Plan, data: Data, recipe_hash: str, runtime: Runtime
) -> list[RunRow]:
    """The learners' rows, of which those that finished are kept."""
    rows = [_row(learner, plan.recipe, data, recipe_hash, runtime) for learner in learners]
    if runtime.first:
        for learner, row in zip(learners, rows, strict=True):
            if learner.failure is None:
                RunDirectory(plan.out).keep(row)
    return rows


def _row(
    learner: Learner, recipe: Recipe, data: Data, recipe_hash: str, runtime: Runtime
) -> RunRow:
    """What a strategy came to with one seed; single images' results go into files."""
    needs = learner.needs
    row = RunRow(
        strategy=learner.spec,
        seed=runtime.seed,
        compose=recipe.compose,
        dataset=data.name,
        drawn=data.drawn,
        train_images=len(data.train.labels),
        num_classes=len(data.classes),
        model=recipe.model,
        weights=weights_name(recipe),
        weights_sha256=recipe.init_sha256,
        params_m=parameter_count(learner.model) / 1e6,
        attention=needs.attention,
        network=needs.network,
        image_size=recipe.image_size,
        batch_size=recipe.batch_size,
        mix_group=learner.mix_group,
        epochs=recipe.total_epochs,
        headline=recipe.headline,
        train_seconds=learner.seconds,
        loading_share=learner.loading_share,
        train_im_per_sec=learner.train_im_per_sec,
        device=device_name(runtime.device),
        precision=precision_name(recipe.amp, recipe.tf32, runtime.device, recipe.gradient_amp),
        compiled=recipe.compile,
        recipe_hash=recipe_hash,
        versions=versions(),
        date=today(),
    )
    if learner.failure is not None:
        return dataclasses.replace(row, status=learner.failure.reason)
    row = dataclasses.replace(row, extra_params_m=extra_params_m(needs, learner.network))
    if learner.log:
        last, ema = learner.log[-1], recipe.headline == "ema"
        row = dataclasses.replace(
            row,
            top1=last.top1_ema if ema else last.top1,
            top5=last.top5_ema if ema else last.top5,
            top1_ema=last.top1_ema,
        )
    if learner.evaluation is not None:
        row = dataclasses.replace(
            row,
            nll=learner.evaluation.mean_nll,
            ece=learner.evaluation.calibration_error(),
            brier=float(learner.evaluation.brier.mean()),
            label_error=_label_error(learner, recipe, data.scene_area, runtime),
        )
        if runtime.first:
            _write_samples(learner, learner.evaluation, data, runtime)
    return row


def _write_samples(learner: Learner, evaluation: Evaluation, data: Data, runtime: Runtime) -> None:
    """Write what was said of each image, and a sample of A's shares in the last epoch."""
    assert runtime.out is not None
    folder = RunDirectory(runtime.out).seed(learner.spec, runtime.seed)
    names = [data.val.image_name(index) for index in range(len(data.val.labels))]
    results = ImageResults(
        label=np.asarray(data.val.labels),
        predicted=evaluation.predicted.numpy(),
        confidence=evaluation.confidence.numpy(),
        nll=evaluation.nll.numpy(),
        brier=evaluation.brier.numpy(),
        names=joined_names(names),
    )
    write_images(folder.images, results)
    if learner.epoch.lam:  # not where a run was resumed after its last epoch
        area, lam = (
            torch.cat(shares)[:LAMS].cpu().numpy()
            for shares in (learner.epoch.area, learner.epoch.lam)
        )
        write_lam(folder.lam, area, lam)


@cache
def _scenes(size: int, area: Area) -> tuple[Scene, ...]:
    stream = hashed_seed("label error")
    return tuple(draw_scene(stream, index, size, area) for index in range(SCENES))


def _label_error(
    learner: Learner, recipe: Recipe, area: Area | None, runtime: Runtime
) -> float | None:
    """The strategy's label error on scenes of that area; None for other data.

    None, and a line, where it raises: other figures stand.
    """
    if area is None:
        return None
    try:
        return label_error(
            learner.strategy,
            learner.network_alone(),
            _scenes(recipe.image_size, area),
            Normalisation.of(recipe.mean, recipe.std, runtime.device),
        )
    except Exception as error:  # a plug-in may raise anything
        runtime.say(f"no label error of {learner.spec}: {explain(error).reason}")
        return None


def _mixes(
    learners: Sequence[Learner], recipe: Recipe, data: Data, runtime: Runtime
) -> list[Example]:
    """What the strategies make of some images, as pictures show it; a failure costs no figure."""
    shown = [
        Shown(spec=learner.spec, strategy=learner.strategy, network=learner.network_alone())
        for learner in learners
        if learner.failure is None
    ]
    if not shown:
        return []
    try:
        examples = varied_examples(data.val, recipe, runtime.device)
        normalisation = Normalisation.of(recipe.mean, recipe.std, runtime.device)
        return furthest_mixes(shown, examples, data.classes, normalisation)
    except Exception as error:  # a plug-in may raise anything
        runtime.say(f"{NO_PICTURE}: {explain(error).reason}")
        return []


def _draw(mixes: Sequence[Example], data: Data, directory: RunDirectory, runtime: Runtime) -> None:
    """Write the pictures of mixed images; a failure costs no figure."""
    try:
        mixed_picture(mixes, directory.class_titles(data.classes), directory.mixed)
        draw_gallery(mixes, directory.gallery)
    except WriteError:
        raise
    except Exception as error:
        runtime.say(f"{NO_PICTURE}: {explain(error).reason}")
