"""What evaluations found, as tables and curves: the headline compared over seeds, and settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from mixbench.published import published_table
from mixbench.report.drawing import Drawing, label_beside, label_room
from mixbench.report.looks import look_of
from mixbench.report.numbers import cell, interval
from mixbench.report.significance import Summary, compare
from mixbench.report.tables import print_table, statistics_cells, statistics_header
from mixbench.runs.rows import EvaluationRow
from mixbench.transfer.tasks import TASKS, TITLES, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

    from mixbench.evaluations.evaluation import Evaluation

Cells = Sequence[tuple[str, ...]]
SECTIONS = ("Labels against masks", "Robustness", "Attention", "Transfer")  # in a page's order

# evaluation -> file of baselines/published, where the figures are from, and its columns in words
PUBLISHED: dict[str, tuple[str, str, tuple[tuple[str, str], ...]]] = {
    "label-error": (
        "label_error",
        "OA-CutMix, arXiv 2606.04820, on COCO",
        (("label_error", "points of label error"), ("ghost_labels", "% ghost labels")),
    ),
    "shuffle": (
        "figure4",
        "the paper's Figure 4, ImageNet-1k",
        (("mean_top1", "% mean top-1 over the grids"),),
    ),
    "imagenet-a": (
        "table4",
        "the paper's Table 4",
        (
            ("imagenet_a_top1", "% top-1"),
            ("calib_error", "% calibration error"),
            ("aurra", "% AURRA"),
        ),
    ),
    "imagenet-o": ("table4", "the paper's Table 4", (("imagenet_o_aupr", "% AUPR"),)),
    "voc-jaccard": ("table5", "the paper's Table 5", (("voc_seg_ji", "% Jaccard index"),)),
    "localize": (
        "table5",
        "the paper's Table 5, ImageNet-1k",
        (("loc_miou", "% mean IoU of boxes"),),
    ),
    "seg": (
        "table2",
        "the paper's Table 2, Pascal Context",
        (("miou", "% mIoU"), ("miou_ms", "% multi-scale"), ("macc", "% mean accuracy")),
    ),
    "det": (
        "table3",
        "the paper's Table 3, COCO",
        (
            ("ap_bb", "AP of boxes"),
            ("ap_bb50", "AP50"),
            ("ap_bb75", "AP75"),
            ("ap_mk", "AP of masks"),
            ("ap_mk50", "AP50"),
            ("ap_mk75", "AP75"),
        ),
    ),
}


class Curve(NamedTuple):
    """A metric by level, such as the drop of top-1 by the share of patches."""

    name: str  # of the curve's settings, which are its name and a level
    levels: tuple[float, ...]
    summaries: Mapping[str, tuple[Summary, ...]]  # by strategy, one a level


@dataclass(frozen=True)
class Evaluated:
    """One evaluation with its options, as a report shows it."""

    name: str
    options: str
    data_hash: str
    section: str
    title: str
    header: Sequence[str]  # of the headline, compared as top-1 is
    headline: Cells
    settings_header: Sequence[str]  # of one metric by setting: mean and interval
    settings: Cells
    metric: str  # of the settings, in words
    curves: Sequence[Curve]
    published: str  # a sentence; '' where nothing is

    @property
    def kind(self) -> tuple[str, str, str]:
        """What tells it from the others: its name, options and images."""
        return self.name, self.options, self.data_hash


def evaluated(rows: Iterable[EvaluationRow], order: Sequence[str]) -> list[Evaluated]:
    """The tables of each evaluation, options and images, strategies in this order.

    The correction is over an evaluation's own comparisons. What a later mixbench measured is left
    out, and so is what has no figure to compare.
    """
    rows = list(rows)
    if not rows:
        return []
    # torch: where there are rows alone
    from mixbench.evaluations.evaluation import EVALUATIONS, evaluation_class

    by_kind: dict[tuple[str, ...], list[EvaluationRow]] = {}
    for row in rows:
        if row.evaluation in EVALUATIONS or row.evaluation in TASKS:
            key = row.evaluation, row.options, row.dataset, row.data_hash
            by_kind.setdefault(key, []).append(row)
    tables = (
        _tables(TASKS.get(key[0]) or evaluation_class(key[0])(), kind, order)
        for key, kind in by_kind.items()
    )
    found = [each for each in tables if each is not None]
    titles = Counter(each.title for each in found)
    return [
        replace(each, title=f"{each.title} (images {each.data_hash})")
        if titles[each.title] > 1  # two folders of one name
        else each
        for each in found
    ]


def by_section(tables: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    """The tables of each section, in a page's order."""
    sections = {name: [each for each in tables if each.section == name] for name in SECTIONS}
    return {name: of_section for name, of_section in sections.items() if of_section}


def print_evaluated(rows: Iterable[EvaluationRow], order: Sequence[str], console: Console) -> None:
    """The headline of each strategy on a terminal, compared as top-1 is."""
    for each in evaluated(rows, order):
        console.print(each.title, markup=False, highlight=False)
        print_table(each.header, each.headline, console)


