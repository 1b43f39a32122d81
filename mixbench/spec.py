"""The spec text `name(key=value, ...)` of a strategy, both ways."""

from __future__ import annotations

import ast
import dataclasses
import re
import typing
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from mixbench.registry import list_strategies, registered_name, strategy_class
from mixbench.rules import BrokenRule, declared_clean_weight, declared_needs, require
from mixbench.values import (
    bare_word,
    coerce,
    did_you_mean,
    error_text,
    is_strategy,
    type_name,
)

if TYPE_CHECKING:
    from mixbench.mix import MixStrategy

PLAIN = "numbers, true or false, text, None, tuples of these, or strategies"
_BARE_WORD = re.compile(r"[A-Za-z_][\w./-]*")


def field_types(cls: type) -> dict[str, Any]:
    """The type of each dataclass field that `__init__` takes, in order."""
    try:
        hints = typing.get_type_hints(cls)
    except Exception as error:  # a name that is imported for type checkers alone, say
        raise ValueError(
            f"the types of the fields of {cls.__name__} cannot be read ({error_text(error)}): "
            "import what they name"
        ) from None
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _value(node: ast.expr, hint: Any, what: str, text: str) -> Any:
    if is_strategy(hint):
        return _strategy(node, text)
    source = ast.get_source_segment(text, node) or ""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        if not _BARE_WORD.fullmatch(source):
            raise ValueError(f"{what} must be {type_name(hint)}, not {source!r}") from None
        value = bare_word(source, hint)
    return coerce(value, hint, what)


def _strategy(node: ast.expr, text: str) -> MixStrategy:
    name, keywords = node, []
    segment = ast.get_source_segment(text, node)
    if isinstance(node, ast.Call):
        name, keywords = node.func, node.keywords
        if node.args:
            given = ast.get_source_segment(text, node.args[0])
            raise ValueError(
                f"write parameters as name=value: {given!r} in {segment!r} has no name"
            )
    if not isinstance(name, ast.Name):
        raise ValueError(f"a strategy is written name or name(key=value, ...), not {segment!r}")
    cls = strategy_class(name.id)
    values = _parameters(name.id, keywords, field_types(cls), text)
    try:
        strategy = cls(**values)
        declared_needs(strategy)
        declared_clean_weight(strategy)
        return strategy
    except BrokenRule as error:
        raise ValueError(f"strategy {name.id} cannot be used: {error}") from error
    except TypeError as error:  # a plug-in's parameter without a default
        raise ValueError(f"{name.id}: {error_text(error)}") from None
    except (ValueError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plug-in may raise anything
        raise ValueError(f"strategy {name.id} cannot be used: {error_text(error)}") from error


def _parameters(
    name: str, keywords: list[ast.keyword], hints: dict[str, Any], text: str
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for keyword in keywords:
        if keyword.arg is None:
            raise ValueError(f"write parameters as name=value: ** cannot be used in {text!r}")
        if keyword.arg not in hints:
            known = did_you_mean(keyword.arg, hints) if hints else "it has none"
            raise ValueError(f"{name} has no parameter {keyword.arg!r}: {known}")
        if keyword.arg in values:
            raise ValueError(f"{name} {keyword.arg} is given twice")
        what = f"{name} {keyword.arg}"
        values[keyword.arg] = _value(keyword.value, hints[keyword.arg], what, text)
    return values


def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ValueError(
            f"cannot read strategy {text!r} ({reason}): write name or name(key=value, ...)"
        ) from None


def create_strategy(text: str) -> MixStrategy:
    """The strategy of a spec text such as 'transmix(base=cutmix, attention_weight=1.0)'.

    The text is never evaluated as code. ValueError for a mistake in it.
    """
    if not text.strip():
        raise ValueError(f"no strategy named: known: {', '.join(list_strategies())}")
    return _checked(read_strategy(text))


def read_strategy(text: str) -> MixStrategy:
    """The strategy of a spec text as its class makes it; create_strategy also tries it out."""
    return _strategy(_parse(text), text.strip())


def create_strategies(text: str) -> list[MixStrategy]:
    """The strategies of a comma-separated list of spec texts; ValueError where two are equal."""
    listed = f"[{text.strip().rstrip(',')}]"
    parsed = _parse(listed)
    if not isinstance(parsed, ast.List):
        raise ValueError(f"cannot read strategies {text!r}: write a list such as cutmix,transmix")
    if not parsed.elts:
        raise ValueError(f"no strategy named: known: {', '.join(list_strategies())}")
    strategies = [_checked(_strategy(node, listed)) for node in parsed.elts]
    specs = [strategy_spec(strategy) for strategy in strategies]
    for i, spec in enumerate(specs):
        if spec in specs[:i]:
            raise ValueError(f"strategy {spec!r} is listed twice")
    return strategies


def _checked(strategy: MixStrategy) -> MixStrategy:
    """The strategy; ValueError where it cannot be known by its spec text."""
    name = registered_name(type(strategy))
    try:
        _check(strategy)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plug-in may raise anything
        words = str(error) if isinstance(error, BrokenRule) else error_text(error)
        raise ValueError(f"strategy {name} cannot be used: {words}") from error
    return strategy


def _check(strategy: MixStrategy) -> None:
    """BrokenRule, or whatever the strategy raises."""
    text = strategy_spec(strategy)
    try:
        again = read_strategy(text)
    except ValueError as error:
        raise BrokenRule(
            f"its spec text {text:.80} cannot be read back ({error_text(error, 120)}): give its "
            f"fields {PLAIN}"
        ) from error
    require(
        strategy_spec(again) == text and again == strategy,
        f"its spec text {text:.80} reads back as another strategy: give its fields {PLAIN}",
    )
    try:
        same = hash(again) == hash(strategy)
    except TypeError as error:
        raise BrokenRule(
            f"it has no hash ({error_text(error)}): give its fields {PLAIN}"
        ) from error
    require(same, "equal strategies must have equal hashes")


def strategy_spec(strategy: MixStrategy) -> str:
    """The spec text of `strategy`, which create_strategy reads back to an equal strategy.

    It says the fields that differ from their defaults, in order.
    """
    cls = type(strategy)
    hints, parts = field_types(cls), []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        value = getattr(strategy, field.name)
        default = (
            field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory()
        )
        if field.init and value != default:
            parts.append(f"{field.name}={_text(value, hints[field.name])}")
    return registered_name(cls) + (f"({', '.join(parts)})" if parts else "")


def _text(value: Any, hint: Any) -> str:
    if is_strategy(type(value)):
        return strategy_spec(value)
    value = coerce(value, hint, "value")
    bare = (
        isinstance(value, str) and value.isidentifier() and value.isascii() and not iskeyword(value)
    )
    return value if bare else repr(value)
