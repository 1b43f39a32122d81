"""What n seeds can show.

Paired differences with intervals and corrected tests, and one seed's images.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mixbench.report.numbers import bounds, cell, signed
from mixbench.runs.samples import Bitmap, Correct

LEVEL = 0.05
POWER = 0.8
MOST_SEEDS = 1000  # beyond which nobody is told how many would do
EQUAL = 1e-9  # percent points: what differs by less is rounding
FLIPS = 2**16  # of signs, at least: all that 16 seeds have

# by seed, in percent; None or not finite where the run gave no figure
Figures = Mapping[int, float | None]


@dataclass(frozen=True)
class Summary:
    """One strategy's figures over its seeds."""

    strategy: str
    values: dict[int, float]  # by seed
    missing: tuple[int, ...]  # seeds that gave no figure
    mean: float | None  # None where no seed gave one
    spread: float | None  # standard deviation; None with fewer than two seeds
    low: float | None  # 95 % t interval of the mean; None with fewer than two seeds
    high: float | None


@dataclass(frozen=True)
class Difference:
    """A strategy's figures minus the baseline's, paired by seed; None is what seeds cannot give."""

    strategy: str
    baseline: str
    values: dict[int, float]  # by seed
    mean: float | None
    low: float | None  # BCa bootstrap 95 % interval of the mean
    high: float | None
    p: float | None  # sign-flip test over the seeds; of one seed, McNemar's over the images
    corrected: float | None  # p by Holm's correction over the comparisons
    # the true difference that as many seeds show four times in five, at the spread seen
    smallest: float | None
    # seeds that find a true difference as large as that seen, four times in five; None where it is
    # 0 or already shown, or more than MOST_SEEDS are needed
    enough: int | None
    claimed: bool  # two seeds or more, the interval excludes 0 and the corrected p is below .05
    sentence: str


@dataclass(frozen=True)
class Paired:
    """Every strategy by itself, and every strategy but the baseline against it."""

    baseline: str
    summaries: tuple[Summary, ...]
    differences: tuple[Difference, ...]
    comparisons: int  # over the seeds, that the correction is for; of other settings too


@dataclass(frozen=True)
class Setting:
    """Figures by strategy of one model, data and recipe, and which images each seed had right."""

    figures: Mapping[str, Figures]
    correct: Correct


class McNemar(NamedTuple):
    """McNemar's test of two networks over the images."""

    p: float
    better: int  # images right with the first alone
    worse: int  # images right with the second alone


@dataclass(frozen=True)
class _Test:
    p: float
    corrected: float
    comparisons: int  # that the correction is for
    images: McNemar | None  # where one seed is tested over its images


def compare(
    figures: Mapping[str, Figures], *, baseline: str | None = None, correct: Correct | None = None
) -> Paired:
    """Compare figures in percent, by strategy and seed, with a baseline; what the seeds show.

    The baseline is cutmix where present, else the first strategy. Where one seed alone is paired,
    `correct` gives McNemar's test; seeds whose bitmaps there are of other images are not paired.
    ValueError where the baseline is not among the strategies.
    """
    if not figures:
        raise ValueError("there is no strategy to compare")
    baseline = baseline or default_baseline(figures)
    if baseline not in figures:
        raise ValueError(
            f"the baseline {baseline!r} is not among the strategies: choose one of "
            f"{', '.join(figures)}"
        )
    [paired] = _compare([Setting(figures, correct or {})], baseline)
    return paired


def compare_settings(settings: Sequence[Setting]) -> list[Paired]:
    """The comparisons in several settings with one baseline, corrected together; one for each."""
    return _compare(settings, common_baseline([setting.figures for setting in settings]))


def _compare(settings: Sequence[Setting], baseline: str) -> list[Paired]:
    summaries = [
        {name: _summary(name, by_seed) for name, by_seed in setting.figures.items()}
        for setting in settings
    ]
    pairs = [
        _paired(summary, baseline, setting.correct)
        for summary, setting in zip(summaries, settings, strict=True)
    ]
    tests = _tests(pairs, baseline, [setting.correct for setting in settings])
    most = max((len(values) for paired in pairs for values in paired.values()), default=0)
    comparisons = _comparisons(pairs)
    results = []
    for setting, summary, paired, test in zip(settings, summaries, pairs, tests, strict=True):
        differences = []
        for name, values in paired.items():
            difference = _difference(name, baseline, values, test.get(name))
            seeds = {*setting.figures[name], *setting.figures.get(baseline, ())}
            reference = summary[baseline].values if baseline in summary else {}
            shared = set(summary[name].values) & set(reference)
            left_out = _left_out(sorted(seeds - shared), sorted(shared - set(values)))
            sentence = _sentence(difference, test.get(name), most) + left_out
            differences.append(replace(difference, sentence=sentence))
        results.append(Paired(baseline, tuple(summary.values()), tuple(differences), comparisons))
    return results


