"""Figures as text: digits, signs, and nothing that is a negative nothing."""

import pytest

from mixbench.report.numbers import (
    bounds,
    cell,
    difference,
    interval,
    p_value,
    params,
    seed_count,
    signed,
    spread,
)


@pytest.mark.parametrize("value", [0.0, -0.0, -0.001, 0.001])
def test_nothing_has_one_sign(value):
    assert (cell(value, 2), signed(value)) == ("0.00", "+0.00")
    assert difference(value, value, -value) == "+0.00 [+0.00, +0.00]"
    assert interval(value, value, value, 2) == "0.00 [0.00, 0.00]"
    assert spread(value, value) == "0.00 ± 0.00"


def test_figures_keep_their_sign_and_digits():
    assert (cell(-1.005, 1), signed(-0.006), signed(2.0)) == ("-1.0", "-0.01", "+2.00")
    assert difference(0.5, -1.0, 2.0) == "+0.50 [-1.00, +2.00]"
    assert (spread(70.0, 1.25, 1), params(22.05, 1.0)) == ("70.0 ± 1.2", "23.05M")


def test_no_p_is_zero():
    assert [p_value(p) for p in (0.000244, 0.0004999, 0.0005, 0.31, 1.0, None)] == [
        "<0.001", "<0.001", "0.001", "0.310", "1.000", "-"
    ]  # fmt: skip


def test_seeds_are_counted_in_words():
    assert [seed_count(counts) for counts in ([1], [9, 9], [1, 7, 12])] == [
        "1 seed", "9 seeds", "1 to 12 seeds"
    ]  # fmt: skip


def test_what_is_missing_is_a_dash():
    assert cell(float("nan"), 2) == cell(float("inf"), 2) == "-"
    assert cell(None, 2) == signed(None) == interval(None, 1.0, 2.0, 2) == "-"
    assert bounds(None, 1.0) == difference(None, None, None) == spread(None, 1.0) == "-"
    assert (difference(1.5, None, None), spread(1.5, None), params(None)) == ("+1.50", "1.50", "-")
