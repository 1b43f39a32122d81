"""Names and strategies: the registry and its plug-ins."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mixbench.values import did_you_mean, shown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from mixbench.mix import MixStrategy

BUILTIN = (  # each in mixbench.strategies.<name>
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

S = TypeVar("S", bound="type[MixStrategy]")

_registered: dict[str, type[MixStrategy]] = {}


def register_strategy(name: str) -> Callable[[S], S]:
    """Decorate a frozen dataclass derived from MixStrategy so that spec text finds it.

    ValueError for a name in use, and for a class that is no such dataclass.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"a strategy's name is lower-case letters, digits and _, not {name!r}")

    def add(cls: S) -> S:
        _check_class(name, cls)
        holder = _holder(name, cls)
        if holder is not None:
            raise ValueError(f"strategy name {name!r} is taken by {holder}: choose another")
        _registered[name] = cls
        return cls

    return add


def _check_class(name: str, cls: type) -> None:
    from mixbench.mix import MixStrategy

    if not (isinstance(cls, type) and issubclass(cls, MixStrategy)):
        raise ValueError(f"strategy {name!r} must be a class derived from MixStrategy, not {cls!r}")
    parameters = getattr(cls, "__dataclass_params__", None)
    if "__dataclass_fields__" not in vars(cls) or parameters is None or not parameters.frozen:
        raise ValueError(
            f"strategy {name!r} must be a frozen dataclass: put @dataclass(frozen=True) under "
            "the decorator"
        )


def _holder(name: str, cls: type) -> str | None:
    """Who but `cls`, which may be imported again, has the name; None where it is free."""
    if name in BUILTIN and cls.__module__ != f"mixbench.strategies.{name}":
        return f"mixbench.strategies.{name}"
    if name not in _registered:
        return None
    holder = _registered[name]
    if (holder.__module__, holder.__qualname__) == (cls.__module__, cls.__qualname__):
        return None
    return f"{holder.__module__}.{holder.__qualname__}"


@cache
def _entry_points() -> dict[str, EntryPoint]:
    """Other packages' strategies by name, not yet imported."""
    from importlib.metadata import entry_points

    plugins: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in BUILTIN or point.name in plugins:
            raise ValueError(
                f"strategy name {point.name!r} is taken; the plug-in {point.value} must choose "
                "another"
            )
        plugins[point.name] = point
    return plugins


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
            raise ValueError(
                f"unknown strategy {shown(name)}: {did_you_mean(name, list_strategies())}"
            )
    return _registered[name]


def registered_name(cls: type) -> str:
    """The name that a class is registered as; ValueError where it is not."""
    for name, known in _registered.items():
        if known is cls:
            return name
    raise ValueError(
        f"{cls.__name__} is not registered: decorate it with @register_strategy('name')"
    )


def load_plugin(path: str | Path) -> None:
    """Run a Python file that registers strategies; ValueError where it is missing or fails."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"plug-in file not found: {path}")
    # two files of the same name are two modules
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
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
        for name in set(_registered) - set(before) - set(BUILTIN):  # built-in ones stay imported
            del _registered[name]
        raise ValueError(f"plug-in {path} failed: {type(error).__name__}: {error}") from error
    if _registered == before:
        raise ValueError(
            f"plug-in {path} registered no strategy: decorate a class with "
            "@register_strategy('name')"
        )
