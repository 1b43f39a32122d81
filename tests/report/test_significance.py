"""The statistics are scipy's, claim no more than they may, and say in words what they cannot."""

import itertools
import re
import warnings

import numpy as np
import pytest
from scipy import stats

from mixbench.report import significance
from mixbench.report.significance import (
    bca_interval,
    compare,
    enough_seeds,
    holm,
    hopeless,
    mcnemar,
    seeds_needed,
    sign_flip_p,
    smallest_difference,
)
from mixbench.runs.samples import Bitmap

pytestmark = pytest.mark.filterwarnings("error")
SIGNS = [(1, *signs) for signs in itertools.product((1, -1), repeat=7)]  # the others mirror them


def against_cutmix(differences):
    """The difference of one strategy whose seeds lie `differences` above cutmix."""
    figures = {
        "cutmix": dict.fromkeys(range(len(differences)), 0.0),
        "new": dict(enumerate(differences)),
    }
    [result] = compare(figures).differences
    return result


def test_equals_scipy_on_the_same_numbers():
    values = np.random.default_rng(1).normal(0.3, 1, 9)
    result = against_cutmix(values)
    interval = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=9999, rng=0
    ).confidence_interval
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert (
        result.p
        == stats.permutation_test(
            (values,), np.mean, permutation_type="samples", n_resamples=np.inf
        ).pvalue
    )
    [_, new] = compare({"cutmix": {0: 1.0}, "new": dict(enumerate(values))}).summaries
    assert (new.low, new.high) == pytest.approx(
        stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    )
    assert new.spread == pytest.approx(stats.tstd(values))


def test_sign_flips_by_hand():
    values = [0.5, -0.2, 0.9, 0.4, 0.1]
    means = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=5)]
    assert sign_flip_p(values) == pytest.approx(np.mean([m >= sum(values) - 1e-12 for m in means]))
    assert sign_flip_p([1.0, 2.0, 3.0]) == 2 / 8


@pytest.mark.parametrize("images", [300, 1000, 1500, 3925])
@pytest.mark.parametrize("digits", [None, 12], ids=["as measured", "as written"])
def test_ties_of_the_sign_flips_are_those_of_whole_images(images, digits):
    """Counted in whole numbers: top-1 in percent is no multiple of 0.001, and sums of it round."""
    rng, tied = np.random.default_rng(images), 0
    for _ in range(40):
        right = rng.integers(images // 2, images // 2 + 12, (2, 8))
        ours, theirs = 100 * right / images
        if digits:
            ours, theirs = ours.round(digits), theirs.round(digits)
        sums = [abs(np.dot(signs, right[0] - right[1])) for signs in SIGNS]
        tied += sums.count(sums[0]) > 2
        assert sign_flip_p(ours - theirs) == np.mean([each >= sums[0] for each in sums])
    assert tied > 20


def test_an_interval_that_ends_at_zero_does_not_exclude_it(monkeypatch):
    values = [0.1] * 9
    monkeypatch.setattr(significance, "bca_interval", lambda numbers: (3.6e-15, 0.2))
    assert not against_cutmix(values).claimed
    monkeypatch.setattr(significance, "bca_interval", lambda numbers: (0.001, 0.2))
    assert against_cutmix(values).claimed


def test_holm_by_hand():
    # 3 x .01, 2 x .02, 1 x .03 held up to .04; ties; beyond 1
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.6]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


def test_a_comparison_without_a_true_difference_is_rarely_claimed():
    rng = np.random.default_rng(0)
    claims = sum(against_cutmix(rng.normal(0, 1, 8)).claimed for _ in range(1000))
    assert 10 <= claims <= 60


def test_two_standard_deviations_are_found():
    rng = np.random.default_rng(0)
    assert sum(against_cutmix(rng.normal(2, 1, 8)).claimed for _ in range(300)) >= 240


@pytest.mark.parametrize(("seeds", "comparisons"), [(6, 1), (8, 1), (8, 4), (10, 4)])
def test_the_smallest_difference_is_found_about_four_times_in_five(seeds, comparisons):
    unit = np.random.default_rng(0).normal(0, 1, seeds)
    unit = (unit - unit.mean()) / unit.std(ddof=1)
    effect = smallest_difference(unit, comparisons)
    claims = [
        sign_flip_p(v) * comparisons < 0.05
        for v in np.random.default_rng(1).normal(effect, 1, (300, seeds))
    ]
    assert 0.72 <= np.mean(claims) <= 0.88


