"""How every diagram looks, and the SVG text that it becomes."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from mixbench.report.fonts import FAMILY, family_of, set_fonts
from mixbench.report.looks import COLOURS, look_of
from mixbench.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CUT_ESCAPE = r"\\(x[0-9a-f]?|u[0-9a-f]{0,3}|U[0-9a-f]{0,7})?$"  # the beginning of an escape
PART = 44  # letters of a strategy that stand on one line at most
INK = "#333333"  # lines that are no strategy's
FAINT = "#888888"
BAND = "#d0d0d0"  # what a control leaves open
# what a page may draw otherwise in the dark: each colour is a variable of the page's style
THEMED = (*COLOURS, INK, FAINT, BAND, "#dddddd")

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


def themed(tag: str) -> str:
    """A tag of SVG whose colours are variables of the page, which has others in the dark."""
    for colour in THEMED:
        variable = f"var(--c{colour[1:].lower()}, {colour})"
        tag = re.sub(rf"(?<=: ){colour}\b", variable, tag, flags=re.IGNORECASE)
    return tag


def spread_out(centres: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Places near the centres where pieces of these sizes do not overlap, in their order.

    Pieces that would are laid side by side around the mean of what they wanted (pool adjacent
    violators).
    """
    order = sorted(range(len(centres)), key=lambda i: centres[i])
    groups: list[tuple[list[int], float, float]] = []  # members, first's wanted begin, length
    for i in order:
        members, begin, length = [i], centres[i] - sizes[i] / 2, sizes[i]
        while groups and groups[-1][1] + groups[-1][2] > begin:
            others, other_begin, other_length = groups.pop()
            # each member wants the group to begin where it would stand at its own centre
            begin = (other_begin * len(others) + (begin - other_length) * len(members)) / (
                len(others) + len(members)
            )
            members, length = others + members, other_length + length
        groups.append((members, begin, length))
    places = [0.0] * len(centres)
    for members, begin, _ in groups:
        for i in members:
            places[i] = begin + sizes[i] / 2
            begin += sizes[i]
    return places


MARK = "_mark"  # the label of what stands beside a name: no legend takes it
LABEL = 9  # points of a label's letters
LINE = 1.3 * LABEL  # points of a label's line


def label_beside(axis: Axes, points: Mapping[str, tuple[float, float]], height: float) -> None:
    """Name points right of the axes, where no name covers another.

    Each name has its strategy's mark, and a line to its point.

    The axes' limits stand already; `height` are the axes' inches.
    """
    texts = {name: wrapped(name, 20) for name in points}
    low, high = axis.get_ylim()
    wanted = [72 * height * (y - low) / (high - low) for _, y in points.values()]
    sizes = [LINE * (text.count("\n") + 1) + 2 for text in texts.values()]
    places = spread_out(wanted, sizes)
    shift = min(0.0, 72 * height - max(p + s / 2 for p, s in zip(places, sizes, strict=True)))
    lowest = min(p - s / 2 for p, s in zip(places, sizes, strict=True)) + shift
    shift -= min(0.0, lowest)
    for (name, point), place in zip(points.items(), places, strict=True):
        look, level = look_of(name), (place + shift) / (72 * height)
        axis.plot(
            [1.075],
            [level],
            transform=axis.transAxes,
            clip_on=False,
            markersize=5,
            label=MARK,
            **look.style,
        )
        axis.annotate(
            texts[name],
            xy=point,
            xytext=(1.1, level),
            textcoords="axes fraction",
            va="center",
            fontsize=LABEL,
            linespacing=1.1,
            arrowprops={
                "arrowstyle": "-",
                "color": FAINT,
                "linewidth": 0.6,
                "shrinkA": 13,
                "shrinkB": 5,
                "relpos": (0, 0.5),
            },
        )


def label_room(names: Iterable[str]) -> float:
    """The least inches of axes beside which all names have room."""
    return sum(LINE * (wrapped(name, 20).count("\n") + 1) + 2 for name in names) / 72


class Drawing:
    """One diagram: `with Drawing(name, description, height) as axes`, then `svg`.

    `svg` is text that needs no other file; `axes` has `rows` times `columns` of them, row by row.
    heights are those of the rows, relative to each other; without them all are alike.
    """

    def __init__(
        self,
        name: str,
        description: str,
        height: float,
        rows: int = 1,
        columns: int = 1,
        heights: Sequence[float] | None = None,
    ):
        self.name, self.description, self.height = name, description, height
        self.rows, self.columns, self.heights = rows, columns, heights
        self.svg = ""

    def __enter__(self) -> list[Axes]:
        self._plt = pyplot()
        self._stack = ExitStack()
        self._stack.enter_context(self._plt.rc_context({**STYLE, "svg.hashsalt": self.name}))
        self.figure: Figure
        self.figure, axes = self._plt.subplots(
            self.rows,
            self.columns,
            figsize=(WIDTH, self.height),
            squeeze=False,
            layout="constrained",
            height_ratios=self.heights,
        )
        self._stack.callback(self._plt.close, self.figure)
        return list(axes.flat)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._stack:
            if kind is None:
                self.svg = self._text()

    def _text(self) -> str:
        set_fonts(self.figure)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self.figure.savefig(stream, format="svg", metadata=nothing, transparent=True)
        text = stream.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
        text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
        text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
        text = re.sub(r'\bid="', f'id="{self.name}-', text)  # several drawings share one page
        text = re.sub(r'(href="#|url\(#)', rf"\1{self.name}-", text)
        text = re.sub(r"<[^>]*>", lambda tag: themed(tag[0]), text)
        label = html.escape(visible(self.description), quote=True)
        return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
