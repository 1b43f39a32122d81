"""The colour and marker of a strategy: they belong to its name, and are the same on every page."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

# Okabe and Ito's, yellow darkened; black is drawn as the page's ink
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#7A6A00",
    "#56B4E9",
    "#000000",
    "#E69F00",
)
BLUE, VERMILION, GREEN, PURPLE, OLIVE, SKY, BLACK, ORANGE = COLOURS
MARKERS = "osD^vP*X<>ph"


@dataclass(frozen=True)
class Look:
    """A strategy's colour and marker, filled for a strategy with its defaults."""

    colour: str
    marker: str
    filled: bool = True

    @property
    def face(self) -> str:
        """The colour inside of the marker: `none` lets what is behind it be seen."""
        return self.colour if self.filled else "none"

    @property
    def style(self) -> dict[str, Any]:
        """Colour and marker as matplotlib's `plot` takes them."""
        return {"color": self.colour, "marker": self.marker, "markerfacecolor": self.face}


FIXED = {  # those that are compared most have a colour and a marker of their own
    "cutmix": Look(BLUE, "o"),
    "transmix": Look(VERMILION, "s"),
    "mixup": Look(GREEN, "D"),
    "puzzlemix": Look(PURPLE, "^"),
    "saliencymix": Look(OLIVE, "v"),
    "attentivecutmix": Look(SKY, "P"),
    "none": Look(BLACK, "X"),
    "alternate": Look(ORANGE, "*"),
    "resizemix": Look(BLUE, "s"),
    "gridmix": Look(VERMILION, "D"),
    "fmix": Look(GREEN, "^"),
    "maskmix": Look(PURPLE, "v"),
    "tokenmix": Look(OLIVE, "P"),
    "guidedmixup": Look(SKY, "X"),
    "smmix": Look(BLACK, "s"),
    "tlalign": Look(ORANGE, "o"),
    "mixpro": Look(BLUE, "^"),
    "oacutmix": Look(GREEN, "s"),
    "regmixup": Look(VERMILION, "v"),
}


def look_of(spec: str) -> Look:
    """The look of a strategy's spec text.

    A built-in's is fixed. With parameters it keeps its colour, and has a hollow marker by a hash of
    the text; a plug-in's colour comes from the hash too. The labels of a diagram tell apart what
    may have the same.
    """
    if spec in FIXED:
        return FIXED[spec]
    number = int.from_bytes(hashlib.sha256(spec.encode("utf-8", "replace")).digest()[:8], "big")
    name = spec.partition("(")[0]
    colour = FIXED[name].colour if name in FIXED else COLOURS[number % len(COLOURS)]
    return Look(colour, MARKERS[number // len(COLOURS) % len(MARKERS)], filled=False)
