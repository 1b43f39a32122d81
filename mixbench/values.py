"""Values as a user writes them: in YAML, on the command line and in spec text.

One reader, `read_text`, gives a text its meaning by the type that is expected; no notation of YAML
or Python reads it before: `010` is 10, and `1:30`, `0x10` and `1_000` are no numbers.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from mixbench.visible import LONGEST, shortened

T = TypeVar("T")

MANY = 100  # known names; beyond these a sentence lists the nearest few, not all
DIGITS = 30  # of a whole number; more are no size or count of anything
WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}
BARE = {"true": True, "false": False, "null": None, "none": None}  # in any case
WHOLE = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
BRACKETS = {"[": "]", "(": ")"}


def shown(value: Any) -> str:
    """A value as a sentence shows it: as Python writes it, in LONGEST characters or little more."""
    if isinstance(value, str):
        return repr(shortened(value))
    if isinstance(value, int) and abs(value) >= 10**DIGITS:
        return f"a number of more than {DIGITS} digits"
    if isinstance(value, (tuple, list)):
        brackets = "[]" if isinstance(value, list) else "()"
        return shortened(", ".join(map(shown, value[:LONGEST]))).join(brackets)
    return shortened(repr(value))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest of `known`, and all of them where none is near."""
    name, known = shortened(name), sorted(known)
    if len(known) > MANY:  # timm's models
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        if near:
            return f"did you mean {', '.join(map(repr, near))}?"
        return f"none of {len(known)} names is like it"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {_listed(known)}"


def _listed(names: list[str]) -> str:
    """Names in a row, the first of them where all would be longer than a sentence."""
    text = ", ".join(names)
    return text if len(text) <= 300 else f"{text[:300].rpartition(', ')[0]}, ..."


def error_text(error: BaseException, length: int = 300) -> str:
    """What an exception says, on one line of at most so many characters, whatever it is."""
    try:
        text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    except KeyboardInterrupt:
        raise
    except BaseException:  # a class of someone else's
        text = f"{type.__getattribute__(type(error), '__name__')}, which cannot be shown as text"
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def is_strategy(hint: Any) -> bool:
    """Whether a type is a strategy's."""
    from mixbench.mix import MixStrategy

    return isinstance(hint, type) and issubclass(hint, MixStrategy)


