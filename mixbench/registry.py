"""Names and strategies: the registry, its plug-ins, and the spec text `name(key=value, ...)` both ways."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mixbench.mix import MixStrategy

# each in mixbench.strategies.<name>
BUILTIN = (
    "none",
    "mixup",
    "cutmix",
    "alternate",
    "saliencymix",
    "attentivecutmix",
    "puzzlemix",
    "transmix",
)
ENTRY_POINTS = "mixbench.strategies"
MANY = 100
_registered: dict[str, type[MixStrategy]] = {}
_plugins: dict[str, Any] | None = None  # entry points by name, found once
_BARE_WORD = re.compile(r"[A-Za-z_][\w./-]*")
S = TypeVar("S", bound="type[MixStrategy]")


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


def register_strategy(name: str) -> Callable[[S], S]:
    """Decorate a frozen dataclass derived from MixStrategy so that spec text finds it; ValueError for a name in use."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"a strategy's name is lower-case letters, digits and _, not {name!r}")

    def add(cls: S) -> S:
        from mixbench.mix import MixStrategy

        if not (isinstance(cls, type) and issubclass(cls, MixStrategy)):
            raise ValueError(
                f"strategy {name!r} must be a class derived from MixStrategy, not {cls!r}"
            )
        parameters = getattr(cls, "__dataclass_params__", None)
        if "__dataclass_fields__" not in vars(cls) or parameters is None or not parameters.frozen:
            raise ValueError(
                f"strategy {name!r} must be a frozen dataclass: put @dataclass(frozen=True) under the decorator"
            )
        holder = _registered.get(name)
        builtin = name in BUILTIN and cls.__module__ != f"mixbench.strategies.{name}"
        same = holder is not None and (holder.__module__, holder.__qualname__) == (
            cls.__module__,
            cls.__qualname__,
        )
        if builtin or (holder is not None and not same):
            owner = (
                f"mixbench.strategies.{name}"
                if builtin
                else f"{holder.__module__}.{holder.__qualname__}"
            )  # type: ignore[union-attr]
            raise ValueError(f"strategy name {name!r} is taken by {owner}: choose another")
        _registered[name] = cls
        return cls

    return add


def _entry_points() -> dict[str, Any]:
    global _plugins
    if _plugins is None:
        from importlib.metadata import entry_points

        _plugins = {}
        for point in entry_points(group=ENTRY_POINTS):
            if point.name in BUILTIN or point.name in _plugins:
                raise ValueError(
                    f"strategy name {point.name!r} is taken; the plug-in {point.value} must choose another"
                )
            _plugins[point.name] = point
    return _plugins


def list_strategies() -> list[str]:
    """The names of all strategies, built-in first, then plug-ins."""
    return [*BUILTIN, *sorted({*_registered, *_entry_points()} - {*BUILTIN})]


def strategy_class(name: str) -> type[MixStrategy]:
    """The class registered as `name`; ValueError with the nearest name for an unknown one."""
    if name not in _registered:
        if name in BUILTIN:
            importlib.import_module(f"mixbench.strategies.{name}")
        elif name in _entry_points():
            loaded = _entry_points()[name].load()
            if name not in _registered:
                register_strategy(name)(loaded)
        else:
            raise ValueError(f"unknown strategy {name!r}: {did_you_mean(name, list_strategies())}")
    return _registered[name]


def load_plugin(path: str | Path) -> None:
    """Run a Python file that registers strategies; ValueError where it is missing or cannot be run."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"plug-in file not found: {path}")
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[
        :8
    ]  # two files of one name are two modules
    spec = importlib.util.spec_from_file_location(f"mixbench_plugin_{path.stem}_{place}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"plug-in {path} is not a Python file: give a path that ends in .py")
    module = importlib.util.module_from_spec(spec)
    before = dict(_registered)
    sys.modules[spec.name] = module  # where dataclasses look up annotations, and pickle classes
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        _registered.clear()
        _registered.update(before)
        raise ValueError(f"plug-in {path} failed: {type(error).__name__}: {error}") from error
    if _registered == before:
        raise ValueError(
            f"plug-in {path} registered no strategy: decorate a class with @register_strategy('name')"
        )


def field_types(cls: type) -> dict[str, Any]:
    """The type of each dataclass field that `__init__` takes, in order."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


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


