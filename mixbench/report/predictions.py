"""What transferred networks predict of the same photographs, beside one another and the truth."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mixbench.report.evaluated import Evaluated
from mixbench.report.template import data_url
from mixbench.runs.merge import ReportData
from mixbench.transfer.tasks import GAP, TASKS


class Column(NamedTuple):
    """Photographs of a picture below one another, as a data URL, and what they show."""

    title: str
    url: str


def predictions(each: Evaluated, data: ReportData, order: Iterable[str]) -> list[Column]:
    """The truth, and what each strategy's network of its first seed predicts; [] without any."""
    if each.name not in TASKS:
        return []
    titles = TASKS[each.name].columns
    found: list[Column] = []
    for spec, seed, file in _pictures(each, data, order):
        try:
            urls = _columns(file, len(titles))
        except OSError:  # gone, or damaged
            continue
        if not found:
            found = [Column(title, url) for title, url in zip(titles[:-1], urls[:-1], strict=True)]
        found.append(Column(f"{spec}, seed {seed}", urls[-1]))
    return found


def _pictures(
    each: Evaluated, data: ReportData, order: Iterable[str]
) -> Iterator[tuple[str, int, Path]]:
    """Strategy, seed and file of the first seed of each strategy that has a picture."""
    by_strategy: dict[str, list[tuple[int, Path]]] = {spec: [] for spec in order}
    pictures = data.pictures.get(each.kind, {})
    for (spec, seed), file in pictures.items():
        if file.is_file():
            by_strategy.setdefault(spec, []).append((seed, file))
    for spec, files in by_strategy.items():
        if files:
            yield spec, *min(files)


def _columns(file: Path, count: int) -> Sequence[str]:
    """The columns of a picture as data URLs; OSError where it cannot be read."""
    from PIL import Image

    urls = []
    with Image.open(file) as sheet:
        width = (sheet.width - (count - 1) * GAP) // count
        for number in range(count):
            left = number * (width + GAP)
            buffer = io.BytesIO()
            sheet.crop((left, 0, left + width, sheet.height)).save(buffer, "JPEG", quality=85)
            urls.append(data_url(buffer.getvalue(), "jpeg"))
    return urls
