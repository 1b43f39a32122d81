"""Write what the README and the docs take from elsewhere: `make readme`.

Between marks such as `<!-- speed: ... -->` and `<!-- /speed -->` stand the newest figures of
results/, the columns of the tables and the options of the recipe.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixbench.commands.recipe_options import recipe_page
from mixbench.files import replace_file
from mixbench.published import published
from mixbench.report.numbers import interval, seed_count
from mixbench.report.significance import hopeless
from mixbench.report.summary import compare_runs, figures, joined, newest, speed_verdict
from mixbench.report.tables import (
    columns_table,
    markdown_table,
    statistics_cells,
    statistics_header,
)
from mixbench.runs.merge import trained
from mixbench.runs.rows import (
    ComparisonRow,
    EvaluationRow,
    RunRow,
    SpeedRow,
    column_names,
    read_table,
)
from results.speeds import speed_tables
from results.strategy_pages import strategy_pages

RANDOM = "resnet50-random.pth"  # weights of a network that is timed alone
COMPLETE = {"saliencymix", "puzzlemix", "transmix"}  # a table of speeds without them is a part
TABLES = {
    "runs.csv": RunRow,
    "speed.csv": SpeedRow,
    "comparison.csv": ComparisonRow,
    "evaluations.csv": EvaluationRow,
}


def main() -> int:
    """Write every page that has such parts; the exit status."""
    for path, text in pages(Path()).items():
        replace_file(path, text)
    return 0


def pages(root: Path) -> dict[Path, str]:
    """The content of each page with its parts, from a checkout's root."""
    docs = root / "docs"
    parts: dict[Path, dict[str, list[str]]] = {
        root / "README.md": {"top-1": top1_lines(root / "results")},
        docs / "cost.md": {"speed": speed_lines(root / "results")},
        docs / "evidence.md": {"comparisons": evidence_lines(root / "results")},
        docs / "files.md": {"columns": names_of_columns()},
        docs / "reading-the-report.md": {
            f"columns of {name}": columns_table(kind) for name, kind in TABLES.items()
        },
    }
    return {
        **{path: replaced(path.read_text(encoding="utf-8"), of) for path, of in parts.items()},
        docs / "recipe.md": recipe_page(),
        **strategy_pages(root),
    }


def replaced(text: str, parts: Mapping[str, Sequence[str]]) -> str:
    """The text with each part between its marks; ValueError where a mark is missing."""
    for name, lines in parts.items():
        pattern = rf"(<!-- {re.escape(name)}(?:: [^>]*)? -->\n).*?(<!-- /{re.escape(name)} -->)"
        places = list(re.finditer(pattern, text, re.DOTALL))
        if len(places) != 1:
            raise ValueError(f"the page has {len(places)} places for {name!r}, not one")
        [place] = places
        content = "".join(f"{line}\n" for line in lines)
        text = text[: place.end(1)] + content + text[place.start(2) :]
    return text


def names_of_columns() -> list[str]:
    """The names of every table's columns, as a table."""
    rows = [
        (f"`{name}`", ", ".join(f"`{column}`" for column in column_names(kind)))
        for name, kind in TABLES.items()
    ]
    return markdown_table(("file", "columns"), rows)


Measured = tuple[Path, list[RunRow]]


def comparisons(folder: Path) -> list[Measured]:
    """The newest comparison of top-1 of each network and data, of one day the one with most rows.

    Photographs come before drawn scenes, what has seeds enough to show a difference before what has
    not, then the largest network and most images.
    """
    found: dict[tuple[object, ...], Measured] = {}
    tables = sorted(folder.glob("*-top1.csv"))
    every = [(file, trained(read_table(file, RunRow))) for file in tables]
    for file, rows in sorted(every, key=lambda pair: (newest(pair[1]) or "", len(pair[1]))):
        if not rows:
            continue
        first = rows[0]
        found[first.model, first.dataset, first.train_images] = file, rows
    return sorted(found.values(), key=_least_first, reverse=True)


