"""Rows -> CSV, Markdown, a table on the screen and one HTML page; the published figures stand beside ours."""

from __future__ import annotations

import base64
import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import harmonic_mean
from typing import TYPE_CHECKING, Any

import numpy as np

from mixbench.files import replace_file
from mixbench.published import published_table
from mixbench.statistics import Comparison, Correct, Difference, compare, read_correct, seeds_needed

if TYPE_CHECKING:
    from mixbench.plot import GalleryEntry

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
LOADER_BOUND = 0.2  # share of the training time that is waited for images
DEMONSTRATION = (
    "The data are drawn by mixbench itself and the network is tiny: this shows that everything works and what it costs, "
    "and is no evidence about ImageNet."
)
PAPER = (
    "Paper: Table 8, DeiT-S on ImageNet-1k, batch 128 on a V100; `mixup` is its Baseline row. OpenMixup: DeiT-S on ImageNet-1k, best "
    "epochs, each method alone. The two do not agree."
)
Rows = list[dict[str, Any]]


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


def trained(rows: Rows) -> Rows:
    """The rows of runs that were trained, whether or not they finished."""
    return [row for row in rows if row["dataset"] is not None]


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


# Runs on disk.


@dataclass(frozen=True)
class ReportData:
    """All that the HTML page shows; only the rows are needed."""

    rows: Rows
    commands: list[str] = field(default_factory=list)
    logs: dict[tuple[str, int], Rows] = field(
        default_factory=dict
    )  # by strategy and seed: the rows of log.csv
    lam: dict[tuple[str, int], np.ndarray] = field(
        default_factory=dict
    )  # (N, 2): A's share by area, and in the label
    correct: dict[tuple[str, int], np.ndarray] = field(
        default_factory=dict
    )  # (N,) bool, validation images that were right
    gallery: list[tuple[GalleryEntry, Path]] = field(
        default_factory=list
    )  # and the folder of its pictures


def write_lam(path: Path, area: np.ndarray, used: np.ndarray) -> None:
    """Write a sample of A's share by area and in the label, (N,) each, as CSV with a row an image."""
    lines = [
        "area,used",
        *(f"{a:.5f},{u:.5f}" for a, u in zip(np.asarray(area), np.asarray(used), strict=True)),
    ]
    replace_file(path, "\n".join(lines) + "\n")


def merge_runs(directories: Sequence[Path], *, mixed_machines: bool = False) -> Rows:
    """The rows of several runs' comparison.csv in one list.

    ValueError where trained rows differ in recipe or data, where one strategy and seed is in two runs, and, unless
    `mixed_machines`, where speeds come from different machines.
    """
    rows: Rows = []
    owner: dict[tuple[str, int], Path] = {}
    recipes: dict[str, Path] = {}
    for directory in directories:
        found = read_csv(directory / "comparison.csv")
        for row in trained(found):
            key = (row["strategy"], row["seed"])
            if key in owner:
                raise ValueError(
                    f"{key[0]} with seed {key[1]} is in both {owner[key]} and {directory}: leave one out"
                )
            owner[key] = directory
            recipes.setdefault(row["recipe_hash"], directory)
        rows += found
    if len(recipes) > 1:
        runs = ", ".join(f"{directory} ({recipe})" for recipe, directory in recipes.items())
        raise ValueError(
            f"runs of different recipes or data cannot be compared: {runs}; report them apart"
        )
    machines = sorted({row["device"] for row in rows if row["im_per_sec"] is not None})
    if len(machines) > 1 and not mixed_machines:
        listed = "; ".join(machines)
        raise ValueError(
            f"speeds come from different machines ({listed}): leave runs out, or give --mixed-machines to list them all"
        )
    return rows


def read_runs(directories: Sequence[Path], *, mixed_machines: bool = False) -> ReportData:
    """What the report shows of one or several run directories; ValueError as merge_runs says."""
    from mixbench.plot import read_gallery
    from mixbench.train import run_folder

    data = ReportData(merge_runs(directories, mixed_machines=mixed_machines))
    for directory in directories:
        environment = directory / "environment.json"
        if environment.is_file():
            command = json.loads(environment.read_text(encoding="utf-8")).get("command")
            data.commands.extend([command] if command else [])
        data.gallery.extend(
            (entry, directory / "gallery") for entry in read_gallery(directory / "gallery")
        )
        for row in trained(read_csv(directory / "comparison.csv")):
            key = (row["strategy"], row["seed"])
            folder = run_folder(directory, *key)
            if (folder / "log.csv").is_file():
                with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
                    data.logs[key] = [
                        {name: float(text) if text else None for name, text in line.items()}
                        for line in csv.DictReader(file)
                    ]
            if (folder / "lam.csv").is_file():
                lines = (folder / "lam.csv").read_text(encoding="utf-8").splitlines()[1:]
                data.lam[key] = np.array([line.split(",") for line in lines], float).reshape(-1, 2)
            if (folder / "correct.npz").is_file():
                data.correct[key] = read_correct(folder / "correct.npz")
    return data


