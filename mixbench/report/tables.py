"""Views of rows: cells, Markdown, the screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import harmonic_mean
from typing import TYPE_CHECKING, Any

from mixbench.files import replace_file
from mixbench.published import published_table
from mixbench.report.significance import Comparison, Correct, Difference, compare

if TYPE_CHECKING:
    pass
from mixbench.runs.rows import Rows, trained

LOADER_BOUND = 0.2  # share of the training time that is waited for images


DEMONSTRATION = (
    "The data are drawn by mixbench itself and the network is tiny: this shows that everything works and what it costs, "
    "and is no evidence about ImageNet."
)


PAPER = (
    "Paper: Table 8, DeiT-S on ImageNet-1k, batch 128 on a V100; `mixup` is its Baseline row. OpenMixup: DeiT-S on ImageNet-1k, best "
    "epochs, each method alone. The two do not agree."
)


def published_table8() -> dict[str, dict[str, str]]:
    """Table 8 of the paper by strategy name; `mixup` is its Baseline row."""
    names = {"Baseline": "mixup"}
    return {
        names.get(row["method"], row["method"].lower().replace("-", "")): row
        for row in published_table("table8")
    }


OPENMIXUP = {
    "none": "Vanilla",
    "mixup": "MixUp",
    "cutmix": "CutMix",
    "saliencymix": "SaliencyMix",
    "attentivecutmix": "AttentiveMix+",
    "puzzlemix": "PuzzleMix",
    "transmix": "TransMix",
}


def published(spec: str) -> tuple[str, str, str, str, str]:
    """What is published of a strategy with default settings, '-' where nothing is.

    Of Table 8 parameters, images a second, their ratio to CutMix and top-1; OpenMixup's top-1 of DeiT-S on ImageNet-1k.
    """
    table8 = published_table8()
    paper = table8.get(spec, {})
    ratio = (
        f"{float(paper['im_per_sec']) / float(table8['cutmix']['im_per_sec']):.3f}"
        if paper
        else "-"
    )
    openmixup = {row["method"]: row["deit_small"] for row in published_table("openmixup_deit")}
    return (
        f"{paper['params_m']}M" if paper else "-",
        paper.get("im_per_sec", "-"),
        ratio,
        paper.get("top1", "-"),
        openmixup.get(OPENMIXUP.get(spec, ""), "-"),
    )


# What the rows say.


def _cell(value: Any, digits: int) -> str:
    return "-" if value is None or value == "" else f"{value:.{digits}f}"


def _interval(row: dict[str, Any], name: str, low: str, high: str, digits: int) -> str:
    if row.get(name) is None:
        return "-"
    return f"{row[name]:.{digits}f} [{row[low]:.{digits}f}, {row[high]:.{digits}f}]"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


HEADER = (
    "strategy",
    "seed",
    "params",
    "im/s",
    "ratio to CutMix",
    "top-1",
    "paper im/s",
    "paper ratio",
    "paper top-1",
    "OpenMixup top-1",
)


def _params(row: dict[str, Any]) -> str:
    return (
        "-" if row["params_m"] is None else f"{row['params_m'] + (row['extra_params_m'] or 0):.2f}M"
    )


def table_cells(rows: Rows) -> list[tuple[str, ...]]:
    """Table 8's shape: a tuple of HEADER's cells for each row."""
    cells: list[tuple[str, ...]] = []
    for row in rows:
        top1 = row["status"] if row["status"] != "ok" else _cell(row["top1"], 1)
        cells.append(
            (
                row["strategy"],
                str(row["seed"]),
                _params(row),
                _cell(row["im_per_sec"], 2),
                _interval(row, "ratio_to_cutmix", "ratio_lo", "ratio_hi", 3),
                top1,
                *published(row["strategy"])[1:],
            )
        )
    return cells


def figures(rows: Rows, column: str = "top1") -> dict[str, dict[int, float | None]]:
    """A column of the trained rows by strategy and seed; None where a run gave no finite figure."""
    result: dict[str, dict[int, float | None]] = {}
    for row in trained(rows):
        value = row[column]
        result.setdefault(row["strategy"], {})[row["seed"]] = (
            value if value is not None and math.isfinite(value) else None
        )
    return result


def compare_rows(rows: Rows, correct: Correct | None = None) -> Comparison | None:
    """The comparison of top-1 in the rows; None where nothing was trained."""
    by_strategy = figures(rows)
    return compare(by_strategy, correct=correct) if by_strategy else None


def speeds(rows: Rows) -> Rows:
    """One row for each measured speed; the rows of several seeds repeat theirs."""
    seen: dict[tuple[Any, ...], dict[str, Any]] = {}
    names = ("strategy", "device", "im_per_sec", "ratio_to_cutmix", "control_lo", "control_hi")
    for row in rows:
        if row["im_per_sec"] is not None:
            seen.setdefault(tuple(row[name] for name in names), row)
    return list(seen.values())


def speed_verdict(row: dict[str, Any]) -> str:
    """What a speed shows: a difference only where the ratio's interval lies outside CutMix's band against itself."""
    if row["strategy"] == "cutmix":
        return "the reference"
    if row["ratio_lo"] > max(row["control_hi"], 1):
        return "faster than CutMix"
    if row["ratio_hi"] < min(row["control_lo"], 1):
        return "slower than CutMix"
    return "no difference shown"


def loader_remark(rows: Rows) -> list[str]:
    """How fast training was with its loader, and whether that was the bottleneck; nothing where nobody knows."""
    loaded = [row for row in rows if row["loading_share"] is not None]
    if not loaded:
        return []
    share = max(row["loading_share"] for row in loaded)
    rates = {
        strategy: [rate for rate in own.values() if rate is not None]
        for strategy, own in figures(loaded, "train_im_per_sec").items()
    }
    told = ", ".join(
        f"{strategy} {harmonic_mean(own):.4g}" for strategy, own in rates.items() if own
    )  # seeds see as many images
    bound = "a faster loader would help" if share >= LOADER_BOUND else "the loader held nothing up"
    waited = f"up to {100 * share:.0f} % of it was waiting for images, so {bound}"
    return [f"Training with the loader, images per second: {told or '-'}; {waited}."]


def remarks(rows: Rows, speed_of: str, correct: Correct | None = None) -> list[str]:
    """What a reader of the table has to know; `correct` gives one seed its test over the images."""
    lines = []
    timed = next((row for row in rows if row["control_lo"] is not None), None)
    if timed:
        lines.append(
            f"Speed: {speed_of}; mixing + forward + backward, {timed['rounds']} interleaved rounds. "
            f"CutMix timed against itself: {timed['control_lo']:.3f} to {timed['control_hi']:.3f}; "
            "a ratio whose interval meets that band is no difference."
        )
    lines += loader_remark(rows)
    lines.append(PAPER)
    if any(row["dataset"] == "scenes" for row in rows):
        lines.append(DEMONSTRATION)
    comparison = compare_rows(rows, correct)
    if comparison:
        lines += [difference.sentence for difference in comparison.differences]
    return lines


STATISTICS_HEADER = (
    "strategy",
    "seeds",
    "mean top-1",
    "standard deviation",
    "difference to {}",
    "95 % interval",
    "corrected p",
    "verdict",
)


def _verdict(difference: Difference) -> str:
    if difference.claimed:
        return "higher" if (difference.mean or 0) > 0 else "lower"
    n = len(difference.values)
    return f"not resolvable with {_count(n, 'seed')}" if n else "nothing to compare"


def statistics_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """A tuple of STATISTICS_HEADER's cells for each strategy."""
    differences = {difference.strategy: difference for difference in comparison.differences}
    cells: list[tuple[str, ...]] = []
    for summary in comparison.summaries:
        seeds = f"{len(summary.values)}" + (
            f" of {len(summary.values) + len(summary.missing)}" if summary.missing else ""
        )
        own = (summary.strategy, seeds, _cell(summary.mean, 2), _cell(summary.spread, 2))
        difference = differences.get(summary.strategy)
        if difference is None:
            cells.append((*own, "-", "-", "-", "the baseline"))
            continue
        several = (
            len(difference.values) > 1
        )  # of one seed the p is over images, and said in the sentence
        interval = (
            "-" if difference.low is None else f"[{difference.low:+.2f}, {difference.high:+.2f}]"
        )
        mean = "-" if difference.mean is None else f"{difference.mean:+.2f}"
        p = "-" if difference.corrected is None or not several else f"{difference.corrected:.3f}"
        cells.append((*own, mean, interval, p, _verdict(difference)))
    return cells


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return lines + [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in rows
    ]


def write_markdown(
    rows: Rows, path: Path, command: str, speed_of: str, correct: Correct | None = None
) -> None:
    """The comparison as a Markdown page with the command that made it."""
    lines = ["# Comparison", "", f"`{command}`", "", *markdown_table(HEADER, table_cells(rows))]
    comparison = compare_rows(rows, correct)
    if comparison and any(len(summary.values) > 1 for summary in comparison.summaries):
        header = [name.format(comparison.baseline) for name in STATISTICS_HEADER]
        lines += ["", *markdown_table(header, statistics_cells(comparison))]
    lines += ["", *[f"* {line}" for line in remarks(rows, speed_of, correct)]]
    if rows:
        lines += ["", f"{rows[0]['device']}; {rows[0]['versions']}; {rows[0]['date']}"]
    replace_file(path, "\n".join(lines) + "\n")


def print_table(rows: Rows, speed_of: str, console: Any, correct: Correct | None = None) -> None:
    """The same table on a terminal."""
    from rich.table import Table

    table = Table(*HEADER)
    for cells in table_cells(rows):
        table.add_row(*cells)
    console.print(table)
    for line in remarks(rows, speed_of, correct):
        console.print(line, highlight=False, markup=False)
