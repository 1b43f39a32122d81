"""The report page: one HTML file that opens from disk, without a script or a request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mixbench.data.class_names import check_class_names, class_titles, read_class_names
from mixbench.files import replace_file
from mixbench.report.answer import Answer, answer_of
from mixbench.report.classes import class_by_class, class_count
from mixbench.report.evaluated import by_section, evaluated, levels_figure
from mixbench.report.figures import (
    LONG_RUN,
    MOST_POINTS,
    Cost,
    Shares,
    accuracy_figure,
    control_band,
    cost_figure,
    curves_figure,
    difference_figure,
    gains_figure,
    ratio_figure,
    shares_figure,
    shares_of,
)
from mixbench.report.files import write_merged, write_overview
from mixbench.report.numbers import cell, seed_count
from mixbench.report.overview import entries_of, render_overview
from mixbench.report.page_tables import (
    PAPER_CELLS,
    SCORES_HEADER,
    TABLE8_GROUPS,
    TABLE8_HEADER,
    failures,
    scores_cells,
    table8,
)
from mixbench.report.predictions import predictions
from mixbench.report.reference import reference_remarks
from mixbench.report.reliability import FEWEST, reliability, reliability_figure
from mixbench.report.significance import Paired, seeds_needed
from mixbench.report.summary import (
    SHOWN_WORDS,
    compare_runs,
    figures,
    longest_timed,
    measured,
    strategies,
    train_rates,
    training_times,
)
from mixbench.report.tables import (
    DEMONSTRATION,
    ELSEWHERE,
    ELSEWHERE_HEADER,
    TRAINED_HEADER,
    elsewhere_cells,
    loader_remark,
    other_draws,
    timed_cells,
    timed_header,
    trained_cells,
)
from mixbench.report.template import data_url, template
from mixbench.runs.directory import RunDirectory
from mixbench.runs.merge import ReportData, Tables, read_settings, trained
from mixbench.runs.rows import RunRow, SpeedRow
from mixbench.runs.samples import GalleryEntry, ImageResults


def report_runs(
    directories: Sequence[Path],
    out: Path | None = None,
    *,
    mixed_machines: bool = False,
    class_names: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write report.html into the run's directory or `out`; the page's path.

    A damaged file is left out, and `say` is told of it. `class_names` is a file with what people
    call the classes, in place of the run's own.

    The tables and their Markdown page are written too where `out` is another directory: of several
    runs merged, of an older run with today's columns. Runs of several models, data or recipes get
    an overview. ValueError as `read_settings` and `check_class_names` say, where several runs are
    given without `out` or with one of them as `out`, and for class names of an overview.
    """
    if not directories:
        raise ValueError("name the directory of a run")
    inside = out is None or out.resolve() in [directory.resolve() for directory in directories]
    if len(directories) > 1 and inside:
        raise ValueError("several runs are merged into a directory of their own: give --out DIR")
    settings = read_settings(directories, mixed_machines=mixed_machines)
    if say is not None:
        for sentence in [sentence for data in settings for sentence in data.damaged]:
            say(sentence)
    places = RunDirectory(out or directories[0])
    if class_names is not None:
        for sentence in _rename(settings, class_names):
            if say is not None:
                say(sentence)
    if len(settings) > 1:
        if say is not None:
            say(f"{len(settings)} models, data sets or recipes: the report is an overview of them")
        entries = entries_of(settings)
        if not inside:
            write_overview(entries, places)
        replace_file(places.report, render_overview(entries))
        return places.report
    [data] = settings
    if not inside:
        write_merged(data, places)
    replace_file(places.report, render_report(data))
    return places.report


def _rename(settings: Sequence[ReportData], class_names: Path) -> list[str]:
    """Call the classes as a file does; a sentence where it leaves some out."""
    if len(settings) > 1:
        raise ValueError(
            f"--class-names {class_names}: an overview of several models, data sets or recipes "
            "shows no classes; report one of them alone"
        )
    [data] = settings
    data.class_names.update(read_class_names(class_names))
    unnamed = check_class_names(class_names, data.classes) if data.classes else None
    return [unnamed] if unnamed else []


# Pictures.


TRAINING_SPEED = "training speed, images a second (right is faster)"
TIMED_SPEED = "speed, ratio to CutMix (right is faster)"
PHASES = ("mix", "forward", "backward", "optimizer")