def _value(node: ast.expr, hint: Any, what: str, text: str) -> Any:
    if _is_strategy(hint):
        return _strategy(node, text)
    source = ast.get_source_segment(text, node) or ""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        if not _BARE_WORD.fullmatch(source):
            raise ValueError(f"{what} must be {type_name(hint)}, not {source!r}") from None
        value = (
            {"true": True, "false": False, "null": None}.get(source, source)
            if hint is not str
            else source
        )  # as YAML spells them
    return coerce(value, hint, what)


def _strategy(node: ast.expr, text: str) -> MixStrategy:
    name, keywords = node, []
    if isinstance(node, ast.Call):
        name, keywords = node.func, node.keywords
        if node.args:
            given = ast.get_source_segment(text, node.args[0])
            raise ValueError(
                f"write parameters as name=value: {given!r} in {ast.get_source_segment(text, node)!r} has no name"
            )
    if not isinstance(name, ast.Name):
        raise ValueError(
            f"a strategy is written name or name(key=value, ...), not {ast.get_source_segment(text, node)!r}"
        )
    cls = strategy_class(name.id)
    hints = field_types(cls)
    values: dict[str, Any] = {}
    for keyword in keywords:
        if keyword.arg is None:
            raise ValueError(f"write parameters as name=value: ** cannot be used in {text!r}")
        if keyword.arg not in hints:
            known = did_you_mean(keyword.arg, hints) if hints else "it has none"
            raise ValueError(f"{name.id} has no parameter {keyword.arg!r}: {known}")
        if keyword.arg in values:
            raise ValueError(f"{name.id} {keyword.arg} is given twice")
        values[keyword.arg] = _value(
            keyword.value, hints[keyword.arg], f"{name.id} {keyword.arg}", text
        )
    try:
        return cls(**values)
    except TypeError as error:  # a plug-in's parameter without a default
        raise ValueError(f"{name.id}: {error}") from None


def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ValueError(
            f"cannot read strategy {text!r} ({reason}): write name or name(key=value, ...)"
        ) from None


def create_strategy(text: str) -> MixStrategy:
    """The strategy that a spec text such as 'transmix(base=cutmix, attention_weight=1.0)' describes; never evaluated as code."""
    if not text.strip():
        raise ValueError(f"no strategy named: known: {', '.join(list_strategies())}")
    return _strategy(_parse(text), text.strip())


def create_strategies(text: str) -> list[MixStrategy]:
    """The strategies of a comma-separated list of spec texts; ValueError where two are the same."""
    listed = f"[{text.strip().rstrip(',')}]"
    parsed = _parse(listed)
    if not isinstance(parsed, ast.List):
        raise ValueError(f"cannot read strategies {text!r}: write a list such as cutmix,transmix")
    if not parsed.elts:
        raise ValueError(f"no strategy named: known: {', '.join(list_strategies())}")
    strategies = [_strategy(node, listed) for node in parsed.elts]
    for i, strategy in enumerate(strategies):
        if strategy in strategies[:i]:
            raise ValueError(f"strategy {strategy_spec(strategy)!r} is listed twice")
    return strategies


def strategy_spec(strategy: MixStrategy) -> str:
    """The spec text of `strategy`, the fields that differ from their defaults in order; inverse of create_strategy."""
    cls = type(strategy)
    names = [name for name, known in _registered.items() if known is cls]
    if not names:
        raise ValueError(
            f"{cls.__name__} is not registered: decorate it with @register_strategy('name')"
        )
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
    return names[0] + (f"({', '.join(parts)})" if parts else "")


def _text(value: Any, hint: Any) -> str:
    if _is_strategy(type(value)):
        return strategy_spec(value)
    value = coerce(value, hint, "value")
    bare = (
        isinstance(value, str) and value.isidentifier() and value.isascii() and not iskeyword(value)
    )
    return value if bare else repr(value)
