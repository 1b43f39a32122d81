"""How every diagram looks, and the SVG text that it becomes."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixbench.report.fonts import FAMILY, family_of, set_fonts
from mixbench.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's, yellow darkened
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
CUT_ESCAPE = r"\\(x[0-9a-f]?|u[0-9a-f]{0,3}|U[0-9a-f]{0,7})?$"  # the beginning of an escape
PART = 44  # letters of a strategy that stand on one line at most
MARKERS = "osD^vP*X"

# Five inches wide with text of ten points: legible on a phone, where an SVG unit is about a pixel.
WIDTH = 5
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": [FAMILY],
    "text.parse_math": False,  # a name's $ is a letter
    "font.size": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def pyplot() -> Any:
    """matplotlib.pyplot, without a window."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def drawable(text: str) -> str:
    """`text` on one line, characters that no installed font has as escapes (`\\u4e2d`)."""
    return "".join(
        c if family_of(c) else c.encode("unicode_escape").decode() for c in visible(text)
    )


def fitted(text: str, width: int) -> str:
    """The beginning of a text, drawable, in the room of `width` letters; `…` for what is cut."""
    from rich.cells import cell_len, set_cell_size

    text = drawable(text)
    if cell_len(text) <= width:
        return text
    begin = set_cell_size(text, width - 1).rstrip()
    return re.sub(CUT_ESCAPE, "", begin) + "…"


def wrapped(name: str, width: int = 22) -> str:
    """Lines of about `width` characters, broken after an opening bracket or a comma.

    A part that is longer than PART is shortened: else it would leave no room for the diagram.
    """
    from rich.cells import cell_len, set_cell_size

    lines = [""]
    for part in filter(None, re.findall(r"[^(,]*[(,]?\s*", drawable(name))):
        if cell_len(part) > PART:
            begin, end = (set_cell_size(p, PART // 2).rstrip() for p in (part, part[::-1]))
            part = f"{begin}…{end[-2::-1]}"
        if lines[-1] and cell_len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True)
class Look:
    """A strategy's colour and marker, the same in every diagram."""

    colour: str
    marker: str


def looks(strategies: Sequence[str]) -> dict[str, Look]:
    """A look for each strategy."""
    return {
        name: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(strategies)
    }


class Drawing:
    """One diagram: `with Drawing(name, description, height) as axes`, then `svg`.

    `svg` is text that needs no other file; `axes` has `rows` of them, below one another.
    """

    def __init__(self, name: str, description: str, height: float, rows: int = 1):
        self.name, self.description, self.height, self.rows = name, description, height, rows
        self.svg = ""

    def __enter__(self) -> list[Axes]:
        self._plt = pyplot()
        self._stack = ExitStack()
        self._stack.enter_context(self._plt.rc_context({**STYLE, "svg.hashsalt": self.name}))
        self.figure: Figure
        self.figure, axes = self._plt.subplots(
            self.rows, 1, figsize=(WIDTH, self.height), squeeze=False, layout="constrained"
        )
        self._stack.callback(self._plt.close, self.figure)
        return list(axes[:, 0])

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._stack:
            if kind is None:
                self.svg = self._text()

    def _text(self) -> str:
        set_fonts(self.figure)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self.figure.savefig(stream, format="svg", metadata=nothing)
        text = stream.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
        text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
        text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
        text = re.sub(r'\bid="', f'id="{self.name}-', text)  # several drawings share one page
        text = re.sub(r'(href="#|url\(#)', rf"\1{self.name}-", text)
        label = html.escape(visible(self.description), quote=True)
        return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