def _paired(
    summaries: Mapping[str, Summary], baseline: str, correct: Correct
) -> dict[str, dict[int, float]]:
    """Each strategy's figures minus the baseline's, by seed."""
    reference = summaries[baseline].values if baseline in summaries else {}
    return {
        name: {
            seed: value - reference[seed]
            for seed, value in summary.values.items()
            if seed in reference and _same_images(correct, (name, seed), (baseline, seed))
        }
        for name, summary in summaries.items()
        if name != baseline
    }


def default_baseline(strategies: Collection[str]) -> str:
    """The strategy that others are compared with: cutmix where present, else the first."""
    return "cutmix" if "cutmix" in strategies else next(iter(strategies))


def common_baseline(settings: Sequence[Collection[str]]) -> str:
    """The baseline of several settings' strategies: one that all have, where there is such."""
    common = [name for name in settings[0] if all(name in names for names in settings)]
    return default_baseline(common or settings[0])


def hopeless(seeds: Mapping[str, Collection[int]]) -> str | None:
    """That the seeds by strategy can show no difference whatever comes out; None where they can."""
    baseline = default_baseline(seeds)
    reference = set(seeds[baseline])
    paired = [len(reference.intersection(s)) for name, s in seeds.items() if name != baseline]
    most = max(paired, default=0)
    # those of one seed are not tested, but would be once there are more
    comparisons = sum(n > 1 for n in paired) if most > 1 else len(paired)
    if not most or most >= seeds_needed(comparisons):
        return None
    many = f"{comparisons} comparison{'s' * (comparisons > 1)}"
    end = f"{seeds_needed(comparisons)} seeds are the least"
    if most == 1:
        return f"1 seed and {many}: no difference between strategies can be shown; {end}"
    corrected = " after correction" if comparisons > 1 else ""
    return f"{most} seeds and {many}: no p below .05 is possible{corrected}; {end}"


def _same_images(correct: Correct, ours: tuple[str, int], theirs: tuple[str, int]) -> bool:
    """Whether nothing shows that two runs were evaluated on different images."""
    if ours not in correct or theirs not in correct:
        return True
    return correct[ours].pairs_with(correct[theirs])


def _summary(name: str, by_seed: Figures) -> Summary:
    values = {
        seed: float(value)
        for seed, value in by_seed.items()
        if value is not None and math.isfinite(value)
    }
    missing = tuple(seed for seed in by_seed if seed not in values)
    numbers = list(values.values())
    spread = low = high = None
    mean = float(np.mean(numbers)) if numbers else None
    if mean is not None and len(numbers) > 1:
        from scipy import stats

        spread = float(np.std(numbers, ddof=1))
        half = float(stats.t.isf(LEVEL / 2, len(numbers) - 1)) * spread / math.sqrt(len(numbers))
        low, high = mean - half, mean + half
    return Summary(name, values, missing, mean, spread, low, high)


def _comparisons(pairs: Sequence[Mapping[str, Mapping[int, float]]]) -> int:
    """How many strategies of all settings are tested over seeds."""
    return sum(len(values) > 1 for paired in pairs for values in paired.values())


def _tests(
    pairs: Sequence[Mapping[str, Mapping[int, float]]],
    baseline: str,
    correct: Sequence[Correct],
) -> list[dict[str, _Test]]:
    """The test of each strategy that has one, by setting: over its seeds, or one seed's images."""
    by_seeds: dict[tuple[int, str], float] = {}
    by_images: dict[tuple[int, str], McNemar] = {}
    comparisons = _comparisons(pairs)
    for place, paired in enumerate(pairs):
        for name, values in paired.items():
            if len(values) > 1:
                by_seeds[place, name] = sign_flip_p(list(values.values()), comparisons)
            for seed in values if len(values) == 1 else ():
                ours = correct[place].get((name, seed))
                theirs = correct[place].get((baseline, seed))
                if ours is not None and theirs is not None:
                    by_images[place, name] = mcnemar(ours, theirs)
    tests: list[dict[str, _Test]] = [{} for _ in pairs]
    # the images answer another question, so that they are a family of their own
    for family in (by_seeds, {key: result.p for key, result in by_images.items()}):
        corrected = holm(list(family.values()))
        for ((place, name), p), p_holm in zip(family.items(), corrected, strict=True):
            tests[place][name] = _Test(p, p_holm, len(family), by_images.get((place, name)))
    return tests


