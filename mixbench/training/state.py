"""The state of training on disk."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mixbench.distributed import World
from mixbench.files import replacing
from mixbench.recipe import Recipe
from mixbench.training.learner import Learner

LOG_COLUMNS = ("epoch", "lr", "train_loss", "top1", "top5", "top1_ema", "seconds")


def run_folder(out: Path, spec: str, seed: int) -> Path:
    """Where one strategy's files lie."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in spec.replace(" ", ""))
    return out / safe / f"seed{seed}"


def _write_log(out: Path, learner: Learner, seed: int) -> None:
    """Write the log anew from memory: a run that was killed may have written rows that a resumed one writes again."""
    path = run_folder(out, learner.spec, seed) / "log.csv"
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, LOG_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(learner.log)


def _save(out: Path, learner: Learner, recipe: Recipe, seed: int) -> None:
    """Write the weights in a layout that timm.models.load_checkpoint reads."""
    from mixbench.models.checkpoints import model_record

    state = {
        "state_dict": learner.model.state_dict(),
        "epoch": recipe.total_epochs,
        "strategy": learner.spec,
    }
    state |= model_record(
        recipe.model,
        img_size=recipe.image_size,
        patch_size=recipe.patch_size,
        embed_dim=recipe.embed_dim,
        depth=recipe.depth,
        num_heads=recipe.num_heads,
    )
    if learner.ema is not None and recipe.headline == "ema":
        state["state_dict_ema"] = learner.ema.module.state_dict()
    with replacing(run_folder(out, learner.spec, seed) / "last.pt") as partial:
        torch.save(state, partial)


def _keep(learners: list[Learner], epochs: int, micro: int, path: Path) -> None:
    """Keep the state of all after `epochs` epochs in micro-batches of `micro`, and the state before it as a second file.

    A strategy that failed keeps the weights of its last good epoch.
    """
    kept: dict[str, Any] = {}
    if any(learner.status != "ok" for learner in learners) and path.is_file():
        kept = torch.load(path, weights_only=True, map_location="cpu")["learners"]
    states = {
        x.spec: x.state() if x.status == "ok" else kept.get(x.spec, {}) | x.outcome()
        for x in learners
    }
    with replacing(path) as partial:
        torch.save(
            {
                "epochs": epochs,
                "micro_batch": micro,
                "threads": torch.get_num_threads(),
                "learners": states,
            },
            partial,
        )
        if path.is_file():
            os.replace(path, _previous(path))


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}-previous.pt")


def _intact(path: Path) -> bool:
    """Whether every part of the file has the checksum it was written with."""
    try:
        with zipfile.ZipFile(path) as parts:
            return parts.testzip() is None
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return False


def _restore(
    learners: list[Learner], recipe: Recipe, path: Path, world: World, say: Callable[[str], None]
) -> tuple[int, int | None]:
    """Go on from the state in `path`, or from the one before where it is damaged: epochs done and micro-batch, 0 and None without.

    The micro-batch is None where as many processes cannot share the batch by it.
    """
    for candidate in (path, _previous(path)):
        if not candidate.is_file():
            continue
        if not _intact(candidate):
            say(f"{candidate} is damaged: going on from the state before it")
            continue
        state = torch.load(candidate, weights_only=True, map_location="cpu")
        names = [learner.spec for learner in learners]
        if not set(names) <= set(state["learners"]):  # of some the figures may be written already
            raise ValueError(
                f"{candidate} is of {', '.join(state['learners'])}, not of {', '.join(names)}: resume with the same --strategies"
            )
        if state["threads"] != torch.get_num_threads():
            say(
                f"{candidate} was made with {state['threads']} threads, not {torch.get_num_threads()}: figures will differ by rounding"
            )
        for learner in learners:
            learner.load(state["learners"][learner.spec])
        say(f"resuming after epoch {state['epochs']}")
        fits = recipe.batch_size % (state["micro_batch"] * world.size) == 0
        return state["epochs"], state["micro_batch"] if fits else None
    return 0, None


def clear_state(out: Path, seed: int) -> None:
    """Remove the state of a seed whose figures are written."""
    path = out / f"state-seed{seed}.pt"
    for file in (path, _previous(path)):
        file.unlink(missing_ok=True)