def _least_first(measured: Measured) -> tuple[bool, bool, float, int]:
    first = measured[1][0]
    enough = hopeless(figures(measured[1])) is None
    return not first.of_scenes, enough, first.params_m or 0.0, first.train_images or 0


def top1_lines(folder: Path) -> list[str]:
    """The first of the comparisons as a table; none if none."""
    return next((comparison_lines(*each, "results") for each in comparisons(folder)), [])


def evidence_lines(folder: Path) -> list[str]:
    """Every comparison as a table."""
    tables = [comparison_lines(*each, "../results") for each in comparisons(folder)]
    return [line for table in tables for line in [*table, ""]][:-1]


def comparison_lines(file: Path, rows: Sequence[RunRow], folder: str) -> list[str]:
    """One comparison: what was trained, and a row a strategy; `folder` is where the link leads."""
    comparison = compare_runs(rows)
    assert comparison is not None
    first, seeds = rows[0], Counter(row.strategy for row in rows)
    _, _, _, spread, difference, _, p, verdict = statistics_header(comparison)
    header = ["strategy", "top-1", "sd", f"{difference} [95 %]", p, verdict]
    unequal = len(set(seeds.values())) > 1
    if unequal:
        header.insert(1, "seeds")
    table = []
    for spec, count, mean, spread, change, bounds, p_value, word in statistics_cells(comparison):
        both = change if bounds == "-" else f"{change} {bounds}"
        paper = published(spec).top1 or "-"
        counted = [count] if unequal else []
        table.append((spec, *counted, mean, spread, both, p_value, word, paper))
    page = file.with_suffix(".md").name
    start = "" if first.weights in (None, "random") else f", fine-tuned from {first.weights}"
    return [
        f"Top-1 of {first.model} ({first.params_m}M parameters{start}) at {first.image_size} px, "
        f"{first.train_images:,} images of {first.dataset}, {first.epochs} epochs, "
        f"{seed_count(seeds.values())}, {joined(rows, 'device')}, {newest(rows)} "
        f"([{page}]({folder}/{page}), with the command).",
        "",
        *markdown_table((*header, "paper: DeiT-S, ImageNet"), table),
    ]


def speed_lines(folder: Path) -> list[str]:
    """The newest speeds of each device, precision and compilation, as tables."""
    newest: dict[tuple[str | None, ...], tuple[Path, list[SpeedRow]]] = {}
    for file, rows in sorted(complete_speeds(folder), key=lambda pair: str(pair[1][0].date)):
        first = rows[0]
        newest[first.device, first.timed_precision, str(first.compiled)] = file, rows
    lines: list[str] = []
    for file, rows in newest.values():
        first = rows[0]
        lines += [
            f"{first.timed}; {first.rounds} interleaved rounds, {first.date} "
            f"([{file.name}](../results/{file.name})).",
            f"CutMix against itself: {first.control_lo:.3f} to {first.control_hi:.3f}.",
            "",
        ]
        header = ("strategy", "im/s", "ratio to CutMix [95 %]", "paper", "")
        lines += [*markdown_table(header, map(speed_cells, rows)), ""]
    return lines[:-1]


def complete_speeds(folder: Path) -> list[tuple[Path, list[SpeedRow]]]:
    """The tables of speeds that hold every strategy."""
    tables = speed_tables(folder)
    return [(file, rows) for file, rows in tables if {row.strategy for row in rows} >= COMPLETE]


def speed_cells(row: SpeedRow) -> tuple[str, ...]:
    """A strategy's speed beside the paper's."""
    spec = "attentivecutmix" if RANDOM in row.strategy else row.strategy
    ratio = interval(row.ratio_to_cutmix, row.ratio_lo, row.ratio_hi, 3)
    paper = published(spec).ratio or "-"
    return row.strategy, f"{row.im_per_sec:.2f}", ratio, paper, speed_verdict(row)


if __name__ == "__main__":
    sys.exit(main())