def _diagrams(data: ReportData, comparison: Paired | None) -> dict[str, str]:
    """The diagrams that the data allow, by name, as SVG text."""
    drawn: dict[str, str] = {}
    runs, speed = trained(data.tables.runs), longest_timed(data.tables.speed)
    alike = len({row.timed for row in speed}) == 1
    if alike:
        ratios = [row for row in speed if row.ratio_to_cutmix is not None]
        drawn |= {"ratios": ratio_figure(ratios)} if ratios else {}
    if comparison and any(summary.mean is not None for summary in comparison.summaries):
        drawn["accuracy"] = accuracy_figure(comparison)
        if any(difference.mean is not None for difference in comparison.differences):
            drawn["differences"] = difference_figure(comparison)
        costs = timed_costs(speed) if alike else {} if speed else training_costs(runs)
        if any(s.strategy in costs and s.mean is not None for s in comparison.summaries):
            label, band = (TIMED_SPEED, control_band(speed)) if speed else (TRAINING_SPEED, None)
            drawn["cost"] = cost_figure(comparison, costs, label, band)
    if data.logs and comparison:
        names = [summary.strategy for summary in comparison.summaries]
        column = "top1_ema" if any(row.headline == "ema" for row in runs) else "top1"
        drawn["curves"] = curves_figure(data.logs, column, "top-1 (%)", names)
        drawn["losses"] = curves_figure(data.logs, "train_loss", "training loss", names)
        validation = "val_nll_ema" if column == "top1_ema" else "val_nll"
        drawn["val_losses"] = curves_figure(data.logs, validation, "validation loss", names)
    images = _finished_images(data)
    if images and comparison:
        names = [summary.strategy for summary in comparison.summaries]
        drawn["reliability"] = reliability_figure(reliability(images, names))
    apart = {spec: each for spec, each in _shares(data).items() if not each.by_area}
    if apart:
        drawn["shares"] = shares_figure(apart)
    if comparison:
        gains = gains_figure(comparison, figures(runs, "label_error"))
        drawn |= {"gains": gains} if gains else {}
    return drawn


def _finished_images(data: ReportData) -> dict[tuple[str, int], ImageResults]:
    """The results of images of what came to its end."""
    finished = {(row.strategy, row.seed) for row in data.tables.runs if row.top1 is not None}
    return {key: each for key, each in data.images.items() if key in finished}


def _titles(data: ReportData) -> list[str]:
    """What each class is called, in the order of the labels."""
    named = class_titles(data.classes, data.class_names)
    titles = [named[folder] for folder in data.classes]
    return titles + [f"class {k}" for k in range(len(titles), class_count(data.images))]


def _without_images(data: ReportData) -> str:
    """Why figures of single images are not shown, or of which seeds not; '' where all have them."""
    finished = [row for row in trained(data.tables.runs) if row.top1 is not None]
    missing = [row for row in finished if (row.strategy, row.seed) not in data.images]
    if not missing:
        return ""
    older = "no images.npz, what was said of each validation image (older versions wrote none)"
    if len(missing) == len(finished):
        return f"Calibration and single classes are not shown: the run has {older}."
    some = [f"{row.strategy} seed {row.seed}" for row in missing[:3]]
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"Without {', '.join(some)}{more}, of which there is {older}."


def timed_costs(speed: Sequence[SpeedRow]) -> dict[str, Cost]:
    """The ratio to CutMix of each strategy that was timed, with its interval."""
    return {
        row.strategy: Cost(row.ratio_to_cutmix, row.ratio_lo, row.ratio_hi)
        for row in speed
        if row.ratio_to_cutmix is not None
    }


def training_costs(runs: Sequence[RunRow]) -> dict[str, Cost]:
    """The images a second of training of each strategy, with the range over the shared seeds.

    None of runs on different machines.
    """
    times = training_times(runs, "train_im_per_sec")
    return {
        name: Cost(mean, min(times[name]), max(times[name]))
        for name, mean in train_rates(runs).items()
    }


def _cost_caption(data: ReportData, answer: Answer, seeds: int) -> str:
    """What the picture of accuracy against speed shows."""
    interval = " with its 95 % interval (t)" if seeds > 1 else ""
    if answer.timed:
        speed = (
            f"against the speed of a timed step, of {answer.timed}. Accuracy is of "
            f"{answer.trained}. The grey band is CutMix timed against itself"
        )
    else:
        spread_ = ", with its range over the seeds" if seeds > 1 else ""
        speed = f"against the images a second of training, the loader included{spread_}"
    return (
        f"Mean top-1{interval} {speed}. Better is up and to the right; the dashed line joins those "
        "that no other beats in both. Marks whose bars overlap may change places."
    )


def _shares(data: ReportData) -> dict[str, Shares]:
    """The label shares of each strategy that has a sample of mixed images."""
    samples: dict[str, list[np.ndarray]] = {}
    for (spec, _), pairs in data.lam.items():
        samples.setdefault(spec, []).append(pairs)
    shares = {spec: shares_of(np.concatenate(each)) for spec, each in samples.items()}
    return {spec: each for spec, each in shares.items() if each is not None}


def _shares_words(shares: Mapping[str, Shares]) -> str:
    """Of how many images the picture of the shares is."""
    most = max((len(each.pairs) for each in shares.values()), default=0)
    shown = f", at most {MOST_POINTS} of a strategy shown" if most > MOST_POINTS else ""
    return f" of training (unmixed ones left out{shown})"


def _phases(speed: Sequence[SpeedRow]) -> list[tuple[str, ...]]:
    """The median milliseconds of a step's parts of each strategy that has them."""
    rows = [(row.strategy, [getattr(row, f"{phase}_ms") for phase in PHASES]) for row in speed]
    return [(name, *(cell(t, 1) for t in times)) for name, times in rows if None not in times]