def _tables(
    evaluation: Evaluation | Task, rows: Sequence[EvaluationRow], order: Sequence[str]
) -> Evaluated | None:
    if evaluation.headline is None:
        return None
    setting, metric, higher = evaluation.headline
    figures = _figures(rows, setting, metric, order)
    paired = compare(figures) if figures else None
    details = evaluation.details
    shown = list(dict.fromkeys((row.setting, row.metric) for row in rows if row.metric in details))
    if shown == [(setting, metric)]:
        shown = []  # the table would repeat the headline
    detail = {each: _summaries(_figures(rows, *each, order)) for each in shown}
    words = _words(metric)
    better = "higher" if higher else "lower"
    named = f"{_what(rows[0])}: {words}, {better} is better"
    if paired and paired.comparisons > 1:
        named += f", corrected for {paired.comparisons} comparisons"
    header = statistics_header(paired) if paired else []
    return Evaluated(
        name=evaluation.name,
        options=rows[0].options,
        data_hash=rows[0].data_hash,
        section=evaluation.section,
        title=named,
        header=[title.replace("mean top-1", words).replace("top-1", words) for title in header],
        headline=statistics_cells(paired) if paired else [],
        settings_header=[
            "strategy",
            *(
                f"{name or 'all'} {_words(each) if len(details) > 1 else ''}".rstrip()
                for name, each in shown
            ),
        ],
        settings=[
            (spec, *(_interval(detail[each].get(spec)) for each in shown)) for spec in figures
        ]
        if shown
        else [],
        metric=", ".join(_words(each) for each in details),
        curves=list(_curves({name: found for (name, _), found in detail.items()})),
        published=published_words(evaluation.name),
    )


def _words(metric: str) -> str:
    """What people call a metric."""
    return TITLES.get(metric, metric.replace("_", " "))


def _what(row: EvaluationRow) -> str:
    """What was measured, on what and with which options."""
    data = f" on {row.dataset}" if row.dataset else ""
    labels = ", labels predicted" if row.labels == "predicted" else ""
    return f"{row.evaluation}{data} ({row.options}{labels})"


def _figures(
    rows: Iterable[EvaluationRow], setting: str, metric: str, order: Sequence[str]
) -> dict[str, dict[int, float | None]]:
    """A metric under a setting by strategy and seed."""
    found: dict[str, dict[int, float | None]] = {spec: {} for spec in order}
    for row in rows:
        if (row.setting, row.metric) == (setting, metric):
            found.setdefault(row.strategy, {})[row.seed] = row.value
    return {spec: by_seed for spec, by_seed in found.items() if by_seed}


def _summaries(figures: dict[str, dict[int, float | None]]) -> dict[str, Summary]:
    return {each.strategy: each for each in compare(figures).summaries} if figures else {}


def _interval(summary: Summary | None) -> str:
    """A mean with its 95 % t interval over the seeds."""
    if summary is None or summary.low is None:
        return cell(summary.mean if summary else None, 2)
    return interval(summary.mean, summary.low, summary.high, 2)


def _curves(detail: Mapping[str, Mapping[str, Summary]]) -> Iterator[Curve]:
    """The settings that are a name and a level, each name's as a curve."""
    levels: dict[str, list[tuple[float, str]]] = {}
    for setting in detail:
        name, _, level = setting.rpartition(" ")
        if name and level.replace(".", "", 1).isdecimal():
            levels.setdefault(name, []).append((float(level), setting))
    for name, pairs in levels.items():
        first = detail[pairs[0][1]]
        whole = [spec for spec in first if all(spec in detail[setting] for _, setting in pairs)]
        summaries = {spec: tuple(detail[setting][spec] for _, setting in pairs) for spec in whole}
        yield Curve(name, tuple(level for level, _ in pairs), summaries)


def draw_levels(axis: Axes, curve: Curve, height: float) -> None:
    """A metric's mean by level, a line a strategy, its 95 % t interval as a band.

    The names stand beside axes of `height` inches, at the curves' ends.
    """
    ends = {}
    for spec, summaries in curve.summaries.items():
        known = [
            (level, each) for level, each in zip(curve.levels, summaries, strict=True)
            if each.mean is not None
        ]  # fmt: skip
        if not known:
            continue
        levels, look = [level for level, _ in known], look_of(spec)
        means = [each.mean or 0.0 for _, each in known]
        axis.plot(
            levels,
            means,
            markersize=5,
            label=spec,
            **look.style,
        )
        ends[spec] = (levels[-1], means[-1])
        if all(each.low is not None and each.high is not None for _, each in known):
            low, high = ([getattr(each, end) for _, each in known] for end in ("low", "high"))
            axis.fill_between(levels, low, high, color=look.colour, alpha=0.12, linewidth=0)
    if ends:
        label_beside(axis, ends, height)


def levels_figure(each: Evaluated, name: str) -> str:
    """The curves of an evaluation below one another, as SVG; '' without any."""
    if not each.curves:
        return ""
    count = len(each.curves)
    height = max(2.1, *(label_room(curve.summaries) for curve in each.curves))
    drawing = Drawing(name, f"{each.title}, by level", (height + 0.4) * count, rows=count)
    with drawing as axes:
        for axis, curve in zip(axes, each.curves, strict=True):
            draw_levels(axis, curve, height)
            axis.set_ylabel(f"{each.metric}, {curve.name}")
        axes[-1].set_xlabel("level")
    return drawing.svg


def published_words(name: str) -> str:
    """What is published of an evaluation, as printed; '' where nothing is."""
    if name not in PUBLISHED:
        return ""
    table, what, columns = PUBLISHED[name]
    models = [
        f"{_published_model(row)} "
        + ", ".join(f"{row[column]} {words}" for column, words in columns)
        for row in published_table(table)
    ]
    return f"Published ({what}): {'; '.join(models)}. Not to be held against other models and data."


def _published_model(row: Mapping[str, str]) -> str:
    """What a row of a published table is of; with a decoder it may start from TransMix."""
    if "decoder" not in row:
        return row.get("model") or row["backbone"]
    start = " from TransMix" if row["transmix_pretrained"] == "yes" else ""
    return f"{row['backbone']} with {row['decoder']}{start}"
