"""How commands print."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mixbench.visible import visible


def print_line(text: str) -> None:
    """Print a text on one line at once, what a terminal would obey as escapes."""
    print(visible(text), flush=True)


def print_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> None:
    """Print a table of plain text, a line a row; the columns `right` hold figures."""
    cells = [header, *([visible(cell) or "-" for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        columns = enumerate(zip(line, widths, strict=True))
        padded = [
            cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in columns
        ]
        print("  ".join(padded).rstrip(), flush=True)
