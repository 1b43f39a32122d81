"""The exit status of a command, and its mistakes as sentences."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from mixbench.errors import Ending, OtherEnded, ending
from mixbench.watch import process_count

PIPE_CLOSED = 141  # as of a process that a signal ends: nobody reads what it prints


def status_of(command: Callable[[], int]) -> int:
    """Run a command: 0, 1 where a strategy failed, 2 for a user's mistake, 130 when interrupted.

    141 where nobody reads what it prints. One of several processes tells the others of a mistake.
    """
    _prepare_streams()
    try:
        try:
            return command()
        except SystemExit:  # --help ends so
            raise
        except BaseException as error:
            if isinstance(error, BrokenPipeError) and _closed(sys.stdout):
                raise
            result = _end(error)
            if result.fault:  # the traceback says where
                raise
            return result.status
        finally:
            sys.stdout.flush()
    except OSError as error:
        for stream in (sys.stdout, sys.stderr):
            _silence(stream)
        if isinstance(error, BrokenPipeError):
            return PIPE_CLOSED
        print(ending(error).sentence, file=sys.stderr)
        return 1


def _end(error: BaseException) -> Ending:
    """Say what an error means, to the other processes too."""
    result = ending(error)
    print(result.sentence, file=sys.stderr, flush=True)
    if not isinstance(error, OtherEnded) and _has_others():
        from mixbench.distributed import decline

        decline(result)
    return result


def _has_others() -> bool:
    """Whether torchrun started other processes; with a wrong number of them there are none."""
    try:
        return process_count() > 1
    except ValueError:
        return False


def _prepare_streams() -> None:
    """Have streams that take every text: names may hold what the terminal's encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # its descriptor was exchanged for one of another kind
                stream.reconfigure(errors="backslashreplace")


def _closed(stream: TextIO) -> bool:
    """Whether a stream is a pipe that nobody reads any more."""
    if not hasattr(select, "poll"):
        return True  # what else would be broken is not known
    poll = select.poll()
    with suppress(OSError, ValueError):
        poll.register(stream, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    return False


def _silence(stream: TextIO) -> None:
    """Keep Python from trying, and complaining, at its end where a stream cannot be written."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
