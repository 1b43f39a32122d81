"""Rows -> CSV, Markdown and a table on the screen; the published figures stand beside ours."""
from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
COLUMNS = (
    "schema_version", "strategy", "compose", "status", "dataset", "train_images", "num_classes", "model", "params_m",
    "extra_params_m", "attention", "network", "image_size", "batch_size", "epochs", "seed", "headline", "top1", "top5", "top1_ema",
    "train_seconds", "im_per_sec", "im_per_sec_lo", "im_per_sec_hi", "ratio_to_cutmix", "ratio_lo", "ratio_hi",
    "control_lo", "control_hi", "rounds", "peak_memory_mb", "device", "precision", "compiled", "recipe_hash", "versions", "date",
)  # fmt: skip
DIGITS = {"ratio_to_cutmix": 4, "ratio_lo": 4, "ratio_hi": 4, "control_lo": 4, "control_hi": 4}
DEMONSTRATION = (
    "The data are drawn by mixbench itself and the network is tiny: this shows that everything works and what it costs, "
    "and is no evidence about ImageNet."
)


def published_dir() -> Path:
    """Where the published figures lie: inside an installed package, beside it in a checkout."""
    inside = Path(__file__).parent / "published"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "baselines" / "published"


def published_table8() -> dict[str, dict[str, str]]:
    """Table 8 of the paper by strategy name; `mixup` is its Baseline row."""
    with (published_dir() / "table8.csv").open(newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        names = {"Baseline": "mixup"}
        return {names.get(row["method"], row["method"].lower().replace("-", "")): row for row in rows}


def replace_file(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    """The comparison as CSV, one row a strategy and seed; an empty cell is a figure that was not measured."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in frame.columns:
        if frame[name].map(lambda value: isinstance(value, float) and value == value).any():
            frame[name] = pd.to_numeric(frame[name]).round(DIGITS.get(name, 3))
    replace_file(path, frame.to_csv(index=False))


def _cell(value: Any, digits: int) -> str:
    return "-" if value is None or value == "" else f"{value:.{digits}f}"


def _interval(row: dict[str, Any], name: str, low: str, high: str, digits: int) -> str:
    if row.get(name) is None:
        return "-"
    return f"{row[name]:.{digits}f} [{row[low]:.{digits}f}, {row[high]:.{digits}f}]"


HEADER = ("strategy", "seed", "params", "im/s", "ratio to CutMix", "top-1", "paper im/s", "paper ratio", "paper top-1")


def table_cells(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Table 8's shape: a tuple of HEADER's cells for each row."""
    table8 = published_table8()
    cells: list[tuple[str, ...]] = []
    for row in rows:
        paper = table8.get(row["strategy"].partition("(")[0], {})
        params = "-" if row["params_m"] is None else f"{row['params_m'] + (row['extra_params_m'] or 0):.2f}M"
        ratio = float(paper["im_per_sec"]) / float(table8["cutmix"]["im_per_sec"]) if paper else None
        top1 = row["status"] if row["status"] != "ok" else _cell(row["top1"], 1)
        cells.append((
            row["strategy"], str(row["seed"]), params, _cell(row["im_per_sec"], 2),
            _interval(row, "ratio_to_cutmix", "ratio_lo", "ratio_hi", 3), top1,
            paper.get("im_per_sec", "-"), _cell(ratio, 3), paper.get("top1", "-"),
        ))  # fmt: skip
    return cells


def remarks(rows: list[dict[str, Any]], speed_of: str) -> list[str]:
    """What a reader of the table has to know."""
    lines = []
    timed = next((row for row in rows if row["control_lo"] is not None), None)
    if timed:
        lines.append(
            f"Speed: {speed_of}; mixing + forward + backward, {timed['rounds']} interleaved rounds. "
            f"CutMix timed against itself: {timed['control_lo']:.3f} to {timed['control_hi']:.3f}; "
            "a ratio inside that band is no difference."
        )
    lines.append("Paper: Table 8, DeiT-S on ImageNet-1k, batch 128 on a V100; `mixup` is its Baseline row.")
    if any(row["dataset"] == "scenes" and row["top1"] is not None for row in rows):
        lines.append(DEMONSTRATION)
    seeds = {row["seed"] for row in rows}
    if any(row["top1"] is not None for row in rows):
        lines.append(f"{len(seeds)} seed{'s' * (len(seeds) > 1)}: differences of top-1 between rows are not tested here.")
    return lines


def write_markdown(rows: list[dict[str, Any]], path: Path, command: str, speed_of: str) -> None:
    """The comparison as a Markdown page with the command that made it."""
    lines = ["# Comparison", "", f"`{command}`", "", "| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in table_cells(rows)]
    lines += ["", *[f"* {line}" for line in remarks(rows, speed_of)]]
    if rows:
        lines += ["", f"{rows[0]['device']}; {rows[0]['versions']}; {rows[0]['date']}"]
    replace_file(path, "\n".join(lines) + "\n")


def print_table(rows: list[dict[str, Any]], speed_of: str, console: Any) -> None:
    """The same table on a terminal."""
    from rich.table import Table

    table = Table(*HEADER)
    for cells in table_cells(rows):
        table.add_row(*cells)
    console.print(table)
    for line in remarks(rows, speed_of):
        console.print(line, highlight=False, markup=False)