def is_union(hint: Any) -> bool:
    """Whether a type is written with `|`."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def type_name(hint: Any) -> str:
    """A type as a user reads it: 'a number', 'true or false', ..."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if is_union(hint):
        return " or ".join(type_name(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        if parts[1:] == (...,):
            return f"any number of values such as (1, 2), each {type_name(parts[0])}"
        plain = all(part in (int, float) for part in parts)
        return f"{len(parts)} {'numbers' if plain else 'values'}"
    if is_strategy(hint):
        return "a strategy"
    return WORDS.get(hint) or f"of type {getattr(hint, '__name__', hint)}"


def coerce(value: Any, hint: Any, what: str) -> Any:
    """`value` as the type `hint`, whole numbers as numbers where a number is expected.

    ValueError names `what` and the type.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if is_union(hint):
        for part in parts:
            try:
                return coerce(value, part, what)
            except ValueError:
                continue
    elif origin is typing.Literal and value in parts:
        return value
    elif origin is list and isinstance(value, list):
        return [coerce(each, parts[0], what) for each in value]
    elif origin is tuple and isinstance(value, (list, tuple)):
        parts = _part_types(hint, len(value))
        if len(parts) == len(value):
            return tuple(coerce(each, part, what) for each, part in zip(value, parts, strict=True))
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    elif (
        isinstance(hint, type)
        and isinstance(value, hint)
        and (hint is bool or not isinstance(value, bool))
    ):
        return value
    raise ValueError(f"{what} must be {type_name(hint)}, not {shown(value)}")


def read_value(value: Any, hint: Any, what: str) -> Any:
    """A text, a list of texts, or a Python value as the type `hint`; ValueError names `what`."""
    if isinstance(value, str):
        return read_text(value, hint, what)
    for kind in _kinds(hint) if isinstance(value, (list, tuple)) else ():
        parts = _part_types(kind, len(value))
        if (kind is tuple or typing.get_origin(kind) is tuple) and len(parts) == len(value):
            texts = zip(value, parts, strict=True)
            return tuple(read_value(each, part, what) for each, part in texts)
    return coerce(value, hint, what)


def read_text(text: str, hint: Any, what: str) -> Any:
    """What a text means where the type `hint` is expected; ValueError names `what` and the type.

    Blanks around it do not count. A number is decimal, with ASCII digits; true, false, null and
    none may be in any case; several numbers stand between commas, with or without brackets.
    """
    text = text.strip()
    if not text:
        way_out = (
            ", or write null" if is_union(hint) and type(None) in typing.get_args(hint) else ""
        )
        raise ValueError(f"{what} must be {type_name(hint)}, not empty: give a value{way_out}")
    for kind in _kinds(hint):
        meaning = _meaning(text, kind, what)
        if meaning is not NOTHING:
            return coerce(meaning, hint, what)
    raise ValueError(f"{what} must be {type_name(hint)}, not {shown(text)}{_why(text, hint)}")


class _Nothing:
    """What a text means that is not of a kind."""


NOTHING = _Nothing()


def _kinds(hint: Any) -> list[Any]:
    """The types that a text may be of, null first and text last: whatever is a text."""
    kinds = list(typing.get_args(hint)) if is_union(hint) else [hint]
    if hint is Any:
        kinds = [type(None), bool, int, float, str]
    return sorted(kinds, key=lambda kind: (kind is not type(None)) + (kind is str))


def _meaning(text: str, kind: Any, what: str) -> Any:
    """The text as one type; NOTHING where it is not of it."""
    if kind is str:
        return text
    if kind in (bool, type(None)):
        value = BARE.get(text.lower(), NOTHING)
        return value if isinstance(value, kind) else NOTHING
    if kind is int and WHOLE.fullmatch(text):
        if len(text.lstrip("+-0")) > DIGITS:
            raise ValueError(f"{what} must have at most {DIGITS} digits, not {shown(text)}")
        return int(text)
    if kind is float and NUMBER.fullmatch(text):
        return _float(text)
    if typing.get_origin(kind) is typing.Literal:
        return next((value for value in typing.get_args(kind) if str(value) == text), NOTHING)
    if typing.get_origin(kind) is tuple or kind is tuple:
        return _several(text, kind, what)
    return NOTHING


def _float(text: str) -> float | _Nothing:
    """A decimal number; NOTHING where it is larger than what a float holds."""
    number = float(text)
    return NOTHING if math.isinf(number) else number


def _several(text: str, kind: Any, what: str) -> Any:
    """The parts of a text such as `0.9,0.95` or `[0.9, 0.95]`, each of its type."""
    if BRACKETS.get(text[0]) == text[-1]:
        text = text[1:-1]
    texts = text.split(",")
    parts = _part_types(kind, len(texts))
    if len(parts) != len(texts):
        return NOTHING
    try:
        return tuple(read_text(part, hint, what) for part, hint in zip(texts, parts, strict=True))
    except ValueError:
        return NOTHING


def _part_types(hint: Any, count: int) -> tuple[Any, ...]:
    """The types of a tuple's parts, of `count` parts where the type is of any number of them."""
    parts = typing.get_args(hint)
    if hint is tuple:
        return (Any,) * count
    return parts[:1] * count if parts[1:] == (...,) else parts


def _why(text: str, hint: Any) -> str:
    """What is wrong with a text that looks like a number and is none of the expected type."""
    kinds = _kinds(hint)
    if float in kinds and NUMBER.fullmatch(text):
        return ": beyond what a float holds"
    odd = re.fullmatch(r"[+-]?[\w.:+-]*", text) and not NUMBER.fullmatch(text)
    if (int in kinds or float in kinds) and odd and any(map(str.isnumeric, text)):
        return ": write decimal digits"
    return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
    """The values that an option or a strategy's parameter takes, beside its type."""

    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None
    # of text; where a bound is given too, a number is right as well, a whole one unless a bound is
    # a float
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """ValueError where what is called `name` must not be `value`, which is of its type."""
        if self.choices and value in self.choices:
            return
        parts = value if isinstance(value, tuple) else (value,)
        numbers = [part for part in parts if isinstance(part, (int, float))]
        if self.choices and not numbers:
            raise ValueError(f"{name} must be {self.bounds}, not {shown(value)}")
        for number in numbers:  # a whole number may be too large for isfinite
            if not isinstance(number, int) and not math.isfinite(number):
                raise ValueError(f"{name} must be finite, not {number}")
        if not all(map(self._holds, numbers)):
            raise ValueError(f"{name} must be {self.bounds}, not {shown(value)}")

    @property
    def bounds(self) -> str:
        """The values it takes, in words: 'above 0', 'one of raw, ema'; '' where any will do."""
        low, high = self._low, self._high
        if self.choices and not low:
            return f"one of {', '.join(self.choices)}"
        if self.at_least is not None and self.at_most is not None:
            words = f"between {_bound(self.at_least)} and {_bound(self.at_most)}"
        else:
            words = " and ".join(filter(None, [low, high]))
        limits = (self.above, self.at_least, self.at_most, self.below)
        kind = WORDS[float if any(isinstance(limit, float) for limit in limits) else int]
        return "".join(f"{choice!r} or {kind} " for choice in self.choices) + words

    @property
    def _low(self) -> str:
        if self.at_least is not None:
            return f"{_bound(self.at_least)} or more"
        return "" if self.above is None else f"above {_bound(self.above)}"

    @property
    def _high(self) -> str:
        if self.at_most is not None:
            return f"at most {_bound(self.at_most)}"
        return "" if self.below is None else f"below {_bound(self.below)}"

    def _holds(self, number: float) -> bool:
        """Whether a number keeps the bounds."""
        return (
            (self.above is None or number > self.above)
            and (self.at_least is None or number >= self.at_least)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option(Bounds):
    """What an option says of itself: its meaning, where it belongs, and the values it takes."""

    help: str
    group: str


def _bound(number: float) -> str:
    """A number, or the power of two that a large integer is."""
    if isinstance(number, int) and number >= 2**16 and number & (number - 1) == 0:
        return f"2**{number.bit_length() - 1}"
    return str(number) if isinstance(number, int) else f"{number:g}"


def option(
    default: T,
    *,
    help: str,
    group: str,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> T:
    """A dataclass's field that is an option, with its `Option` under that name in the metadata."""
    meaning = Option(
        help=help,
        group=group,
        above=above,
        at_least=at_least,
        at_most=at_most,
        below=below,
        choices=choices,
    )
    return dataclasses.field(default=default, metadata={"option": meaning})


def parameter(
    default: T,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> T:
    """A field of a strategy that check_parameters looks at, with its `Bounds` in the metadata."""
    bounds = Bounds(above=above, at_least=at_least, at_most=at_most, below=below, choices=choices)
    return dataclasses.field(default=default, metadata={"bounds": bounds})


def check_parameters(strategy: Any, cls: type, name: str) -> None:
    """ValueError where a field that `cls` declares with `parameter` is of another type or value.

    A subclass that declares the field anew is held to the same.
    """
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        value, what = getattr(strategy, field.name), f"{name} {field.name}"
        if "bounds" not in field.metadata:
            continue
        coerce(value, hints[field.name], what)
        if isinstance(value, str) and (not value.strip() or "\0" in value):
            raise ValueError(f"{what} must not be empty nor hold a NUL, not {shown(value)}")
        field.metadata["bounds"].check(what, value)


def check_order(strategy: Any, name: str, low: str, high: str, drawn: str) -> None:
    """ValueError where the field `low` is above `high`, between which `drawn` is drawn."""
    least, most = getattr(strategy, low), getattr(strategy, high)
    if least > most:
        raise ValueError(
            f"{name} {low} must be at most {high}, not {least} and {most}: {drawn} is drawn "
            "between them"
        )
