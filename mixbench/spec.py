"""The spec text `name(key=value, ...)` of a strategy, both ways."""

from __future__ import annotations

import dataclasses
import typing
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from mixbench.registry import list_strategies, registered_name, strategy_class
from mixbench.spec_syntax import Call, Quoted, Several, Value, Word, read_list, written
from mixbench.values import (
    coerce,
    did_you_mean,
    is_strategy,
    read_value,
    shown,
    type_name,
)

if TYPE_CHECKING:
    from mixbench.mix import MixStrategy


def field_types(cls: type) -> dict[str, Any]:
    """The type of each dataclass field that `__init__` takes, in order."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _value(value: Value, hint: Any, what: str) -> Any:
    """A parameter's value as its type; quotes make a text of whatever they hold."""
    if is_strategy(hint):
        if isinstance(value, Call) or (isinstance(value, Word) and value.text.isidentifier()):
            return _strategy(value)
        raise ValueError(f"{what} must be a strategy, not {shown(written(value))}")
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
        return cls(**values)
    except TypeError as error:  # a plug-in's parameter without a default
        raise ValueError(f"{call.name}: {error}") from None


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
    [value, *others] = _values(text)
    if others:
        raise ValueError(f"one strategy is expected, not {shown(text)}")
    return _strategy(value)


def create_strategies(text: str) -> list[MixStrategy]:
    """The strategies of a comma-separated list of spec texts; ValueError where two are equal."""
    strategies: dict[str, MixStrategy] = {}
    for value in _values(text):
        strategy = _strategy(value)
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
