"""Fonts of the diagrams: one of matplotlib's own, and installed ones for the letters it lacks."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAMILY = "DejaVu Sans"
NO_LETTERS = r"Last Resort|STIXNonUnicode|cm[a-z]+10$"  # fonts of boxes, or of codes of their own


@cache
def installed() -> dict[str, str]:
    """The file of each installed upright font that matplotlib lists, by family, in order."""
    from matplotlib.font_manager import fontManager

    fonts = sorted((font.name, font.fname) for font in fontManager.ttflist if _upright(font))
    return {name: file for name, file in fonts if not re.match(NO_LETTERS, name)}


def _upright(font: object) -> bool:
    style, weight = getattr(font, "style", ""), getattr(font, "weight", "")
    return style == "normal" and weight in (400, "normal", "regular")


@cache
def letters(file: str) -> frozenset[str]:
    """The characters that a font has; none where it cannot be read, or is of pixels (emoji)."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


@cache
def family_of(letter: str) -> str | None:
    """The family that draws a character: FAMILY, else the first installed one; None without."""
    from matplotlib.font_manager import findfont

    if letter in letters(findfont(FAMILY)):
        return FAMILY
    return next((name for name, file in installed().items() if letter in letters(file)), None)


def families(text: str) -> list[str]:
    """FAMILY and the further families that a text of one or more lines needs."""
    needed = (family_of(letter) for letter in text if letter != "\n")
    return list(dict.fromkeys([FAMILY, *(name for name in needed if name)]))


def set_fonts(figure: Figure) -> None:
    """Give each text of a figure the families that it needs."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        needed = families(text.get_text())
        if len(needed) > 1:
            text.set_fontfamily(needed)
