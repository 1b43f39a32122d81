"""What to compare and where to write it, checked before anything heavy is imported."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from mixbench.data.datasets import open_data
from mixbench.data.folders import check_splits
from mixbench.data.sources import Data
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe, recipe_hash
from mixbench.runs.directory import RunDirectory, numbered
from mixbench.runs.identity import Identity, digest
from mixbench.spec import strategy_spec


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to compare and where to write it."""

    strategies: list[MixStrategy]
    recipe: Recipe
    seeds: tuple[int, ...]
    out: Path  # where it is not `named`, what the directory's name begins with
    command: str
    named: bool = True
    data: Path | None = None
    dataset: str | None = None
    download: bool = False
    limit_train: int | None = None
    limit_val: int | None = None
    check_data: bool = False
    skip_unreadable: bool = False
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
    data = open_data(
        data=plan.data,
        dataset=plan.dataset,
        download=plan.download,
        image_size=plan.recipe.image_size,
        limit_train=plan.limit_train,
        limit_val=plan.limit_val,
    )
    if not (plan.check_data or plan.skip_unreadable):
        return data
    from mixbench.comparison.screen import Screen
    from mixbench.data.check import check_images

    screen = Screen(speaks=os.environ.get("RANK", "0") == "0")
    with screen.progress:
        return check_images(data, skip=plan.skip_unreadable, counting=screen.counting)


def check_early(plan: Plan) -> None:
    """ValueError for what is wrong with a plan's folders before its images are listed."""
    if plan.data is not None:
        check_splits(plan.data)
    if plan.named:
        RunDirectory(plan.out).check(plan.recipe, files=plan.files, resume=plan.resume)


def fitted(plan: Plan, data: Data, *, ending: str = "") -> Plan:
    """The plan with its output directory, which takes this run; ValueError where it cannot.

    A directory that no option named is runs/<recipe>-<hash of the question> with `ending`: the same
    for the same data by another path, and the next free number where it holds results.
    """
    if not plan.named:
        specs = [strategy_spec(strategy) for strategy in plan.strategies]
        question = specs, plan.seeds, plan.mode, plan.rounds
        digits = recipe_hash(plan.recipe, of=digest(data.identity), asked=question)
        path = plan.out.with_name(f"{plan.out.name}-{digits}{ending}")
        plan = replace(plan, out=numbered(path, resume=plan.resume).path, named=True)
        check_early(plan)
    RunDirectory(plan.out).check_data(plan.identity(data))
    return plan
