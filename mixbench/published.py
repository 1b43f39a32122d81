"""The published figures, one CSV a table in baselines/published, read as rows of text."""

from __future__ import annotations

import csv
from pathlib import Path


def published_dir() -> Path:
    """Where the published figures lie: inside an installed package, beside it in a checkout."""
    inside = Path(__file__).parent / "published"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "baselines" / "published"


def published_table(name: str) -> list[dict[str, str]]:
    """The rows of 'table1' ... 'table10' or 'openmixup_deit', figures as printed; lines that begin with # say the source."""
    with (published_dir() / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))
