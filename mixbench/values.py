"""Values as a user writes them, and the sentence that names the nearest known name."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


MANY = 100


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest of `known`, and all of them where none is near."""
    known = sorted(known)
    if len(known) > MANY:  # a name of timm's models
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        return (
            f"did you mean {', '.join(map(repr, near))}?"
            if near
            else f"none of {len(known)} names is like it"
        )
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def type_name(hint: Any) -> str:
    """A type as a user reads it: 'a number', 'true or false', ..."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    words = {
        float: "a number",
        int: "a whole number",
        bool: "true or false",
        str: "text",
        type(None): "nothing",
    }
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(type_name(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"{len(typing.get_args(hint))} numbers"
    return words.get(hint, "a strategy" if _is_strategy(hint) else str(hint))


def coerce(value: Any, hint: Any, what: str) -> Any:
    """`value` as the type `hint`, whole numbers as numbers where a number is expected; ValueError names `what`."""
    if hint is Any:
        return value
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            try:
                return coerce(value, part, what)
            except ValueError:
                continue
    elif typing.get_origin(hint) is typing.Literal:
        if value in typing.get_args(hint):
            return value
    elif typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        if isinstance(value, (list, tuple)) and len(value) == len(parts):
            return tuple(coerce(v, part, what) for v, part in zip(value, parts, strict=True))
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif (
        isinstance(hint, type)
        and isinstance(value, hint)
        and (hint is bool or not isinstance(value, bool))
    ):
        return value
    raise ValueError(f"{what} must be {type_name(hint)}, not {value!r}")


def _is_strategy(hint: Any) -> bool:
    from mixbench.mix import MixStrategy

    return isinstance(hint, type) and issubclass(hint, MixStrategy)