def _difference(
    name: str, baseline: str, values: dict[int, float], test: _Test | None
) -> Difference:
    """A difference without its sentence."""
    numbers = list(values.values())
    low = high = smallest = None
    if len(numbers) > 1:
        assert test is not None
        low, high = bca_interval(numbers)
        smallest = smallest_difference(numbers, test.comparisons)
    excludes_zero = low is not None and high is not None and (low > EQUAL or high < -EQUAL)
    claimed = excludes_zero and test is not None and test.corrected < LEVEL
    several = len(numbers) > 1 and test is not None and not claimed
    return Difference(
        name,
        baseline,
        values,
        mean=float(np.mean(numbers)) if numbers else None,
        low=low,
        high=high,
        p=test.p if test else None,
        corrected=test.corrected if test else None,
        smallest=smallest,
        enough=enough_seeds(numbers, test.comparisons) if several and test else None,
        claimed=claimed,
        sentence="",
    )


# The sentences.


def _sentence(difference: Difference, test: _Test | None, most: int) -> str:
    """What the difference shows and what it does not, in plain words.

    `most` seeds are paired in the best of the comparisons.
    """
    name, baseline, n = difference.strategy, difference.baseline, len(difference.values)
    if difference.mean is None:
        return (
            f"{name} and {baseline} have no seed in common that gave a figure on the same images: "
            "nothing can be compared."
        )
    if n == 1:
        return _of_one_seed(difference, test)
    if max(map(abs, difference.values.values())) < EQUAL:
        return f"{name} and {baseline} are equal in each of {n} seeds: no difference."
    assert test is not None
    return _of_seeds(difference, test, most)


def _left_out(missing: Sequence[int], other_images: Sequence[int]) -> str:
    """Sentences on the seeds that are not paired, each with its reason; '' where all are."""
    reasons = {
        " Left out, for want of a figure on both sides": missing,
        " Not paired, since the two were evaluated on different images": other_images,
    }
    return "".join(
        f"{words}: seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}."
        for words, seeds in reasons.items()
        if seeds
    )


def _of_one_seed(difference: Difference, test: _Test | None) -> str:
    name, baseline = difference.strategy, difference.baseline
    text = (
        f"{name} against {baseline}: {signed(difference.mean)} points in one seed, "
        "which cannot tell the strategies apart."
    )
    if test is None or test.images is None:
        return text
    verdict = "differ beyond the chance of" if test.corrected < LEVEL else "cannot be told apart on"
    return (
        f"{text} The two trained networks {verdict} these images: {_images(test.images.better)} "
        f"right with {name} alone, {_images(test.images.worse)} with {baseline} alone, McNemar p "
        f"{_p(test.corrected)}{_correction(test)}. Another seed may say otherwise."
    )


def _of_seeds(difference: Difference, test: _Test, most: int) -> str:
    name, baseline, n = difference.strategy, difference.baseline, len(difference.values)
    comparisons = test.comparisons
    shown = (
        f"{signed(difference.mean)} points {bounds(difference.low, difference.high)}, p "
        f"{_p(test.corrected)}{_correction(test)}"
    )
    if difference.claimed:
        side = "higher" if (difference.mean or 0) > 0 else "lower"
        return f"{name} is {side} than {baseline}: {shown}, {n} seeds."
    text = f"{name} against {baseline}: {shown}; not resolvable with {n} seeds."
    if n < seeds_needed() or most < seeds_needed(comparisons):
        lowest = (
            f"2/2^{n}" if n < seeds_needed() or comparisons == 1 else f"{comparisons} x 2/2^{most}"
        )
        return (
            f"{text} So few can show no difference, since p cannot be below {lowest}: it takes "
            f"{seeds_needed(comparisons)} seeds.{_more_seeds(difference)}"
        )
    if difference.smallest is not None and difference.smallest > EQUAL:
        text += (
            f" A true difference of about {cell(difference.smallest, 2)} points would be found "
            f"by {n} seeds four times in five."
        )
    return text + _more_seeds(difference)


def _more_seeds(difference: Difference) -> str:
    """How many seeds would find the difference seen; nothing where it is 0."""
    if difference.mean is None or abs(difference.mean) < EQUAL:
        return ""
    if difference.enough is None:
        return f" A difference as small as that seen takes more than {MOST_SEEDS:,} seeds."
    return (
        f" If the difference seen is the true one, about {difference.enough} seeds would find it "
        "four times in five."
    )


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _p(value: float) -> str:
    return "below 0.0001" if value < 0.0001 else f"= {value:.2g}"


