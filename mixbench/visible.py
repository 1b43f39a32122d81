"""Names as text: what a terminal, a plot or a file of lines would take for something else."""

from __future__ import annotations


def visible(text: str) -> str:
    """`text` on one line: control characters, line breaks and what is no character as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
