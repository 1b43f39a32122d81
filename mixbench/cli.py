"""The command line: a command's name to its exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mixbench.commands.bench import bench, speed, train
from mixbench.commands.eval import evaluate
from mixbench.commands.list import list_command
from mixbench.commands.report import report
from mixbench.commands.status import status_of
from mixbench.commands.sweep import sweep
from mixbench.commands.zoo import zoo
from mixbench.values import did_you_mean, shown

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "bench": bench,
    "train": train,
    "speed": speed,
    "report": report,
    "eval": evaluate,
    "sweep": sweep,
    "list": list_command,
    "zoo": zoo,
}


def main(argv: list[str] | None = None) -> int:
    """Run the command whose name comes first, `bench` where there is none; the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    name = argv.pop(0) if argv and not argv[0].startswith("-") else "bench"
    return status_of(lambda: _command(name)(argv))


def _command(name: str) -> Callable[[list[str]], int]:
    if name not in COMMANDS:
        raise ValueError(f"unknown command {shown(name)}: {did_you_mean(name, COMMANDS)}")
    return COMMANDS[name]