def test_too_few_seeds_can_show_nothing():
    assert [seeds_needed(k) for k in (1, 2, 5)] == [6, 7, 8]
    result = against_cutmix([1.0, 1.1, 1.2, 0.9, 1.0])
    assert not result.claimed and result.smallest is None and result.low > 0
    assert (
        "not resolvable with 5 seeds" in result.sentence
        and "p cannot be below 2/2^5: it takes 6 seeds" in result.sentence
    )
    assert against_cutmix([1.0, 1.1, 1.2, 0.9, 1.0, 1.1]).claimed


@pytest.mark.parametrize("comparisons", range(1, 7))
def test_seeds_are_hopeless_where_the_best_data_would_show_nothing(comparisons):
    names = ["cutmix", *(f"s{k}" for k in range(comparisons))]
    shown = {}
    for n in range(1, 10):
        best = {name: {s: float(i) + i * s / 100 for s in range(n)} for i, name in enumerate(names)}
        shown[n] = any(d.claimed for d in compare(best).differences)
        text = hopeless(dict.fromkeys(names, range(n)))
        assert (text is None) == shown[n], (n, text)
        if not shown[n]:
            assert f"{n} seed" in text and f"{comparisons} comparison" in text
            assert int(re.search(r"(\d+) seeds are the least", text)[1]) == comparisons_need(
                comparisons
            )
    assert min(n for n in shown if shown[n]) == comparisons_need(comparisons)


def comparisons_need(comparisons):
    """2 / 2^n below .05 / comparisons, by hand."""
    return {1: 6, 2: 7, 3: 7, 4: 8, 5: 8, 6: 8}[comparisons]


def test_many_comparisons_do_not_outgrow_the_random_flips():
    """300 of them need 14 seeds, and show a difference with 14 and with 15."""
    names = ["cutmix", *map(str, range(300))]
    assert seeds_needed(300) == 14
    for n in (13, 14, 15):
        values = {s: 1 + s / 100 for s in range(n)}
        corrected = sign_flip_p(list(values.values()), 300) * 300
        assert (corrected < 0.05) == (hopeless(dict.fromkeys(names, values)) is None) == (n > 13)


def test_what_is_hopeless_depends_on_the_seeds_in_common():
    six, seven = range(6), range(7)
    assert hopeless({"cutmix": six, "a": six, "b": six, "c": six}) == (
        "6 seeds and 3 comparisons: no p below .05 is possible after correction; 7 seeds are the "
        "least"
    )
    assert hopeless({"cutmix": seven, "a": seven, "b": six, "c": six}) is None
    assert hopeless({"a": seven, "b": six, "cutmix": range(5)}).startswith("5 seeds and 2")
    assert hopeless({"a": six, "b": range(5)}) == (
        "5 seeds and 1 comparison: no p below .05 is possible; 6 seeds are the least"
    )
    # what has one seed alone is no comparison of the correction
    assert hopeless({"cutmix": six, "a": six, "b": [0], "c": [0]}) is None
    assert hopeless({"cutmix": six}) is None and hopeless({"a": [0], "b": [1]}) is None


@pytest.mark.parametrize(("effect", "comparisons"), [(2.0, 1), (1.3, 1), (1.3, 3), (1.0, 3)])
def test_enough_seeds_find_the_difference_seen_about_four_times_in_five(effect, comparisons):
    seen = effect + np.array([-1.0, 1.0]) / np.sqrt(2)  # their standard deviation is 1
    n = enough_seeds(seen, comparisons)
    assert 0.72 <= exact_power(n, effect, comparisons) <= 0.9
    assert exact_power(n - 1, effect, comparisons) < 0.83


def exact_power(n, effect, comparisons):
    """How often all sign flips show normal differences, by counting them."""
    signs = np.array(list(itertools.product((1, -1), repeat=n - 1)))
    found = [
        (abs(v[0] + signs @ v[1:]) >= abs(v.sum()) - 1e-9).mean() * comparisons < 0.05
        for v in np.random.default_rng(0).normal(effect, 1, (400, n))
    ]
    return np.mean(found)


def test_enough_seeds_at_the_ends():
    assert enough_seeds([0.3, -0.3]) is None and enough_seeds([0.001, 1.0, -1.0]) is None
    assert enough_seeds([0.1, 0.1]) == 6 and enough_seeds([0.1, 0.1], 3) == 7
    assert enough_seeds([5.0] * 5 + [-0.1]) == 7  # six have not shown it


