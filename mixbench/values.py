"""Values as a user writes them: in YAML, on the command line and in spec text."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

MANY = 100  # known names; beyond these a sentence lists the nearest few, not all
WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    type(None): "nothing",
}
BARE = {"true": True, "false": False, "null": None}  # as YAML spells them


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest of `known`, and all of them where none is near."""
    known = sorted(known)
    if len(known) > MANY:  # timm's models
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        if near:
            return f"did you mean {', '.join(map(repr, near))}?"
        return f"none of {len(known)} names is like it"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


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
    elif origin is tuple and isinstance(value, (list, tuple)) and parts[1:] == (...,):
        return tuple(coerce(each, parts[0], what) for each in value)
    elif origin is list and isinstance(value, list):
        return [coerce(each, parts[0], what) for each in value]
    elif origin is tuple and isinstance(value, (list, tuple)) and len(value) == len(parts):
        return tuple(coerce(each, part, what) for each, part in zip(value, parts, strict=True))
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif (
        isinstance(hint, type)
        and isinstance(value, hint)
        and (hint is bool or not isinstance(value, bool))
    ):
        return value
    raise ValueError(f"{what} must be {type_name(hint)}, not {value!r}")


def read_value(value: Any, hint: Any, what: str) -> Any:
    """YAML's value, or a command line's text, as the type `hint`; ValueError names `what`."""
    import yaml

    if isinstance(value, str) and hint is not str:
        text = value
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if isinstance(value, str):
            value = _number(value)
            if isinstance(value, str) and "," in text and "tuple" in str(hint):
                value = text.split(",")
    if isinstance(value, list):
        value = tuple(_number(part) for part in value)
    return coerce(value, hint, what)


def _number(value: Any) -> Any:
    """Text that Python reads as a number, as that number: PyYAML leaves 1e-3 text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def bare_word(word: str, hint: Any) -> Any:
    """What a word without quotes means in spec text: true, false and null as in YAML, else text."""
    return word if hint is str else BARE.get(word, word)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """What an option says of itself: its meaning, where it belongs, and the values it takes."""

    help: str
    group: str
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()  # of text; where a bound is given too, a number is right as well

    def check(self, name: str, value: Any) -> None:
        """ValueError where the option `name` must not be `value`, which is of its type."""
        if self.choices and value in self.choices:
            return
        parts = value if isinstance(value, tuple) else (value,)
        numbers = [part for part in parts if isinstance(part, (int, float))]
        if self.choices and not numbers:
            raise ValueError(f"{name} must be {self.bounds}, not {value!r}")
        for number in numbers:  # a whole number may be too large for isfinite
            finite = isinstance(number, int) or math.isfinite(number)
            if self.at_most is None and not finite:
                raise ValueError(f"{name} must be finite, not {number}")
        for words, holds in self._rules():
            if not all(map(holds, numbers)):
                raise ValueError(f"{name} must be {words}, not {value}")

    @property
    def bounds(self) -> str:
        """The values it takes, in words: 'above 0', 'one of raw, ema'; '' where any will do."""
        if self.choices and self.above is None:
            return f"one of {', '.join(self.choices)}"
        return ", ".join(words for words, _ in self._rules())

    def _rules(self) -> Iterator[tuple[str, Callable[[float], bool]]]:
        """Each rule in words, and whether a number keeps it."""
        above, at_least, at_most, below = self.above, self.at_least, self.at_most, self.below
        low = (above if at_least is None else at_least) or 0
        auto = "".join(f"{choice!r} or a whole number " for choice in self.choices)
        if at_most is not None:
            yield f"between {low:g} and {at_most:g}", lambda number: low <= number <= at_most
        elif below is not None:
            words = f"{low:g} or more and below {_bound(below)}"
            yield words, lambda number: low <= number < below
        elif at_least is not None:
            yield f"{at_least:g} or more", lambda number: number >= at_least
        if above is not None:
            yield f"{auto}above {above:g}", lambda number: number > above


def _bound(number: float) -> str:
    """A number, or the power of two that a large integer is."""
    return f"2**{int(number).bit_length() - 1}" if number > 2**53 else f"{number:g}"


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
