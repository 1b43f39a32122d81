"""Intervals over the images against their closed form, and sentences of one seed."""

import numpy as np
import pytest
from scipy.stats import norm

from mixbench.evaluations.per_image import bootstrap_interval, paired_sentences


@pytest.mark.parametrize("count", [200, 5000])
def test_the_interval_of_many_values_is_the_normal_one(count):
    values = np.random.default_rng(1).exponential(size=count)
    half = norm.ppf(0.975) * values.std() / count**0.5
    low, high = bootstrap_interval(values)
    expected = values.mean() - half, values.mean() + half
    assert (low, high) == pytest.approx(expected, abs=0.15 * half)
    assert bootstrap_interval(values) == (low, high)


def test_equal_values_have_no_width_and_one_has_no_interval():
    assert bootstrap_interval(np.full(5, 3.0)) == (3.0, 3.0)
    with pytest.raises(ValueError, match="needs two images or draws or more, not 1"):
        bootstrap_interval(np.ones(1))


def test_differences_are_paired_over_the_images_that_both_have():
    rng = np.random.default_rng(0)
    easy = rng.normal(size=300) * 50  # what images have in common is not part of the interval
    values = {
        "cutmix": easy,
        "mixup": easy + 1 + 0.1 * rng.normal(size=300),
        "transmix": np.where(np.arange(300) < 100, np.nan, easy - 2),
        "others": easy[:20],
    }
    order = ["mixup", "cutmix", "transmix", "others"]
    mixup, transmix = paired_sentences(values, order, "label-error's label error")
    assert mixup.startswith("mixup against cutmix, label-error's label error: +1.0")
    assert "over the same 300 images" in mixup
    assert "transmix against cutmix, label-error's label error: -2.00 [-2.00, -2.00]" in transmix
    assert "over the same 200 images" in transmix
    assert paired_sentences({"mixup": easy}, ["mixup"], "x") == []


def test_values_with_a_draw_in_common_are_drawn_together():
    """Twenty values a group, all alike: the interval is that of the group's values alone."""
    draws = np.random.default_rng(3).normal(size=40)
    values, groups = np.repeat(draws, 20), np.repeat(np.arange(40), 20)
    assert bootstrap_interval(values, groups) == pytest.approx(bootstrap_interval(draws))
    low, high = bootstrap_interval(values)
    assert high - low < 0.3 * np.ptp(bootstrap_interval(draws))
    values[:20] = np.nan
    assert bootstrap_interval(values, groups) == pytest.approx(bootstrap_interval(draws[1:]))
    with pytest.raises(ValueError, match="two images or draws or more, not 1"):
        bootstrap_interval(np.ones(5), np.zeros(5, int))