def test_how_many_seeds_would_do_is_said_where_nothing_is_shown():
    words = "If the difference seen is the true one, about {} seeds would find it four times in"
    assert words.format(6) in against_cutmix([1.0, 1.1]).sentence
    assert words.format(7) in against_cutmix([5.0] * 5 + [-0.1]).sentence
    assert "takes more than 1,000 seeds." in against_cutmix([0.001, 1.0, -1.0]).sentence
    for silent in ([1.0], [0.5, -0.5], [0.0, 0.0], [1.0, 1.1, 1.2, 0.9, 1.0, 1.1]):
        assert "If the difference" not in against_cutmix(silent).sentence
        assert "more than" not in against_cutmix(silent).sentence


def test_a_claim_needs_the_interval_and_the_corrected_p():
    values = [0.9, 1.0, 1.2, 0.8, 1.1, 1.0]
    base = dict.fromkeys(range(6), 70.0)
    shifted = {s: 70 + v for s, v in enumerate(values)}
    assert (
        against_cutmix(values).claimed
        and "new is higher than cutmix: +1.00 points" in against_cutmix(values).sentence
    )
    assert "new is lower than cutmix" in against_cutmix([-v for v in values]).sentence
    doubtful = against_cutmix([1.0, 0.8, 3.1, 2.1, 2.3, 2.8, -3.0, 2.8, 2.2])
    assert (
        doubtful.corrected < 0.05
        and doubtful.low < 0
        and not doubtful.claimed
        and "not resolvable with 9 seeds" in doubtful.sentence
    )
    two = compare({"cutmix": base, "a": shifted, "b": shifted}).differences
    assert [d.corrected for d in two] == pytest.approx([2 * 2 / 64] * 2) and not any(
        d.claimed for d in two
    )
    assert "corrected for 2 comparisons" in two[0].sentence


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (
            {"cutmix": {0: 70.0}, "new": {0: 71.0}},
            "one seed, which cannot tell the strategies apart",
        ),
        ({"cutmix": {0: 70.0, 1: 71.0}, "new": {0: 70.0, 1: 71.0}}, "equal in each of 2 seeds"),
        (
            {"cutmix": {0: 70.0, 1: 70.5}, "new": {0: 71.0, 1: 71.0}},
            "p cannot be below 2/2^2: it takes 6 seeds",
        ),
        ({"cutmix": {0: 70.0, 1: 70.5}, "new": {0: 70.3, 1: 70.8}}, "not resolvable with 2 seeds"),
        (
            {"cutmix": {0: 70.0, 1: 70.5, 2: 71.0}, "new": {0: 71.0, 1: None, 2: 70.0}},
            "on both sides: seed 1.",
        ),
        (
            {
                "cutmix": {0: 70.0, 1: 70.5, 2: 71.0},
                "new": {0: 71.0, 1: float("nan"), 2: float("inf")},
            },
            "on both sides: seeds 1, 2.",
        ),
        ({"cutmix": {0: None}, "new": {0: 71.0}}, "no seed in common that gave a figure"),
        ({"cutmix": {0: 70.0}, "new": {1: 71.0}}, "no seed in common"),
        ({"cutmix": {}, "new": {}}, "no seed in common"),
        (
            {"cutmix": dict.fromkeys(range(8), 70.0), "new": dict.fromkeys(range(8), 70.1)},
            "new is higher than cutmix: +0.10 points [+0.10, +0.10]",
        ),
        (
            {"cutmix": dict.fromkeys(range(8), 70.0), "new": dict.fromkeys(range(8), 70.0)},
            "equal in each of 8 seeds: no difference",
        ),
    ],
)
def test_degenerate_runs_give_a_plain_sentence(figures, words):
    comparison = compare(figures)
    [result] = comparison.differences
    assert words in result.sentence and result.sentence.endswith(".")
    assert not re.search(r"\b(nan|inf)\b", repr(comparison))


def test_degenerate_bootstraps_are_finite():
    """Few, tied and lopsided differences, as small validation sets give them."""
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 8):
        for _ in range(30):
            low, high = bca_interval(rng.integers(-1, 2, n) * 0.1, draws=999)
            assert np.isfinite([low, high]).all() and low <= high
    assert bca_interval([0.3, 0.3 + 1e-13, 0.3]) == pytest.approx((0.3, 0.3))
    assert np.isfinite(bca_interval([0.0] * 7 + [5.0])).all()


