"""The overview over several models, data sets or recipes: Table 1's shape, and a table for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mixbench.report.figures import difference_figure
from mixbench.report.numbers import bounds, p_value, seed_count, signed, spread
from mixbench.report.page_tables import PAPER_CELLS, TABLE8_GROUPS, TABLE8_HEADER, failures, table8
from mixbench.report.significance import (
    Difference,
    Paired,
    Setting,
    Summary,
    compare_settings,
    seeds_needed,
)
from mixbench.report.summary import figures, rows_of, verdict
from mixbench.report.tables import (
    DEMONSTRATION,
    markdown_code,
    markdown_text,
    statistics_cells,
    statistics_header,
    text_table,
)
from mixbench.report.template import template
from mixbench.runs.merge import ReportData, trained
from mixbench.runs.rows import ComparisonRow
from mixbench.visible import shortened

MOST_FIELDS = 4  # of a recipe that are named in a row


@dataclass(frozen=True)
class Entry:
    """One model, data and recipe: a row of the overview, and the table of a single report."""

    model: str
    dataset: str
    recipe: tuple[str, ...]  # the fields in which its recipe differs from the others'
    recipe_hash: str | None
    data: ReportData
    comparison: Paired | None  # None where nothing was trained

    @property
    def label(self) -> tuple[str, str, str]:
        """Model, data and recipe as a row of the overview has them."""
        fields = [*self.recipe[:MOST_FIELDS]] or ["recipe"]
        if len(self.recipe) > MOST_FIELDS:
            fields.append(f"{len(self.recipe) - MOST_FIELDS} more")
        return self.model, self.dataset, f"{', '.join(fields)} ({self.recipe_hash or '-'})"

    @property
    def title(self) -> str:
        """The same in one line; where nothing was trained that speeds alone are there."""
        if self.comparison is None:
            return "Speed alone: nothing was trained"
        model, dataset, recipe = self.label
        return f"{model} on {dataset}, {recipe}"


def entries_of(settings: Sequence[ReportData]) -> list[Entry]:
    """The rows of the overview, in order; their comparisons are corrected together."""
    measured = [data for data in settings if trained(data.tables.runs)]
    compared = iter(
        compare_settings([Setting(figures(data.tables.runs), data.correct) for data in measured])
    )
    recipes = recipe_words([data.recipe for data in settings])
    return [_entry(data, recipe, compared) for data, recipe in zip(settings, recipes, strict=True)]


def _entry(data: ReportData, recipe: tuple[str, ...], compared: Iterator[Paired]) -> Entry:
    rows = trained(data.tables.runs)
    if not rows:
        return Entry("-", "-", (), None, data, None)
    first = rows[0]
    images = "" if first.train_images is None else f", {first.train_images:,} images"
    return Entry(
        first.model or "-",
        f"{first.dataset}{images}",
        recipe,
        first.recipe_hash,
        data,
        next(compared),
    )


def recipe_words(recipes: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """For each recipe the fields that differ among them, but the model and what changes no figure.

    None where a recipe is not known.
    """
    known = [recipe for recipe in recipes if recipe]
    names = dict.fromkeys(name for recipe in known for name in recipe)
    differing = [
        name
        for name in names
        if name not in ("model", "seed")
        and not name.startswith("speed_")
        and any(recipe.get(name) != known[0].get(name) for recipe in known)
    ]
    if "init" in differing and "init_sha256" in differing:
        differing.remove("init_sha256")  # the files' names tell them apart
    return [
        tuple(f"{name} {_shown(recipe[name])}" for name in differing if name in recipe)
        for recipe in recipes
    ]


def _shown(value: Any) -> str:
    return shortened(" ".join(map(str, value)) if isinstance(value, list) else str(value))


# The overview's own table.


def strategies_of(entries: Sequence[Entry]) -> list[str]:
    """The strategies that any row has, the baseline first."""
    compared = [entry.comparison for entry in entries if entry.comparison]
    names = [summary.strategy for paired in compared for summary in paired.summaries]
    return list(dict.fromkeys([compared[0].baseline, *names]))


def overview_header(strategies: Sequence[str]) -> list[str]:
    """The columns of the overview."""
    baseline, *others = strategies
    return ["model", "data", "recipe", f"{baseline}: top-1 in %", *others]


def overview_cells(entries: Sequence[Entry], strategies: Sequence[str]) -> list[list[list[str]]]:
    """A row for each entry that was trained: the baseline's top-1 and the others' differences.

    A cell is a list of lines.
    """
    baseline, *others = strategies
    rows = []
    for entry in entries:
        if entry.comparison is None:
            continue
        summaries = {summary.strategy: summary for summary in entry.comparison.summaries}
        differences = {d.strategy: d for d in entry.comparison.differences}
        cells = [_top1_cell(summaries.get(baseline))]
        cells += [_difference_cell(differences.get(name), baseline in summaries) for name in others]
        rows.append([*([text] for text in entry.label), *cells])
    return rows


def _top1_cell(summary: Summary | None) -> list[str]:
    if summary is None or summary.mean is None:
        return ["-"]
    return [spread(summary.mean, summary.spread), seed_count([len(summary.values)])]


def _difference_cell(difference: Difference | None, has_baseline: bool) -> list[str]:
    """A difference with its interval, corrected p and seeds, or what is missing for it."""
    if difference is None:
        return ["-"]
    if difference.mean is None:
        return ["no seed in common" if has_baseline else f"no {difference.baseline}"]
    seeds = seed_count([len(difference.values)])
    if difference.low is None or difference.corrected is None:
        return [signed(difference.mean), seeds]
    lines = [
        f"{signed(difference.mean)} {bounds(difference.low, difference.high)}",
        f"p {p_value(difference.corrected)}, {seeds}",
    ]
    return [*lines, verdict(difference)] if difference.claimed else lines


def correction(entries: Sequence[Entry], baseline: str) -> list[str]:
    """What the figures of the overview are, and over how many comparisons they are corrected."""
    comparisons = next(entry.comparison.comparisons for entry in entries if entry.comparison)
    lines = [
        f"Differences of top-1 to {baseline} in points, paired by seed, with 95 % intervals (BCa "
        "bootstrap). Compare within a row: rows are of other models, data or recipes."
    ]
    if not comparisons:
        return [*lines, "No strategy has two seeds in common with it: nothing is tested."]
    many = f"{comparisons} comparison{'s' * (comparisons != 1)}"
    return [
        *lines,
        f"p is the sign-flip test's by Holm's correction over {many}, those of all rows, here and "
        "in the tables below; the report of one row alone corrects over its own. A difference is "
        "claimed (higher, lower) only where the interval excludes 0 and this p is below .05: for "
        f"{many} that takes {seeds_needed(comparisons)} seeds.",
    ]


# The files.


def overview_rows(entries: Sequence[Entry]) -> list[ComparisonRow]:
    """The rows of comparison.csv: each entry's, with the words of its recipe."""
    return [
        replace(row, recipe=", ".join(entry.recipe) or None)
        for entry in entries
        for row in rows_of(entry.data.tables, entry.comparison)
    ]


