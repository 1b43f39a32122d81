"""Figures as every view writes them: screen, Markdown and page take their digits from here."""

from __future__ import annotations

import math
from collections.abc import Collection


def cell(value: float | None, digits: int) -> str:
    """A figure, `-` where there is none or it is no number; never `-0.00`."""
    return "-" if value is None or not math.isfinite(value) else f"{value:z.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    """A difference with its sign, `-` where there is none; `+0.00` for what rounds to nothing."""
    return "-" if value is None else f"{value:+z.{digits}f}"


def interval(value: float | None, low: float | None, high: float | None, digits: int) -> str:
    """A figure and its interval, `-` where there is none."""
    if value is None:
        return "-"
    return f"{cell(value, digits)} [{cell(low, digits)}, {cell(high, digits)}]"


def bounds(low: float | None, high: float | None) -> str:
    """The interval of a difference, `-` where there is none."""
    return "-" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def difference(mean: float | None, low: float | None, high: float | None) -> str:
    """A difference, with its interval where there is one."""
    return signed(mean) if low is None else f"{signed(mean)} {bounds(low, high)}"


def spread(mean: float | None, deviation: float | None, digits: int = 2) -> str:
    """A mean and its standard deviation over the seeds, where there is one; `-` without a mean."""
    if mean is None or deviation is None:
        return cell(mean, digits)
    return f"{cell(mean, digits)} ± {cell(deviation, digits)}"


def p_value(value: float | None) -> str:
    """A p to three digits, `-` where there is none; never `0.000`."""
    return "<0.001" if value is not None and value < 0.0005 else cell(value, 3)


def seed_count(counts: Collection[int]) -> str:
    """How many seeds each of several has, such as `1 seed` or `7 to 12 seeds`."""
    least, most = min(counts), max(counts)
    many = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    return f"{many} seed{'s' * (most != 1)}"


def params(millions: float | None, extra: float | None = None) -> str:
    """A model's parameters and what the strategy adds to them."""
    return "-" if millions is None else f"{millions + (extra or 0):.2f}M"