def test_one_seed_gets_mcnemar_over_the_images():
    ours = Bitmap(np.array([1] * 20 + [1] * 12 + [0] * 2 + [0] * 6, bool))
    theirs = Bitmap(np.array([1] * 20 + [0] * 12 + [1] * 2 + [0] * 6, bool))
    p, better, worse = mcnemar(ours, theirs)
    # 2 * (C(14,0) + C(14,1) + C(14,2)) / 2^14
    assert (better, worse) == (12, 2) and p == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert mcnemar(ours, ours) == (1.0, 0, 0)
    correct = {("new", 4): ours, ("cutmix", 4): theirs}
    [result] = compare({"cutmix": {4: 55.0}, "new": {4: 80.0}}, correct=correct).differences
    assert result.p == p and not result.claimed
    assert (
        "12 images right with new alone, 2 images with cutmix alone" in result.sentence
        and "Another seed may say otherwise" in result.sentence
    )
    with pytest.raises(ValueError, match="different images"):
        mcnemar(ours, Bitmap(theirs.right[1:]))


@pytest.mark.parametrize(
    ("other", "paired"),
    [
        (Bitmap(np.ones(3, bool), b"a\0b\0c"), True),
        (Bitmap(np.ones(3, bool)), True),  # an older file has no names
        (Bitmap(np.ones(3, bool), b"a\0c\0b"), False),
        (Bitmap(np.ones(2, bool), b"a\0b"), False),
        (Bitmap(np.ones(2, bool)), False),
    ],
)
def test_runs_on_different_images_are_not_paired(other, paired):
    """Neither over the images of one seed nor over the seeds; the other seeds stay."""
    ours = Bitmap(np.zeros(3, bool), b"a\0b\0c")
    correct = {("new", 1): ours, ("cutmix", 1): other}
    figures = {"cutmix": {1: 100.0}, "new": {1: 0.0}}
    words = "Not paired, since the two were evaluated on different images: seed 1."
    [result] = compare(figures, correct=correct).differences
    assert result.values == ({1: -100.0} if paired else {})
    assert (result.p is None, words in result.sentence) == (not paired, not paired)
    more = {"cutmix": {1: 100.0, 2: 50.0, 3: 50.0}, "new": {1: 0.0, 2: 51.0, 3: 52.0}}
    [result] = compare(more, correct=correct).differences
    assert result.mean == pytest.approx(-97 / 3 if paired else 1.5)
    assert (words in result.sentence) is not paired


def test_the_baseline():
    figures = {"none": {0: 1.0}, "cutmix": {0: 1.0}, "new": {0: 1.0}}
    assert (
        compare(figures).baseline == "cutmix"
        and compare({"none": {0: 1.0}, "new": {}}).baseline == "none"
    )
    assert [d.strategy for d in compare(figures, baseline="new").differences] == ["none", "cutmix"]
    with pytest.raises(ValueError, match="'other' is not among"):
        compare(figures, baseline="other")
    with pytest.raises(ValueError, match="no strategy"):
        compare({})


def test_scipy_waits_until_it_is_used():
    import subprocess
    import sys

    code = (
        "import sys, mixbench.report.significance, mixbench.report.page; "
        "sys.exit('scipy' in sys.modules or 'torch' in sys.modules)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_too_few_seeds_means_depends_on_the_comparisons():
    """Seven comparisons need nine seeds: eight are too few for all.

    Seven are not where another comparison has nine.
    """
    rng = np.random.default_rng(0)

    def sentences(seeds, fewer):
        figures = {"cutmix": dict.fromkeys(range(seeds), 70.0)}
        for i in range(7):
            figures[f"s{i}"] = {
                s: 70.0 + rng.normal(0, 1) for s in range(fewer if i == 0 else seeds)
            }
        return [d.sentence for d in compare(figures).differences]

    assert all("below 7 x 2/2^8: it takes 9 seeds" in text for text in sentences(8, 8)[1:])
    assert "below 2/2^5: it takes 9 seeds" in sentences(9, 5)[0]
    first, *others = sentences(9, 7)
    assert "So few" not in first and all(
        "would be found by 9 seeds four times in five" in text for text in others
    )


def test_images_and_seeds_are_corrected_apart():
    flags, all_right = Bitmap(np.arange(40) < 20), Bitmap(np.ones(40, bool))
    figures = {"cutmix": {0: 50.0, 1: 50.0}, "a": {0: 100.0}, "b": {0: 51.0, 1: 52.0}}
    a, b = compare(figures, correct={("cutmix", 0): flags, ("a", 0): all_right}).differences
    assert a.corrected == a.p == 2 / 2**20 and b.corrected == b.p == 0.5
    assert (
        "differ beyond the chance of these images: 20 images right with a alone" in a.sentence
        and not a.claimed
    )
