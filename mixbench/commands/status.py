"""The exit status of a command, and its mistakes as sentences."""

from __future__ import annotations

import sys
from collections.abc import Callable

STAYS = "what was written so far stays, --resume goes on from there"


def status_of(command: Callable[[], int]) -> int:
    """Run a command: 0, 1 where a strategy failed, 2 for a user's mistake, 130 when interrupted."""
    try:
        return command()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; {STAYS}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted: {STAYS}", file=sys.stderr)
        return 130
    except Exception:  # a dead loader worker, or a fault of ours: the traceback says which
        print(f"stopped: {STAYS}", file=sys.stderr)
        raise
