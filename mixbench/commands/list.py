"""The command that lists the strategies."""

from __future__ import annotations

import dataclasses
from typing import Any

from mixbench.commands.options import Parser, add_plugin_option, load_plugins
from mixbench.commands.printing import print_line
from mixbench.errors import sentence
from mixbench.mix import MixStrategy
from mixbench.registry import list_strategies, shadowed_plugins, strategy_class
from mixbench.spec import strategy_spec
from mixbench.values import error_text


def list_command(argv: list[str]) -> int:
    """Print the strategies with their parameters; the exit status."""
    parser = Parser("list")
    add_plugin_option(parser)
    load_plugins(parser.parse(argv))
    print_strategies()
    return 0


def print_strategies() -> None:
    """Print every registered strategy with its parameters and their defaults."""
    for name in list_strategies():
        try:
            print_line(sentence(_signature(name)))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plug-in that is broken in any way ends nothing
            words = error_text(error).removeprefix("ValueError: ")
            print_line(sentence(f"{name} is broken: {words}"))
    for line in shadowed_plugins():
        print_line(sentence(line))


def _signature(name: str) -> str:
    """A strategy's name with its parameters and their defaults."""
    parameters = []
    for field in dataclasses.fields(strategy_class(name)):  # type: ignore[arg-type]
        if field.default is not dataclasses.MISSING:
            parameters.append(f"{field.name}={_default_text(field.default)}")
        elif field.default_factory is not dataclasses.MISSING:
            parameters.append(f"{field.name}={_default_text(field.default_factory())}")
        else:
            parameters.append(field.name)
    return f"{name}({', '.join(parameters)})" if parameters else name


def _default_text(value: Any) -> str:
    return strategy_spec(value) if isinstance(value, MixStrategy) else str(value)
