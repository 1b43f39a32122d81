"""Names and strategies: the registry and its plug-ins."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mixbench.values import did_you_mean, error_text, shown

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
    "resizemix",
    "gridmix",
    "fmix",
    "maskmix",
    "tokenmix",
    "guidedmixup",
    "smmix",
    "transmix",
    "tlalign",
    "mixpro",
    "oacutmix",
    "regmixup",
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
def _entry_points() -> dict[str, list[EntryPoint]]:
    """Other packages' strategies by name, not yet imported; more than one has the same name."""
    from importlib.metadata import entry_points

    plugins: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.value):
        points = plugins.setdefault(point.name, [])
        if point.value not in [known.value for known in points]:  # a package may be there twice
            points.append(point)
    return plugins


def list_strategies() -> list[str]:
    """The names of all strategies, built-in first, then plug-ins; some may be broken."""
    return [*BUILTIN, *sorted({*_registered, *_entry_points()} - {*BUILTIN})]


def shadowed_plugins() -> list[str]:
    """A line for each installed plug-in that took a built-in strategy's name, which is not used."""
    return [
        f"{point.value} is left out: its name {name} is mixbench's own; it must choose another"
        for name in BUILTIN
        for point in _entry_points().get(name, ())
    ]


def is_builtin(cls: type) -> bool:
    """Whether a class is one of mixbench's own strategies."""
    return any(_registered.get(name) is cls for name in BUILTIN)


def strategy_class(name: str) -> type[MixStrategy]:
    """The class registered as `name`; ValueError with the nearest name for an unknown one."""
    if name not in _registered:
        if name in BUILTIN:
            importlib.import_module(f"mixbench.strategies.{name}")
        elif name in _entry_points():
            _load_entry_point(name)
        else:
            raise ValueError(
                f"unknown strategy {shown(name)}: {did_you_mean(name, list_strategies())}"
            )
    return _registered[name]


def _load_entry_point(name: str) -> None:
    """Import an installed plug-in; ValueError where it is broken, or two packages have the name."""
    points = _entry_points()[name]
    if len(points) > 1:
        values = " and ".join(point.value for point in points)
        raise ValueError(f"strategy name {name!r} is taken twice, by {values}: uninstall one")
    with _loading(f"installed plug-in {points[0].value}"):
        loaded = points[0].load()
        if name not in _registered:
            register_strategy(name)(loaded)


def registered_name(cls: type) -> str:
    """The name that a class is registered as; ValueError where it is not."""
    for name, known in _registered.items():
        if known is cls:
            return name
    raise ValueError(
        f"{cls.__name__} is not registered: decorate it with @register_strategy('name')"
    )


def load_plugin(plugin: str | Path) -> None:
    """Import a module, or run a Python file, that registers strategies; ValueError where it fails.

    Text such as `package.module` names a module, whatever lies in this folder; text that ends in
    .py or holds a folder, and every Path, a file. One that fails leaves nothing behind.
    """
    if isinstance(plugin, str) and _is_module(plugin):
        _load_module(plugin)
    else:
        _load_file(Path(plugin))


def _is_module(text: str) -> bool:
    """Whether text is a module's name, and no file's."""
    return not text.endswith(".py") and all(part.isidentifier() for part in text.split("."))


def _load_module(name: str) -> None:
    if name in sys.modules:
        return
    before, modules = dict(_registered), set(sys.modules)
    try:
        with _loading(f"plug-in module {shown(name)}"):
            importlib.import_module(name)
        _require_more(before, f"module {name}")
    except BaseException as error:
        for known in set(sys.modules) - modules:  # parts that were imported before it failed
            if f"{known}.".startswith(f"{name}."):
                del sys.modules[known]
        if isinstance(cause := error.__cause__, ModuleNotFoundError) and cause.name in _above(name):
            raise ValueError(
                f"plug-in module not found: {shown(name)}: install its package, put its folder "
                "into PYTHONPATH, or give a file that ends in .py"
            ) from None
        raise


def _above(name: str) -> list[str]:
    """A module's name and those of the packages that it lies in."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _load_file(path: Path) -> None:
    _check_file(path)
    real = path.resolve()  # however it is written, it is the same module
    # two files of the same name are two modules
    place = hashlib.sha256(str(real).encode(errors="surrogateescape")).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"mixbench_plugin_{real.stem}_{place}", real)
    if spec is None or spec.loader is None:
        raise ValueError(f"plug-in {path} is not a Python file: give a path that ends in .py")
    module = importlib.util.module_from_spec(spec)
    before = dict(_registered)
    earlier = sys.modules.get(spec.name)
    sys.modules[spec.name] = module  # where dataclasses look up annotations, and pickle classes
    try:
        with _loading(f"plug-in {path}", real):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        if earlier is not None:
            sys.modules[spec.name] = earlier
        raise
    _require_more(before, str(path))


def _require_more(before: dict[str, type[MixStrategy]], what: str) -> None:
    """ValueError where no strategy was registered since."""
    if _registered == before:
        raise ValueError(
            f"plug-in {what} registered no strategy: decorate a class with "
            "@register_strategy('name')"
        )


def _check_file(path: Path) -> None:
    """ValueError where a path is no regular file: opening a pipe would wait for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        known = isinstance(error, FileNotFoundError)
        reason = "" if known else f" ({error_text(error, 100)})"
        raise ValueError(f"plug-in file not found: {str(path)!s:.200}{reason}") from None
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise ValueError(f"plug-in {path} is {kind}: give a Python file that registers strategies")


@contextmanager
def _loading(what: str, file: Path | None = None) -> Iterator[None]:
    """Run someone else's import: ValueError for whatever it raises, and nothing of it stays.

    Built-in strategies that it was the first to import stay known.
    """
    before = dict(_registered)
    settings = _settings()
    try:
        yield
        _require_settings(settings)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also sys.exit
        for name in set(_registered) - {*BUILTIN}:
            del _registered[name]
        _registered.update(before)
        line = _line_of(error, file)
        raise ValueError(f"{what} failed{line}: {error_text(error)}") from error


def _settings() -> dict[str, Any]:
    """The process's settings; where torch is not imported, those that it will have."""
    if "torch" not in sys.modules:
        return {}
    from mixbench.settings import settings

    return settings()


def _require_settings(before: dict[str, Any]) -> None:
    """Put the process's settings back; BrokenRule where an import changed them."""
    if "torch" in sys.modules:
        from mixbench.settings import FRESH, require_as_before

        require_as_before(before or FRESH, "the import of a plug-in")


def _line_of(error: BaseException, file: Path | None) -> str:
    """Where in a file an error came up, in words; '' where that is elsewhere."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if file is not None and frame.filename == str(file)
    ]
    if isinstance(error, SyntaxError) and error.filename == str(file) and error.lineno:
        lines = [error.lineno]
    return f" in line {lines[-1]}" if lines else ""
