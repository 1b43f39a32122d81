"""What to compare and where to write it, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mixbench.data.datasets import TORCHVISION, open_data
from mixbench.data.sources import Data
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe
from mixbench.runs.identity import Identity


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
    mode: str = "both"  # 'accuracy', 'speed' or 'both'
    rounds: int = 5
    device: str = "auto"
    workers: int | None = None  # None: by the data and the cores
    cache: str | None = None
    csv: Path | None = None
    json: Path | None = None
    resume: bool = False
    profile: bool = False
    peers: bool = False
    log: str | None = None

    @property
    def source(self) -> str:
        """Where the data are, or what they are called."""
        return str(self.data or self.dataset or "scenes")

    def identity(self, data: Data) -> Identity:
        """What the output directory is of."""
        return Identity(self.recipe, data.identity, self.source, self.limit_train, self.limit_val)

    @property
    def opens_quickly(self) -> bool:
        """Whether its data are opened without torch, and nothing is fetched for them."""
        return self.data is not None or self.dataset not in TORCHVISION

    @property
    def trains(self) -> bool:
        """Whether accuracy is measured."""
        return self.mode != "speed"

    @property
    def times(self) -> bool:
        """Whether speed is measured."""
        return self.mode != "accuracy"

    @property
    def files(self) -> dict[str, Path | None]:
        """The files outside the output directory, by option."""
        return {"--csv": self.csv, "--json": self.json}


def plan_data(plan: Plan) -> Data:
    """The data that a plan names; ValueError says what is wrong with them."""
    return open_data(
        data=plan.data,
        dataset=plan.dataset,
        download=plan.download,
        image_size=plan.recipe.image_size,
        limit_train=plan.limit_train,
        limit_val=plan.limit_val,
    )