def report_runs(
    directories: Sequence[Path], out: Path | None = None, *, mixed_machines: bool = False
) -> Path:
    """Write report.html into the run's directory or `out`, of several runs also their merged comparison.csv and .md; the page's path.

    ValueError as merge_runs says, and where several runs are given without `out` or with one of them as `out`.
    """
    if not directories:
        raise ValueError("name the directory of a run")
    if len(directories) > 1 and (
        out is None or out.resolve() in [directory.resolve() for directory in directories]
    ):
        raise ValueError("several runs are merged into a directory of their own: give --out DIR")
    data = read_runs(directories, mixed_machines=mixed_machines)
    out = out or directories[0]
    if len(directories) > 1:
        write_csv(data.rows, out / "comparison.csv")
        timed = "; ".join(dict.fromkeys(row["timed"] or row["device"] for row in speeds(data.rows)))
        write_markdown(
            data.rows, out / "comparison.md", "; ".join(data.commands), timed, data.correct
        )
    write_report(data, out / "report.html")
    return out / "report.html"


# The page.


def _table8_rows(rows: Rows, comparison: Comparison | None) -> list[tuple[str, ...]]:
    summaries = (
        {summary.strategy: summary for summary in comparison.summaries} if comparison else {}
    )
    cells: list[tuple[str, ...]] = []
    for spec in dict.fromkeys(row["strategy"] for row in rows):
        own = [row for row in rows if row["strategy"] == spec]
        summary = summaries.get(spec)
        top1 = "-"
        if summary is not None:
            spread = "" if summary.spread is None else f" ± {summary.spread:.2f}"
            status = next(row["status"] for row in trained(own))
            top1 = (
                status
                if summary.mean is None
                else f"{summary.mean:.2f}{spread} ({_count(len(summary.values), 'seed')})"
            )
        measured = speeds(own)
        cells.append(
            (
                spec,
                next((_params(row) for row in own if row["params_m"] is not None), "-"),
                "; ".join(
                    _interval(row, "im_per_sec", "im_per_sec_lo", "im_per_sec_hi", 1)
                    for row in measured
                )
                or "-",
                "; ".join(
                    _interval(row, "ratio_to_cutmix", "ratio_lo", "ratio_hi", 3) for row in measured
                )
                or "-",
                top1,
                *published(spec),
            )
        )
    return cells


def _scores(rows: Rows) -> list[tuple[str, ...]]:
    """Mean and standard deviation of every score by strategy, and the number of seeds."""
    cells: list[tuple[str, ...]] = []
    columns = [figures(rows, name) for name in ("top1", "top5", "nll", "ece", "label_error")]
    for spec in columns[0]:
        parts = []
        for column, digits in zip(columns, (2, 2, 3, 2, 1), strict=True):
            values = [value for value in column[spec].values() if value is not None]
            spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
            parts.append(f"{np.mean(values):.{digits}f}{spread}" if values else "-")
        cells.append(
            (spec, str(sum(value is not None for value in columns[0][spec].values())), *parts)
        )
    return cells


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _pictures(data: ReportData, comparison: Comparison | None) -> dict[str, str]:
    """The diagrams that the data allow, by name, as SVG text."""
    from mixbench import plot

    drawn: dict[str, str] = {}
    if comparison and any(summary.mean is not None for summary in comparison.summaries):
        drawn["accuracy"] = plot.accuracy_figure(comparison)
        if any(difference.mean is not None for difference in comparison.differences):
            drawn["differences"] = plot.difference_figure(comparison)
        times: dict[str, list[float]] = {}
        for row in trained(data.rows):
            if row["train_seconds"] and row["top1"] is not None:
                times.setdefault(row["strategy"], []).append(row["train_seconds"])
        if times and len({row["device"] for row in trained(data.rows)}) == 1:
            drawn["cost"] = plot.cost_figure(comparison, times)
    if data.logs and comparison:
        strategies = [summary.strategy for summary in comparison.summaries]
        ema = any(row["headline"] == "ema" for row in trained(data.rows))
        drawn["curves"] = plot.curves_figure(
            data.logs, "top1_ema" if ema else "top1", "top-1 (%)", strategies
        )
        drawn["losses"] = plot.curves_figure(data.logs, "train_loss", "training loss", strategies)
    phases = {
        row["strategy"]: {phase: row[f"{phase}_ms"] for phase in plot.PHASES}
        for row in speeds(data.rows)
    }
    phases = {
        name: times
        for name, times in phases.items()
        if all(value is not None for value in times.values())
    }
    if phases and len({row["device"] for row in speeds(data.rows)}) == 1:
        drawn["steps"] = plot.step_figure(phases)
    samples: dict[str, list[np.ndarray]] = {}
    for (spec, _), pairs in data.lam.items():
        samples.setdefault(spec, []).append(pairs)
    if any(len(pairs) for pairs in data.lam.values()):
        drawn["lam"] = plot.lam_figure(
            {spec: np.concatenate(parts) for spec, parts in samples.items()}
        )
    return drawn


