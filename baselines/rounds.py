"""What the pages of measurements share: one thread, interleaved rounds, ratios, and their files."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from mixbench.files import replace_file
from mixbench.runs.environment import today, versions


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_turns(names: Iterable[str], rounds: int, warm_ups: int = 1) -> Iterator[tuple[str, bool]]:
    """Each name in turn, in the other order every other round, and whether the round counts."""
    names = list(names)
    for number in range(-warm_ups, rounds):
        for name in names[:: -1 if number % 2 else 1]:
            yield name, number >= 0


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Each round's value by the other's of the same round."""
    return [value / other for value, other in zip(values, others, strict=True)]


def spread(values: Sequence[float], digits: int) -> str:
    """The median with the least and the most."""
    least, most = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} [{least:.{digits}f}, {most:.{digits}f}]"


def footer(command: str, machine: str) -> str:
    """How a page can be made again, and what it was made on; `command` is Markdown."""
    return f"Command: {command}. Machine: {machine}. Versions: {versions()}."


def command_of(script: str, **options: object) -> str:
    """The command that measures the same again; where data lie on the machine is left out."""
    words = ["python", f"baselines/{script}.py"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value.name if isinstance(value, Path) else value]
    return shlex.join(map(str, words))


def write_page(results: Path, name: str, text: str) -> None:
    """Print a page and write it into the folder as today's."""
    replace_file(results / f"{name}-{today()}.md", text)
    print(text)
