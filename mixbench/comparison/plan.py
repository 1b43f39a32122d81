"""None"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixbench.recipe import Recipe, recipe_text

if TYPE_CHECKING:
    from mixbench.mix import MixStrategy


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to compare and where to write it."""

    strategies: list[MixStrategy]
    recipe: Recipe
    seeds: tuple[int, ...]
    out: Path
    command: str
    data: Path | None = None
    dataset: str | None = None
    download: bool = False
    limit_train: int | None = None
    limit_val: int | None = None
    mode: str = "both"
    rounds: int = 5
    device: str = "auto"
    workers: int | None = None
    cache: str | None = None
    csv: Path | None = None
    resume: bool = False
    profile: bool = False
    peers: bool = False
    log: str | None = None

    @property
    def stamp(self) -> str:
        """What an output directory is of: the recipe and the data; others' rows would not be comparable."""
        source = {
            "data": str(self.data or self.dataset or "scenes"),
            "limit_train": self.limit_train,
            "limit_val": self.limit_val,
        }
        return f"# data: {json.dumps(source)}\n{recipe_text(self.recipe)}"
