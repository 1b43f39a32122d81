"""The answer of a comparison: a table of strategies, then a sentence; the first of every view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mixbench.report.numbers import difference, interval, p_value, params, seed_count, spread
from mixbench.report.significance import Difference, Paired, seeds_needed
from mixbench.report.summary import (
    FASTER,
    SHOWN_WORDS,
    SLOWER,
    longest_timed,
    measured,
    rows_of,
    speed_verdict,
)
from mixbench.runs.merge import Tables, trained
from mixbench.runs.rows import ComparisonRow, RunRow, SpeedRow
from mixbench.visible import LONGEST, shortened

FEW = 4  # strategies that a sentence names, of those that it has nothing to say of
RATIO = "speed, ratio to CutMix [95 %]"
SEVERAL = "several, below"  # timings of unlike models or machines


@dataclass(frozen=True)
class Answer:
    """What every view begins with; the columns after the first are of training, then of timing."""

    header: Sequence[str]
    rows: Sequence[tuple[str, ...]]
    of_training: int  # columns
    of_timing: int
    sentence: str
    trained: str  # what was trained, '' if nothing
    timed: str  # what was timed, and where, '' if nothing


def answer_of(tables: Tables, comparison: Paired | None) -> Answer:
    """The answer that the rows give, with the numbers of `comparison.csv`."""
    rows, speed = rows_of(tables, comparison), longest_timed(tables.speed)
    header, columns = ["strategy"], [[row.strategy for row in rows]]
    if comparison:
        header += ["top-1 (%)", f"difference to {shortened(comparison.baseline)} [95 %]", "verdict"]
        columns += [
            _top1(rows, tables.runs),
            [difference(row.difference, row.difference_lo, row.difference_hi) for row in rows],
            [_verdict(row) for row in rows],
        ]
    of_training = len(header) - 1
    if tables.speed:
        header += [RATIO, "verdict on speed"]
        columns += [
            [_ratio(row, tables.speed) for row in rows],
            [row.speed_verdict or "-" for row in rows],
        ]
    return Answer(
        header=header,
        rows=list(zip(*columns, strict=True)),
        of_training=of_training,
        of_timing=len(header) - 1 - of_training,
        sentence=answer_sentence(comparison, speed),
        trained=trained_words(tables.runs),
        timed=timed_words(speed),
    )


def _top1(rows: Sequence[ComparisonRow], runs: Sequence[RunRow]) -> list[str]:
    """Mean and deviation of each row, or what went wrong.

    With its seeds where some gave no figure, or where strategies have more or fewer: their means
    are then not as far apart as the differences say, which are of the seeds that both have.
    """
    trained = Counter(run.strategy for run in runs)
    whole = {
        row.seeds for row in rows if row.top1 is not None and row.seeds == trained[row.strategy]
    }
    cells = []
    for row in rows:
        if row.top1 is None:
            every = (run.status for run in runs if run.strategy == row.strategy)
            cells.append(shortened(next((one for one in every if one != "ok"), "-"), LONGEST))
            continue
        count, seeds = trained[row.strategy], ""
        if row.seeds != count:
            seeds = f" ({row.seeds} of {count} seeds)"
        elif len(whole) > 1:
            seeds = f" ({seed_count([count])})"
        cells.append(spread(row.top1, row.top1_sd) + seeds)
    return cells


def _verdict(row: ComparisonRow) -> str:
    """What the difference shows; where nothing, with its p, since an interval may exclude 0 yet."""
    if row.verdict in SHOWN_WORDS or row.p_corrected is None:
        return row.verdict or "-"
    return f"{row.verdict} (p {p_value(row.p_corrected)})"


def _ratio(row: ComparisonRow, speed: Sequence[SpeedRow]) -> str:
    if row.ratio_to_cutmix is not None:
        return interval(row.ratio_to_cutmix, row.ratio_lo, row.ratio_hi, 3)
    rows = [timed for timed in speed if timed.strategy == row.strategy]
    if measured(rows):
        return SEVERAL
    return shortened(next((timed.status for timed in rows), "-"), LONGEST)


# What was trained and what was timed.


def trained_words(runs: Iterable[RunRow]) -> str:
    """What was trained, in words; '' without a trained row."""
    rows = trained(runs)
    if not rows:
        return ""
    first, seeds = rows[0], Counter(row.strategy for row in rows)
    size = "" if first.params_m is None else f" ({params(first.params_m)} parameters)"
    images = "" if first.train_images is None else f", {first.train_images:,} images"
    epochs = "" if first.epochs is None else f", {_many(first.epochs, 'epoch')}"
    return (
        f"{first.model}{size} at {first.image_size} px on {first.dataset}{images}{epochs}, "
        f"{seed_count(seeds.values())}"
    )


def timed_words(speed: Iterable[SpeedRow]) -> str:
    """What was timed, and where."""
    return "; ".join(dict.fromkeys(_timed(row) for row in speed))


def _timed(row: SpeedRow) -> str:
    if row.timed_model is None or row.timed_params_m is None:
        return row.timed
    size = f"{row.timed_model} ({params(row.timed_params_m)} parameters)"
    return row.timed.replace(row.timed_model, size, 1)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


# The sentence.


def answer_sentence(comparison: Paired | None, speed: Sequence[SpeedRow]) -> str:
    """What was shown and what could not be, of accuracy and of speed, in one sentence."""
    parts = [_of_accuracy(comparison), _of_speed(speed)]
    text = "; ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _of_accuracy(comparison: Paired | None) -> str:
    if comparison is None:
        return "nothing was trained"
    compared = [each for each in comparison.differences if each.mean is not None]
    if not compared:
        return "there are no two strategies whose accuracy could be compared"
    baseline = shortened(comparison.baseline)
    higher = [each.strategy for each in compared if each.claimed and (each.mean or 0) > 0]
    lower = [each.strategy for each in compared if each.claimed and (each.mean or 0) < 0]
    unclear = [each.strategy for each in compared if not each.claimed]
    if not higher and not lower:
        return _nothing_shown(compared, baseline, comparison.comparisons)
    seeds = seed_count([len(each.values) for each in compared if each.claimed])
    text = f"{seeds} show "  # one alone claims nothing
    if higher:
        text += f"{_listed(higher)} to be more accurate than {baseline}"
        text += f", and {_listed(lower)} less" if lower else ""
    else:
        text += f"{_listed(lower)} to be less accurate than {baseline}"
    return f"{text}; {_names(unclear)} could not be told from it" if unclear else text


def _nothing_shown(compared: Sequence[Difference], baseline: str, comparisons: int) -> str:
    names = _names([each.strategy for each in compared])
    counts = [len(each.values) for each in compared]
    most, seeds = max(counts), seed_count(counts)
    needed = seeds_needed(max(1, comparisons if most > 1 else len(compared)))
    if most < needed:
        return (
            f"{seeds} {'is' if most == 1 else 'are'} too few to tell {names} from {baseline} by "
            f"accuracy (it takes {needed})"
        )
    return f"with {seeds} {names} could not be told from {baseline} by accuracy"


def _of_speed(speed: Sequence[SpeedRow]) -> str:
    if not speed:
        return "speed was not measured"
    if len({row.timed for row in speed}) > 1:
        return "speeds are of several models or machines, and are compared below"
    words = {row.strategy: speed_verdict(row) for row in speed if row.strategy != "cutmix"}
    by_word = {
        word: [name for name, each in words.items() if each == word] for word in (FASTER, SLOWER)
    }
    shown = [f"{_verb(names)} {word}" for word, names in by_word.items() if names]
    unclear = [name for name in words if not any(name in names for names in by_word.values())]
    if unclear:
        shown.append(f"no difference of speed was shown for {_names(unclear)}")
    return "; ".join(shown) or "of speed there is nothing to compare"


def _verb(names: Sequence[str]) -> str:
    return f"{_listed(names)} {'is' if len(names) == 1 else 'are'}"


def _names(names: Sequence[str]) -> str:
    """The strategies, or of many how many they are."""
    return _listed(names) if len(names) <= FEW else f"{len(names)} strategies"


def _listed(names: Sequence[str]) -> str:
    *others, last = (shortened(name) for name in names)
    return f"{', '.join(others)} and {last}" if others else last
