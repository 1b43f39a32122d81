"""What a running comparison tells on the screen or in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from mixbench.visible import visible

QUIET = 60  # seconds without a line after which a log gets one
LOG_WIDTH = 150  # columns where the output is no terminal


def make_console() -> Console:
    """A console as wide as its terminal, or wide enough for the tables in a file."""
    return Console(width=None if sys.stdout.isatty() else LOG_WIDTH)


class Screen:
    """Lines and progress bars of the first process; the others say nothing."""

    def __init__(self, *, speaks: bool):
        self.console = make_console()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal or not speaks,
        )
        self._speaks = speaks
        self._last = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line."""
        if self._speaks:
            self._last = time.monotonic()
            self.console.print(Text(visible(line)), soft_wrap=True)

    @contextmanager
    def counting(self, title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar; what it yields is called with the number done and the number in all.

        Where the output is no terminal, a line such as `unit 3/40` comes once a minute.
        """
        task = self.progress.add_task(title)

        def tick(done: int, total: int) -> None:
            self.progress.update(task, completed=done, total=total)
            if not self.console.is_terminal and time.monotonic() - self._last > QUIET:
                self.say(f"{unit} {done}/{total}")

        yield tick
        self.progress.remove_task(task)
