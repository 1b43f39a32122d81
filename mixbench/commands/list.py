"""The command that lists the strategies."""

from __future__ import annotations

import dataclasses
from typing import Any

from mixbench.commands.options import Parser, add_plugin_option, load_plugins
from mixbench.mix import MixStrategy
from mixbench.registry import list_strategies, strategy_class
from mixbench.spec import strategy_spec


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
        parameters = []
        for field in dataclasses.fields(strategy_class(name)):  # type: ignore[arg-type]
            if field.default is dataclasses.MISSING:
                parameters.append(field.name)
            else:
                parameters.append(f"{field.name}={_default_text(field.default)}")
        print(f"{name}({', '.join(parameters)})" if parameters else name)


def _default_text(value: Any) -> str:
    return strategy_spec(value) if isinstance(value, MixStrategy) else str(value)