def overview_markdown(entries: Sequence[Entry], commands: Sequence[str]) -> str:
    """The overview and a table for each row as a Markdown page."""
    strategies = strategies_of(entries)
    header, rows = overview_header(strategies), overview_cells(entries, strategies)
    lines = ["# Overview", "", *(f"{markdown_code(command)}\n" for command in commands)]
    lines += text_table(header, [[", ".join(cell) for cell in row] for row in rows])
    for line in correction(entries, strategies[0]):
        lines += ["", markdown_text(line)]
    if _of_scenes(entries):
        lines += ["", f"Rows of scenes: {DEMONSTRATION}"]
    for entry in entries:
        if entry.comparison is not None:
            cells = statistics_cells(entry.comparison)
            lines += ["", f"## {markdown_text(entry.title)}", ""]
            lines += text_table(statistics_header(entry.comparison), cells)
            lines.append("")
            lines += [f"* {markdown_text(d.sentence)}" for d in entry.comparison.differences]
    return "\n".join(lines) + "\n"


def render_overview(entries: Sequence[Entry]) -> str:
    """The overview and a table for each row as HTML text."""
    strategies = strategies_of(entries)
    return template("overview.html.j2").render(
        strategies=strategies,
        header=overview_header(strategies),
        cells=overview_cells(entries, strategies),
        correction=correction(entries, strategies[0]),
        demonstration=DEMONSTRATION if _of_scenes(entries) else "",
        sections=[_section(entry, place) for place, entry in enumerate(entries)],
        table8_groups=TABLE8_GROUPS,
        table8_header=TABLE8_HEADER,
        table8_paper=len(TABLE8_HEADER) - PAPER_CELLS,
    )


def _section(entry: Entry, place: int) -> dict[str, Any]:
    """What the page shows of one entry."""
    from markupsafe import Markup

    comparison, data = entry.comparison, entry.data
    figure = ""
    if comparison and any(d.mean is not None for d in comparison.differences):
        figure = Markup(difference_figure(comparison, f"differences{place}"))
    return {
        "title": entry.title,
        "failures": [*failures(data.tables), *data.damaged],
        "sentences": [d.sentence for d in comparison.differences] if comparison else [],
        "statistics_header": statistics_header(comparison) if comparison else [],
        "statistics": statistics_cells(comparison) if comparison else [],
        "figure": figure,
        "table8": table8(data.tables, comparison),
        "commands": data.commands,
    }


def _of_scenes(entries: Sequence[Entry]) -> bool:
    return any(row.of_scenes for entry in entries for row in trained(entry.data.tables.runs))
