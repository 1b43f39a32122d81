"""The spec text `name(key=value, ...)` of a strategy, both ways."""

from __future__ import annotations

import dataclasses
import typing
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from mixbench.registry import list_strategies, registered_name, strategy_class
from mixbench.rules import BrokenRule, declared_clean_weight, declared_needs, require
from mixbench.spec_syntax import Call, Quoted, Several, Value, Word, read_list, written
from mixbench.values import (
    BARE,
    coerce,
    did_you_mean,
    error_text,
    is_strategy,
    read_value,
    shown,
    type_name,
)

if TYPE_CHECKING:
    from mixbench.mix import MixStrategy

PLAIN = "numbers, true or false, text, None, tuples of these, or strategies"


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


def _value(value: Value, hint: Any, what: str) -> Any:
    """A parameter's value as its type; quotes make a text of whatever they hold."""
    if is_strategy(hint):
        if isinstance(value, Call) or (isinstance(value, Word) and value.text.isidentifier()):
            return _strategy(value)
        raise ValueError(f"{what} must be a strategy, not {shown(written(value))}")
    kinds = set(typing.get_args(hint)) - {type(None)}
    if len(kinds) == 1 and is_strategy(kind := kinds.pop()):  # a strategy or null
        nothing = isinstance(value, Word) and BARE.get(value.text.lower(), "") is None
        return None if nothing else _value(value, kind, what)
    if isinstance(value, Word):
        return read_value(value.text, hint, what)
    if isinstance(value, Call):
        raise ValueError(f"{what} must be {type_name(hint)}, not {shown(written(value))}")
    return coerce(_python(value), hint, what)


def _python(value: Value) -> Any:
    """A value whose type nothing says."""
    if isinstance(value, Quoted):
        return value.text
    if isinstance(value, Several):
        parts = [_python(part) for part in value.values]
        return tuple(parts) if value.tuple else parts
    return read_value(written(value), Any, "a value")


def _strategy(value: Value) -> MixStrategy:
    if not isinstance(value, (Word, Call)):
        raise ValueError(
            f"a strategy is written name or name(key=value, ...), not {shown(written(value))}"
        )
    call = value if isinstance(value, Call) else Call(value.text, ())
    cls = strategy_class(call.name)
    values = _parameters(call, field_types(cls))
    try:
        strategy = cls(**values)
        declared_needs(strategy)
        declared_clean_weight(strategy)
        return strategy
    except BrokenRule as error:
        raise ValueError(f"strategy {call.name} cannot be used: {error}") from error
    except TypeError as error:  # a plug-in's parameter without a default
        raise ValueError(f"{call.name}: {error_text(error)}") from None
    except (ValueError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plug-in may raise anything
        raise ValueError(f"strategy {call.name} cannot be used: {error_text(error)}") from error


def _parameters(call: Call, hints: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in call.parameters:
        if key not in hints:
            known = did_you_mean(key, hints) if hints else "it has none"
            raise ValueError(f"{call.name} has no parameter {shown(key)}: {known}")
        if key in values:
            raise ValueError(f"{call.name} {key} is given twice")
        values[key] = _value(value, hints[key], f"{call.name} {key}")
    return values


def create_strategy(text: str) -> MixStrategy:
    """The strategy of a spec text such as 'transmix(base=cutmix, attention_weight=1.0)'.

    The text is never evaluated as code. ValueError for a mistake in it.
    """
    return _checked(read_strategy(text))


def read_strategy(text: str) -> MixStrategy:
    """The strategy of a spec text as its class makes it; create_strategy also tries it out."""
    [value, *others] = _values(text)
    if others:
        raise ValueError(f"one strategy is expected, not {shown(text)}")
    return _strategy(value)


def create_strategies(text: str) -> list[MixStrategy]:
    """The strategies of a comma-separated list of spec texts; ValueError where two are equal."""
    strategies: dict[str, MixStrategy] = {}
    for value in _values(text):
        strategy = _checked(_strategy(value))
        spec = strategy_spec(strategy)
        if spec in strategies:
            raise ValueError(f"strategy {shown(spec)} is listed twice")
        strategies[spec] = strategy
    return list(strategies.values())


def _values(text: str) -> list[Value]:
    """The parts of a list of spec texts, which is not empty."""
    values = read_list(text)
    if not values:
        raise ValueError(f"no strategy named: known: {', '.join(list_strategies())}")
    return values


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
    return value if isinstance(value, str) and _stands_bare(value, hint) else repr(value)


def _stands_bare(text: str, hint: Any) -> bool:
    """Whether a text is read as that text where no quotes are around it."""
    word = text.isidentifier() and text.isascii() and not iskeyword(text)
    return word and read_value(text, hint, "value") == text
