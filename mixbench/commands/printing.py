"""How commands print."""

from __future__ import annotations

from mixbench.visible import visible


def print_line(text: str) -> None:
    """Print a text on one line at once, what a terminal would obey as escapes."""
    print(visible(text), flush=True)
