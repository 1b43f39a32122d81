"""Rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixbench.files import replace_file

if TYPE_CHECKING:
    pass


SCHEMA_VERSION = 2


COLUMNS = (
    "schema_version",
    "strategy",
    "compose",
    "status",
    "dataset",
    "train_images",
    "num_classes",
    "model",
    "params_m",
    "extra_params_m",
    "attention",
    "network",
    "image_size",
    "batch_size",
    "epochs",
    "seed",
    "headline",
    "top1",
    "top5",
    "top1_ema",
    "train_seconds",
    "im_per_sec",
    "im_per_sec_lo",
    "im_per_sec_hi",
    "ratio_to_cutmix",
    "ratio_lo",
    "ratio_hi",
    "control_lo",
    "control_hi",
    "rounds",
    "peak_memory_mb",
    "device",
    "precision",
    "compiled",
    "recipe_hash",
    "versions",
    "date",
    # since schema 2: of the headline weights, and milliseconds of a timed step
    "nll",
    "ece",
    "mix_ms",
    "forward_ms",
    "backward_ms",
    "optimizer_ms",
    "timed",
    "loading_share",  # of the training time, waited for images
    "train_im_per_sec",  # with the loader: of a strategy's own time and the wait for images
    "label_error",  # of lam to A's share of what is visible, in percent points; drawn scenes alone
)


TEXT = {
    "strategy",
    "compose",
    "status",
    "dataset",
    "model",
    "attention",
    "network",
    "headline",
    "device",
    "precision",
    "compiled",
    "recipe_hash",
    "versions",
    "date",
    "timed",
}


WHOLE = {
    "schema_version",
    "train_images",
    "num_classes",
    "image_size",
    "batch_size",
    "epochs",
    "seed",
    "rounds",
}


DIGITS = {
    "ratio_to_cutmix": 4,
    "ratio_lo": 4,
    "ratio_hi": 4,
    "control_lo": 4,
    "control_hi": 4,
    "nll": 4,
}


Rows = list[dict[str, Any]]


def write_csv(rows: Rows, path: Path) -> None:
    """The comparison as CSV, one row a strategy and seed; an empty cell is a figure that was not measured."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in frame.columns:
        if name in WHOLE:
            frame[name] = pd.to_numeric(frame[name]).astype(
                "Int64"
            )  # 10 and not 10.0 beside rows that lack it
        elif frame[name].map(lambda value: isinstance(value, float) and value == value).any():
            frame[name] = pd.to_numeric(frame[name]).round(DIGITS.get(name, 3))
    replace_file(path, frame.to_csv(index=False))


def read_csv(path: Path) -> Rows:
    """The rows of a comparison.csv of this or an older schema; an empty cell is None. ValueError where it is no such file."""
    if not path.is_file():
        raise ValueError(f"{path} not found: name the directory of a finished run")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lacking = [
            name
            for name in ("schema_version", "strategy", "seed", "top1")
            if name not in (reader.fieldnames or ())
        ]
        if lacking:
            raise ValueError(f"{path} is no comparison.csv: it lacks {', '.join(lacking)}")
        return [{name: _value(name, row.get(name)) for name in COLUMNS} for row in reader]


def _value(name: str, text: str | None) -> Any:
    if text is None or text == "":
        return None
    if name in TEXT:
        return text
    return int(float(text)) if name in WHOLE else float(text)


def trained(rows: Rows) -> Rows:
    """The rows of runs that were trained, whether or not they finished."""
    return [row for row in rows if row["dataset"] is not None]
