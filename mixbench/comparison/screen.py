"""What a running comparison tells on the screen or in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from mixbench.visible import visible

QUIET = 60  # seconds without a line after which a log gets one
LOG_WIDTH = 150  # columns where the output is no terminal
UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60))


def duration(seconds: float) -> str:
    """A time as a person says it."""
    for unit, size in UNITS:
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} seconds"


def make_console() -> Console:
    """A console as wide as its terminal, or wide enough for the tables in a file."""
    return Console(width=None if sys.stdout.isatty() else LOG_WIDTH)


def time_left(begun: tuple[int, float], done: int, now: float, work: float) -> str:
    """The time left of `work` at the rate since `begun`, a number done and when; "" without one."""
    first, since = begun
    if done <= first:
        return ""
    return f"{duration((now - since) / (done - first) * (work - done))} left"


class Screen:
    """Lines and progress bars of the first process; the others say nothing."""

    def __init__(self, *, speaks: bool):
        self.console = make_console()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
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
    def counting(
        self, title: str, unit: str, later: float = 0.0
    ) -> Iterator[Callable[[int, int], None]]:
        """A progress bar; what it yields is called with the number done and the number in all.

        It says the time that is left, with `later` times its own work that comes after it. Where
        the output is no terminal, a line such as `unit 3/40  2.5 hours left` comes once a minute.
        """
        task = self.progress.add_task(title, left="")
        begun: list[tuple[int, float]] = []  # the first call: a resumed run does not begin at 0

        def tick(done: int, total: int) -> None:
            now = time.monotonic()
            begun[:] = begun or [(done, now)]
            left = time_left(begun[0], done, now, total * (1 + later))
            self.progress.update(task, completed=done, total=total, left=left)
            if not self.console.is_terminal and now - self._last > QUIET:
                self.say(f"{unit} {done}/{total}  {left}".rstrip())

        yield tick
        self.progress.remove_task(task)
