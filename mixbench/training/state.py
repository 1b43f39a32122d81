"""The state of training on disk: what a killed run goes on from, logs and trained weights."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mixbench.files import replacing
from mixbench.models.checkpoints import model_record
from mixbench.recipe import Recipe
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import EpochRow, write_table
from mixbench.runtime import Runtime
from mixbench.training.batches import Sizes
from mixbench.training.learner import Learner


@dataclass(frozen=True)
class Start:
    """Where training begins: after so many epochs, with batches divided so."""

    epochs: int = 0
    sizes: Sizes | None = None  # None: to be chosen


def keep(learners: Sequence[Learner], epochs: int, sizes: Sizes, runtime: Runtime) -> None:
    """Keep the state of all after `epochs` epochs, and the state before it as a second file.

    A strategy that failed keeps the weights of its last good epoch.
    """
    if runtime.out is None or not runtime.first:
        return
    directory = RunDirectory(runtime.out)
    path = directory.state(runtime.seed)
    earlier: dict[str, Any] = {}
    if any(learner.failure for learner in learners) and path.is_file():
        earlier = torch.load(path, weights_only=True, map_location="cpu")["learners"]
    states = {
        learner.spec: earlier.get(learner.spec, {}) | learner.outcome()
        if learner.failure
        else learner.state()
        for learner in learners
    }
    content = {
        "epochs": epochs,
        "sizes": asdict(sizes),
        "threads": torch.get_num_threads(),
        "learners": states,
    }
    with replacing(path) as partial:
        torch.save(content, partial)
        if path.is_file():
            os.replace(path, directory.previous_state(runtime.seed))


def restore(learners: Sequence[Learner], recipe: Recipe, runtime: Runtime) -> Start:
    """Load the state that was kept, or the one before it where that is damaged; where to begin.

    The sizes are None where as many processes cannot share the batch by it. ValueError where
    the state is of other strategies.
    """
    if runtime.out is None or not runtime.resume:
        return Start()
    directory = RunDirectory(runtime.out)
    for path in (directory.state(runtime.seed), directory.previous_state(runtime.seed)):
        if not path.is_file():
            continue
        if not _intact(path):
            runtime.say(f"{path} is damaged: going on from the state before it")
            continue
        return _load(path, learners, recipe, runtime)
    return Start()


def _load(path: Path, learners: Sequence[Learner], recipe: Recipe, runtime: Runtime) -> Start:
    state = torch.load(path, weights_only=True, map_location="cpu")
    names = [learner.spec for learner in learners]
    if not set(names) <= set(state["learners"]):  # of some the figures may be written already
        raise ValueError(
            f"{path} is of {', '.join(state['learners'])}, not of {', '.join(names)}: resume with "
            "the same --strategies"
        )
    threads = torch.get_num_threads()
    if state["threads"] != threads:
        runtime.say(
            f"{path} was made with {state['threads']} threads, not {threads}: figures will differ "
            "by rounding"
        )
    for learner in learners:
        learner.load(state["learners"][learner.spec])
    runtime.say(f"resuming after epoch {state['epochs']}")
    sizes = Sizes(**state["sizes"])
    shared = recipe.batch_size % (sizes.micro_batch * runtime.world.size) == 0
    return Start(state["epochs"], sizes if shared else None)


def _intact(path: Path) -> bool:
    """Whether every part of the file has the checksum it was written with."""
    try:
        with zipfile.ZipFile(path) as parts:
            return parts.testzip() is None
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return False


def write_log(learner: Learner, runtime: Runtime) -> None:
    """Write the log anew: a killed run may have written rows that a resumed one writes again."""
    if runtime.out is not None and runtime.first:
        path = RunDirectory(runtime.out).seed(learner.spec, runtime.seed).log
        write_table(path, EpochRow, learner.log)


def write_weights(learner: Learner, recipe: Recipe, runtime: Runtime) -> None:
    """Write the weights in a layout that timm.models.load_checkpoint reads."""
    if runtime.out is None or not runtime.first:
        return
    content: dict[str, Any] = {
        "state_dict": learner.model.state_dict(),
        "epoch": recipe.total_epochs,
        "strategy": learner.spec,
    }
    content |= model_record(
        recipe.model,
        img_size=recipe.image_size,
        patch_size=recipe.patch_size,
        embed_dim=recipe.embed_dim,
        depth=recipe.depth,
        num_heads=recipe.num_heads,
    )
    if learner.ema is not None and recipe.headline == "ema":
        content["state_dict_ema"] = learner.ema.module.state_dict()
    with replacing(RunDirectory(runtime.out).seed(learner.spec, runtime.seed).weights) as partial:
        torch.save(content, partial)
