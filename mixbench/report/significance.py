"""What n seeds can show: paired differences with intervals and corrected tests, one seed's images, and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

LEVEL = 0.05


POWER = 0.8


EQUAL = 1e-9  # percent points: what differs by less is rounding


Figures = Mapping[
    int, float | None
]  # by seed, in percent; None or not finite where the run gave no figure


Correct = Mapping[
    tuple[str, int], np.ndarray
]  # by strategy and seed: (N,) bool, the validation images that were right


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
    """A strategy's figures minus the baseline's, paired by seed; what the seeds cannot give is None."""

    strategy: str
    baseline: str
    values: dict[int, float]  # by seed
    mean: float | None
    low: float | None  # BCa bootstrap 95 % interval of the mean
    high: float | None
    p: float | None  # sign-flip test over the seeds; of one seed, McNemar's over the images
    corrected: float | None  # p by Holm's correction over the strategies
    smallest: (
        float | None
    )  # the true difference that as many seeds show four times in five, at the spread seen
    claimed: bool  # two seeds or more, the interval excludes 0 and the corrected p is below .05
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """Every strategy by itself, and every strategy but the baseline against it."""

    baseline: str
    summaries: tuple[Summary, ...]
    differences: tuple[Difference, ...]


def compare(
    figures: Mapping[str, Figures], *, baseline: str | None = None, correct: Correct | None = None
) -> Comparison:
    """Compare figures in percent, by strategy and seed, with a baseline: cutmix where present, else the first strategy.

    Where one seed alone is paired, `correct` gives McNemar's test. ValueError where the baseline is not among the strategies.
    """
    if not figures:
        raise ValueError("there is no strategy to compare")
    baseline = baseline or ("cutmix" if "cutmix" in figures else next(iter(figures)))
    if baseline not in figures:
        raise ValueError(
            f"the baseline {baseline!r} is not among the strategies: choose one of {', '.join(figures)}"
        )
    summaries = {name: _summary(name, by_seed) for name, by_seed in figures.items()}
    reference = summaries[baseline].values
    paired = {
        name: {
            seed: value - reference[seed]
            for seed, value in summary.values.items()
            if seed in reference
        }
        for name, summary in summaries.items()
        if name != baseline
    }
    by_seeds = {
        name: sign_flip_p(list(values.values()))
        for name, values in paired.items()
        if len(values) > 1
    }
    by_images: dict[str, float] = {}  # another question, so a family of its own
    discordant: dict[str, tuple[int, int]] = {}
    for name, values in paired.items():
        if len(values) == 1 and correct is not None:
            [seed] = values
            ours, theirs = correct.get((name, seed)), correct.get((baseline, seed))
            if ours is not None and theirs is not None:
                by_images[name], better, worse = mcnemar(ours, theirs)
                discordant[name] = better, worse
    raw = by_seeds | by_images
    corrected = {
        name: p
        for family in (by_seeds, by_images)
        for name, p in zip(family, holm(list(family.values())), strict=True)
    }
    most = max(map(len, paired.values()), default=0)
    differences = []
    for name, values in paired.items():
        numbers = list(values.values())
        low, high = bca_interval(numbers) if len(numbers) > 1 else (None, None)
        p_holm = corrected.get(name)
        excludes_zero = low is not None and high is not None and low * high > 0
        unpaired = sorted((set(figures[name]) | set(figures[baseline])) - set(values))
        difference = Difference(
            name,
            baseline,
            values,
            mean=float(np.mean(numbers)) if numbers else None,
            low=low,
            high=high,
            p=raw.get(name),
            corrected=p_holm,
            smallest=smallest_difference(numbers, len(by_seeds)) if len(numbers) > 1 else None,
            claimed=excludes_zero
            and max(map(abs, numbers)) >= EQUAL
            and p_holm is not None
            and p_holm < LEVEL,
            sentence="",
        )
        family = by_seeds if name in by_seeds else by_images
        differences.append(
            replace(
                difference,
                sentence=_sentence(difference, len(family), most, discordant.get(name), unpaired),
            )
        )
    return Comparison(baseline, tuple(summaries.values()), tuple(differences))


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


def _sentence(
    difference: Difference,
    comparisons: int,
    most: int,
    discordant: tuple[int, int] | None,
    unpaired: Sequence[int],
) -> str:
    """What the difference shows and what it does not, in plain words; `most` seeds are paired in the best of the comparisons."""
    name, baseline, n = difference.strategy, difference.baseline, len(difference.values)
    if difference.mean is None:
        return f"{name} and {baseline} have no seed in common that gave a figure: nothing can be compared."
    numbers = list(difference.values.values())
    size = f"{difference.mean:+.2f} points"
    tests = f" (corrected for {comparisons} comparisons)" if comparisons > 1 else ""
    if n == 1:
        text = f"{name} against {baseline}: {size} in one seed, which cannot tell the strategies apart."
        if discordant is not None and difference.corrected is not None:
            better, worse = discordant
            verdict = (
                "differ beyond the chance of"
                if difference.corrected < LEVEL
                else "cannot be told apart on"
            )
            text += (
                f" The two trained networks {verdict} these images: {_images(better)} right with {name} alone, {_images(worse)} "
                f"with {baseline} alone, McNemar p {_p(difference.corrected)}{tests}. Another seed may say otherwise."
            )
    elif max(map(abs, numbers)) < EQUAL:
        text = f"{name} and {baseline} are equal in each of {n} seeds: no difference."
    else:
        shown = f"{size} [{difference.low:+.2f}, {difference.high:+.2f}], p {_p(difference.corrected)}{tests}"
        if difference.claimed:
            side = "higher" if difference.mean > 0 else "lower"
            text = f"{name} is {side} than {baseline}: {shown}, {n} seeds."
        else:
            text = f"{name} against {baseline}: {shown}; not resolvable with {n} seeds."
            if n < seeds_needed() or most < seeds_needed(comparisons):
                lowest = (
                    f"2/2^{n}"
                    if n < seeds_needed() or comparisons == 1
                    else f"{comparisons} x 2/2^{most}"
                )
                text += f" So few can show no difference, since p cannot be below {lowest}: it takes {seeds_needed(comparisons)} seeds."
            elif difference.smallest is not None and difference.smallest > EQUAL:
                text += f" A true difference of about {difference.smallest:.2f} points would be found by {n} seeds four times in five."
    if unpaired:
        text += f" Left out, for want of a figure on both sides: seed{'s' * (len(unpaired) > 1)} {', '.join(map(str, unpaired))}."
    return text


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _p(value: float | None) -> str:
    assert value is not None
    return "below 0.0001" if value < 0.0001 else f"= {value:.2g}"


# The tests.


def bca_interval(differences: Sequence[float], draws: int = 9999) -> tuple[float, float]:
    """The 95 % BCa bootstrap interval of the mean, by scipy; equal differences give that one number twice.

    With few seeds it is too narrow: of normal differences it covers the truth 71 % of the time for 3, 83 % for 5, 90 % for 8 to 10.
    """
    from scipy import stats

    values = np.asarray(differences, float)
    if np.ptp(values) < EQUAL:
        return float(values.mean()), float(values.mean())
    interval = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=draws, rng=0
    ).confidence_interval
    return float(interval.low), float(interval.high)


def sign_flip_p(differences: Sequence[float]) -> float:
    """The two-sided p of the mean under all flips of signs, by scipy: exact up to 13 seeds, from 9,999 random flips beyond."""
    from scipy import stats

    values = np.asarray(differences, float)
    test = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=9999, rng=0
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given: the k-th smallest of m times m - k + 1, never below a smaller one's, at most 1."""
    corrected, floor = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = floor
    return corrected


def seeds_needed(comparisons: int = 1) -> int:
    """The fewest seeds whose smallest possible sign-flip p, 2 / 2^n, is below .05 after correction: 6 for one comparison."""
    return next(n for n in range(1, 64) if comparisons * 2 / 2**n < LEVEL)


def smallest_difference(differences: Sequence[float], comparisons: int = 1) -> float | None:
    """The true mean difference that as many seeds would show four times in five, were their spread the one seen.

    By the paired t test at level .05 / comparisons; where only equal signs of all seeds reach that level, by their chance.
    None where so few seeds can show none.
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


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, int, int]:
    """McNemar's exact two-sided p over the images, with the number right in `ours` alone and in `theirs` alone; both (N,) bool."""
    from scipy import stats

    if ours.shape != theirs.shape:
        raise ValueError(
            f"the two runs were evaluated on {ours.size:,} and {theirs.size:,} images: compare runs on the same data"
        )
    better, worse = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    p = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    return float(p), better, worse