def _gallery(data: ReportData) -> dict[str, list[tuple[GalleryEntry, dict[str, str]]]]:
    """The gallery's entries by strategy, each with its pictures as data URLs by field."""
    images: dict[str, list[tuple[GalleryEntry, dict[str, str]]]] = {}
    titles = class_titles(data.classes, data.class_names)
    for folder, entries in data.gallery.items():
        for entry in entries:
            names = ("image_a", "image_b", "mixed", "mask", "map")
            pictures = {
                name: data_url((folder / getattr(entry, name)).read_bytes(), "png")
                for name in names
            }
            a, b = (titles.get(name, name) for name in (entry.class_a, entry.class_b))
            entry = replace(entry, class_a=a, class_b=b)
            images.setdefault(entry.strategy, []).append((entry, pictures))
    return images


# The page.


def _distinct(tables: Tables, column: str) -> list[str]:
    rows: list[RunRow | SpeedRow] = [*tables.runs, *tables.speed]
    return sorted({getattr(row, column) for row in rows} - {None})


def _files(data: ReportData) -> list[tuple[str, object]]:
    """The names of a run's tables, each with the rows that it has."""
    return [
        ("comparison.csv", True),
        ("runs.csv", data.tables.runs),
        ("speed.csv", data.tables.speed),
        ("evaluations.csv", data.evaluations),
    ]


def render_report(data: ReportData) -> str:
    """The whole page as HTML text."""
    from markupsafe import Markup

    tables = data.tables
    comparison = compare_runs(tables.runs, data.correct)
    comparisons = comparison.comparisons or len(comparison.differences) if comparison else 0
    rows, speed = trained(tables.runs), measured(tables.speed)
    several = len({row.timed for row in speed}) > 1
    seeds = Counter(row.strategy for row in rows)
    most_seeds = max(seeds.values(), default=0)
    answer, shares = answer_of(tables, comparison), _shares(data)
    tested = evaluated(data.evaluations, strategies(tables))
    drawn = {
        each.kind: Markup(levels_figure(each, f"levels-{number}"))
        for number, each in enumerate(tested)
    }
    drawn_predictions = {each.kind: predictions(each, data, strategies(tables)) for each in tested}
    longest = max((log[-1].epoch + 1 for log in data.logs.values() if log), default=0)
    return template("page.html.j2").render(
        strategies=strategies(tables),
        rows=rows,
        first=rows[0] if rows else None,
        n=most_seeds,
        seed_words=seed_count(seeds.values()) if seeds else "",
        commands=data.commands,
        comparison=comparison,
        reference=reference_remarks(comparison) if comparison else [],
        sections=by_section(tested),
        predictions=drawn_predictions,
        levels=drawn,
        demonstration=DEMONSTRATION if any(row.of_scenes for row in rows) else "",
        failures=[*failures(tables), *data.damaged],
        table8_groups=TABLE8_GROUPS,
        table8_header=TABLE8_HEADER,
        table8_paper=len(TABLE8_HEADER) - PAPER_CELLS,
        table8=table8(tables, comparison),
        other_draws=" ".join(other_draws(strategies(tables))),
        elsewhere_title=ELSEWHERE,
        elsewhere_header=ELSEWHERE_HEADER,
        elsewhere=elsewhere_cells(strategies(tables)),
        answer=answer,
        shown_words=SHOWN_WORDS,
        trained_header=TRAINED_HEADER,
        trained_rows=trained_cells(tables.runs),
        scores_header=SCORES_HEADER,
        scores=scores_cells(tables.runs),
        classes=class_by_class(_finished_images(data), _titles(data), comparison),
        fewest=FEWEST,
        without_images=_without_images(data),
        figures={name: Markup(svg) for name, svg in _diagrams(data, comparison).items()},
        measured=speed,
        timed_header=timed_header(tables.speed),
        timed_rows=timed_cells(tables.speed),
        phases_header=["strategy", *(f"{phase} (ms)" for phase in PHASES)],
        phases=_phases(longest_timed(speed)),
        several_timings=several,
        loader=" ".join(loader_remark(tables.runs)),
        timed=answer.timed,
        cost_caption=_cost_caption(data, answer, most_seeds),
        by_area=[spec for spec, each in shares.items() if each.by_area],
        shares_words=_shares_words(shares),
        recipe=[(name, str(value)) for name, value in (data.recipe or {}).items()],
        files=[name for name, part in _files(data) if part],
        gallery=_gallery(data),
        devices=_distinct(tables, "device"),
        versions=_distinct(tables, "versions"),
        dates=_distinct(tables, "date"),
        recipes=sorted({row.recipe_hash for row in rows if row.recipe_hash}),
        long_run=longest >= LONG_RUN,
        sparse=any(row.top1 is None for log in data.logs.values() for row in log),
        comparisons=comparisons,
        needed=seeds_needed(max(1, comparisons)),
        validation_images=len(next(iter(data.correct.values())).right) if data.correct else None,
    )
