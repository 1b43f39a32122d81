"""The command line: a command's name to its exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from mixbench.commands.bench import bench, speed, train
from mixbench.commands.eval import evaluate
from mixbench.commands.list import list_command, zoo
from mixbench.commands.options import overview
from mixbench.commands.report import report
from mixbench.commands.status import status_of
from mixbench.commands.sweep import sweep
from mixbench.commands.transfer import transfer
from mixbench.values import did_you_mean, shown

# what these write names the command, as it was typed
RECORDED: dict[str, Callable[[list[str], list[str]], int]] = {
    "bench": bench,
    "train": train,
    "speed": speed,
    "sweep": sweep,
}
OTHERS: dict[str, Callable[[list[str]], int]] = {
    "report": report,
    "eval": evaluate,
    "transfer": transfer,
    "list": list_command,
    "zoo": zoo,
}


def main(argv: list[str] | None = None, *, script: bool = False) -> int:
    """Run the command whose name comes first, `bench` where options come first; the exit status.

    Without anything, and with --help alone, it is the help of all commands; of bench.py, the
    `script`, it is `bench` then too.
    """
    program = called(sys.orig_argv, sys.argv) if argv is None else ["mixbench"]
    argv = sys.argv[1:] if argv is None else list(argv)
    if not script and argv in ([], ["-h"], ["--help"]):
        return status_of(_overview)
    return status_of(lambda: _run(argv, [*program, *argv]))


def _overview() -> int:
    print(overview())
    return 0


def called(original: list[str], argv: list[str]) -> list[str]:
    """How the command was called, without what follows: `mixbench`, `python bench.py`, ...

    original is sys.orig_argv, which begins with the interpreter, and argv is sys.argv.
    """
    if Path(argv[0]).stem == "mixbench":  # what pip made of the entry point
        return ["mixbench"]
    return original[: len(original) - len(argv) + 1]


def _run(argv: list[str], typed: list[str]) -> int:
    named = bool(argv) and not argv[0].startswith("-")
    name, options = (argv[0], argv[1:]) if named else ("bench", argv)
    if name in RECORDED:
        return RECORDED[name](options, typed)
    if name in OTHERS:
        return OTHERS[name](options)
    raise ValueError(f"unknown command {shown(name)}: {did_you_mean(name, [*RECORDED, *OTHERS])}")