def _correction(test: _Test) -> str:
    return f" (corrected for {test.comparisons} comparisons)" if test.comparisons > 1 else ""


# The tests.


def bca_interval(differences: Sequence[float], draws: int = 9999) -> tuple[float, float]:
    """The 95 % BCa bootstrap interval of the mean, by scipy; equal differences give it twice.

    With few seeds it is too narrow: of normal differences it covers the truth 71 % of the time for
    3, 83 % for 5, 90 % for 8 to 10.
    """
    from scipy import stats

    values = np.asarray(differences, float)
    if np.ptp(values) < EQUAL:
        return float(values.mean()), float(values.mean())
    interval = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=draws, rng=0
    ).confidence_interval
    return float(interval.low), float(interval.high)


def sign_flip_p(differences: Sequence[float], comparisons: int = 1) -> float:
    """The two-sided p of the mean under all flips of signs, by scipy.

    It is exact up to 16 seeds, and from 65,536 random flips beyond; for more than 327 comparisons
    from more, since the least p of so few would not survive the correction. Means that differ by
    rounding alone are equal: scipy takes some of them for smaller.
    """
    from scipy import stats

    values = np.asarray(differences, float)
    flips = max(FLIPS, 200 * comparisons)
    means = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=flips, rng=0
    ).null_distribution
    as_far = int((np.abs(means) >= abs(values.mean()) - EQUAL).sum())
    drawn = 0 if 2 ** len(values) <= flips else 1  # what was seen is one of those drawn
    return (as_far + drawn) / (len(means) + drawn)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given.

    It is the k-th smallest of m times m - k + 1, never below a smaller p's, at most 1.
    """
    corrected, floor = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = floor
    return corrected


def seeds_needed(comparisons: int = 1) -> int:
    """The fewest seeds whose smallest sign-flip p, 2 / 2^n, is below .05 after correction.

    They are 6 for one comparison.
    """
    return next(n for n in range(1, 64) if comparisons * 2 / 2**n < LEVEL)


def smallest_difference(differences: Sequence[float], comparisons: int = 1) -> float | None:
    """The true mean difference that as many seeds would show four times in five.

    Their spread is taken to be that seen. By the paired t test at level .05 / comparisons; where
    only equal signs of all seeds reach that level, by their chance. None where so few seeds can
    show none.
    """
    from scipy import stats

    n, level = len(differences), LEVEL / comparisons
    if n < seeds_needed(comparisons):
        return None
    t = stats.t(n - 1)
    effect = (t.isf(level / 2) + t.isf(1 - POWER)) / math.sqrt(n)
    if 4 / 2**n >= level:
        effect = max(effect, stats.norm.isf(1 - POWER ** (1 / n)))
    return float(np.std(differences, ddof=1) * effect)


def enough_seeds(differences: Sequence[float], comparisons: int = 1) -> int | None:
    """The seeds, more than these, that find a true difference like the one seen 4 times in 5.

    Mean and spread are taken to be those seen. By the paired t test's noncentral t at level
    .05 / comparisons; where only equal signs of all seeds reach that level, by their chance if it
    is less. None where the mean is 0, or MOST_SEEDS are too few.
    """
    from scipy import stats

    mean, spread = abs(float(np.mean(differences))), float(np.std(differences, ddof=1))
    if mean < EQUAL:
        return None
    effect = min(mean / max(spread, EQUAL), 10.0)  # any number of seeds finds the largest
    least, level = seeds_needed(comparisons), LEVEL / comparisons
    n = np.arange(max(least, len(differences) + 1), MOST_SEEDS + 1)
    critical = stats.t.isf(level / 2, n - 1)
    power = stats.nct.sf(critical, n - 1, effect * np.sqrt(n))
    equal_signs = stats.norm.cdf(effect) ** n
    power = np.where(4 / 2.0**n >= level, np.minimum(power, equal_signs), power)
    reached = np.flatnonzero(power >= POWER)
    return int(n[reached[0]]) if reached.size else None


def mcnemar(ours: Bitmap, theirs: Bitmap) -> McNemar:
    """McNemar's exact two-sided p over the images, with the images that one side alone has right.

    ValueError where they are of different images.
    """
    from scipy import stats

    if not ours.pairs_with(theirs):
        raise ValueError(
            "the two runs were evaluated on different images: compare runs on the same"
        )
    better = int((ours.right & ~theirs.right).sum())
    worse = int((~ours.right & theirs.right).sum())
    p = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    return McNemar(float(p), better, worse)
