"""Rows of made figures, and directories as a run leaves them."""

import json

import numpy as np

from mixbench.data.sources import DataIdentity
from mixbench.runs.directory import RunDirectory
from mixbench.runs.identity import Identity
from mixbench.runs.merge import Tables, trained
from mixbench.runs.rows import SCHEMA_VERSION, RunRow, SpeedRow, write_table
from mixbench.runs.samples import ImageResults, joined_names, write_images, write_lam

LOG = "epoch,lr,train_loss,top1,top5,top1_ema,val_nll,seconds\n"
OLDER_LOG = "epoch,lr,train_loss,top1,top5,top1_ema,seconds\n"


def run_row(strategy="cutmix", seed=0, top1=70.0, **changes):
    """A strategy that was trained."""
    fields = {
        "compose": "only",
        "dataset": "photos",
        "train_images": 1000,
        "num_classes": 10,
        "model": "deit_small_patch16_224",
        "params_m": 22.05,
        "extra_params_m": 0.0,
        "image_size": 224,
        "batch_size": 64,
        "epochs": 3,
        "headline": "raw",
        "top5": 95.0,
        "nll": 0.9,
        "ece": 12.5,
        "brier": 0.4,
        "train_seconds": 60.0 + seed,
        "device": "Abacus, 2 threads",
        "precision": "fp32",
        "compiled": False,
        "recipe_hash": "abc",
        "versions": "mixbench 1",
        "date": "2026-01-01",
    }
    return RunRow(strategy=strategy, seed=seed, top1=top1, **(fields | changes))


def speed_row(strategy="cutmix", **changes):
    """A strategy that was timed."""
    fields = {
        "extra_params_m": 0.0,
        "timed_model": "deit_small",
        "timed_params_m": 22.05,
        "timed_image_size": 224,
        "timed_batch_size": 8,
        "timed_precision": "fp32",
        "im_per_sec": 100.0,
        "im_per_sec_lo": 98.0,
        "im_per_sec_hi": 102.0,
        "ratio_to_cutmix": 1.0,
        "ratio_lo": 1.0,
        "ratio_hi": 1.0,
        "control_lo": 0.98,
        "control_hi": 1.02,
        "rounds": 40,
        "mix_ms": 1.0,
        "forward_ms": 30.0,
        "backward_ms": 60.0,
        "optimizer_ms": 4.0,
        "device": "Abacus, 2 threads",
        "compiled": False,
        "versions": "mixbench 1",
        "date": "2026-01-01",
    }
    return SpeedRow(strategy=strategy, **(fields | changes))


def full_tables(seeds=3):
    """Three strategies, trained and timed; Puzzle-Mix is slow."""
    rng = np.random.default_rng(0)
    names = ("cutmix", "transmix", "puzzlemix")
    runs = [
        run_row(name, seed, float(rng.normal(70, 1))) for seed in range(seeds) for name in names
    ]
    slow = speed_row(
        "puzzlemix", im_per_sec=50.0, ratio_to_cutmix=0.5, ratio_lo=0.49, ratio_hi=0.51
    )
    return Tables(runs, [speed_row("cutmix"), speed_row("transmix"), slow])


def image_results(right, names=None, classes=10):
    """Results of images of so many classes in turn; what is wrong is taken for the next class."""
    right = np.asarray(right, bool)
    label = np.arange(len(right)) % classes
    confidence = np.where(right, 0.85, 0.45)
    return ImageResults(
        label=label,
        predicted=np.where(right, label, (label + 1) % classes),
        confidence=confidence,
        nll=-np.log(np.where(right, 0.85, 0.1)),
        brier=2 * (1 - confidence) ** 2,
        names=None if names is None else joined_names(names),
    )


def write_run(folder, runs=(), speed=(), files=True, older=False):
    """A run's directory with these rows, and what each seed leaves; the folder.

    older: as of a mixbench that wrote neither images.npz nor the validation loss.
    """
    places = RunDirectory(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if runs:
        write_table(places.runs, RunRow, runs)
    if speed:
        write_table(places.speed, SpeedRow, speed)
    about = {"schema_version": SCHEMA_VERSION, "command": "python bench.py --seeds 0,1,2"}
    places.environment.write_text(json.dumps(about))
    rng = np.random.default_rng(0)
    for row in trained(runs) if files else ():
        seed = places.seed(row.strategy, row.seed)
        seed.path.mkdir(parents=True)
        if older:
            seed.log.write_text(OLDER_LOG + "0,0.1,2.5,30,60,,5\n1,0.1,1.5,60,80,,10\n")
        else:
            seed.log.write_text(LOG + "0,0.1,2.5,30,60,,2.1,5\n1,0.1,1.5,60,80,,1.9,10\n")
        write_lam(seed.lam, rng.random(50), rng.random(50))
        right = rng.random(200) < 0.7
        if older:
            write_correct(seed.correct, right)
        else:
            write_images(seed.images, image_results(right))
    return folder


def write_data(folder, classes):
    """What a run's directory says of its data."""
    data = DataIdentity(tuple(classes), 100, 200, "train", "val")
    RunDirectory(folder).data.write_text(Identity(None, data).data_text())


def write_correct(path, right, names=None):
    """A packed bitmap of which images were right, in place of which images.npz came."""
    flags = np.asarray(right, bool)
    arrays = {"bits": np.packbits(flags), "count": np.int64(len(flags))}
    if names is not None:
        arrays["names"] = np.frombuffer(joined_names(names), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
