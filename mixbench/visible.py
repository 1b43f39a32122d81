"""Names and values as text: of a fit length, and nothing that a terminal or a plot would obey."""

from __future__ import annotations

LONGEST = 60  # characters of a value in a sentence


def shortened(text: str, longest: int = LONGEST) -> str:
    """A text of at most so many characters: of a longer one the beginning and the end."""
    if len(text) <= longest:
        return text
    half = (longest - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def visible(text: str) -> str:
    """`text` on one line: control characters, line breaks and what is no character as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