def render_report(data: ReportData) -> str:
    """The whole page as HTML text: no script, nothing fetched."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup, escape

    from mixbench.plot import LONG_RUN

    comparison = compare_rows(data.rows, data.correct)
    rows = trained(data.rows)
    strategies = list(dict.fromkeys(row["strategy"] for row in data.rows))
    seeds = sorted({row["seed"] for row in rows})
    images: dict[str, list[dict[str, Any]]] = {}
    for entry, folder in data.gallery:
        pictures = {
            name: _embedded(folder / getattr(entry, name))
            for name in ("image_a", "image_b", "mixed", "mask", "map")
        }
        images.setdefault(entry.strategy, []).append({"entry": entry, **pictures})
    measured = speeds(data.rows)
    several_machines = len({row["device"] for row in measured}) > 1
    speed_cells = [
        (
            row["strategy"],
            *([row["device"]] if several_machines else []),
            _interval(row, "im_per_sec", "im_per_sec_lo", "im_per_sec_hi", 2),
            _interval(row, "ratio_to_cutmix", "ratio_lo", "ratio_hi", 3),
            f"{row['control_lo']:.3f} to {row['control_hi']:.3f}",
            _cell(row["peak_memory_mb"], 0),
            speed_verdict(row),
        )
        for row in measured
    ]
    longest = max((int(log[-1]["epoch"]) + 1 for log in data.logs.values() if log), default=0)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = lambda text: Markup(
        re.sub(r"([(,=])", r"\1<wbr>", str(escape(text)))
    )
    return environment.get_template("report.html.j2").render(
        strategies=strategies,
        rows=rows,
        first=rows[0] if rows else None,
        seeds=seeds,
        commands=data.commands,
        comparison=comparison,
        demonstration=DEMONSTRATION if any(row["dataset"] == "scenes" for row in rows) else "",
        failures=[row for row in data.rows if row["status"] != "ok"],
        table8=_table8_rows(data.rows, comparison),
        statistics=statistics_cells(comparison) if comparison else [],
        statistics_header=STATISTICS_HEADER,
        scores=_scores(data.rows),
        figures={name: Markup(svg) for name, svg in _pictures(data, comparison).items()},
        measured=measured,
        speed_cells=speed_cells,
        several_machines=several_machines,
        loader=" ".join(loader_remark(data.rows)),
        timed="; ".join(dict.fromkeys(row["timed"] or row["device"] for row in measured)),
        lam_images=sum(len(pairs) for pairs in data.lam.values()),
        gallery=images,
        devices=sorted({row["device"] for row in data.rows}),
        versions=sorted({row["versions"] for row in data.rows}),
        dates=sorted({row["date"] for row in data.rows}),
        recipes=sorted({row["recipe_hash"] for row in rows}),
        long_run=longest >= LONG_RUN,
        needed=seeds_needed(max(1, len(comparison.differences))) if comparison else None,
        validation_images=len(next(iter(data.correct.values()))) if data.correct else None,
    )


def write_report(data: ReportData, path: Path) -> None:
    """Write the page, one file that opens from disk."""
    replace_file(path, render_report(data))
