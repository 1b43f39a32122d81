"""What to compare and where to write it, checked before anything heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixbench.data.class_names import read_class_names
from mixbench.data.datasets import is_dataset, open_data
from mixbench.data.folders import check_splits, open_folder
from mixbench.data.index import indexed_folder
from mixbench.data.scene_area import SCENES, is_scenes
from mixbench.data.sources import Data
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe, check_warmup, recipe_hash, recipe_values
from mixbench.runs.directory import RunDirectory, numbered
from mixbench.runs.identity import Identity, digest
from mixbench.spec import strategy_spec
from mixbench.values import shown

if TYPE_CHECKING:
    from mixbench.runtime import Logger

MODES = ("accuracy", "speed", "both")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to compare and where to write it."""

    strategies: list[MixStrategy]
    recipe: Recipe
    seeds: tuple[int, ...]
    out: Path  # where it is not `named`, what the directory's name begins with
    command: str
    config: str = ""  # the recipe's name or file, under the options
    named: bool = True
    data: Path | None = None
    dataset: str | None = None
    download: bool = False
    limit_train: int | None = None
    limit_val: int | None = None
    check_data: bool = False
    skip_unreadable: bool = False
    class_names: Path | None = None  # a file with what people call the classes
    mode: str = "both"  # one of MODES
    rounds: int = 5
    device: str = "auto"
    workers: int | None = None  # None: by the data and the cores
    side_by_side: int | None = None  # strategies that train at once; None: as many as fit
    val_interval: int = 1  # epochs from one evaluation of the validation images to the next
    cache: str | None = None
    csv: Path | None = None
    json: Path | None = None
    resume: bool = False
    profile: bool = False
    peers: bool = False
    log: tuple[str | Logger, ...] = ()  # names, or loggers of your own
    evaluate: tuple[str, ...] = ()  # evaluations that follow the training

    def __post_init__(self) -> None:
        """ValueError for what the command's options cannot say, and Python can."""
        seeds = self.seeds
        whole = all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds)
        if not seeds or not whole or len(set(seeds)) < len(seeds):
            raise ValueError(
                f"seeds must be different whole numbers, from 0, not {shown(list(seeds))}"
            )
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {shown(self.mode)}")
        counts = {"rounds": 1, "workers": 0, "val_interval": 1, "limit_train": 1, "limit_val": 1}
        for name, least in (counts | {"side_by_side": 1}).items():
            value = getattr(self, name)
            chosen = value is not None or getattr(Plan, name) is not None
            if chosen and (type(value) is not int or value < least):
                raise ValueError(
                    f"{name} must be a whole number of {least} or more, not {shown(value)}"
                )

    @property
    def source(self) -> str:
        """Where the data are, or what they are called; a folder of such a name begins with ./."""
        if self.data is not None:
            return f"./{self.data}" if is_dataset(str(self.data)) else str(self.data)
        return self.dataset or SCENES

    def identity(self, data: Data) -> Identity:
        """What the output directory is of."""
        return Identity(self.recipe, data.identity, self.source, self.limit_train, self.limit_val)

    def recipe_hash(self, data: Data) -> str:
        """The digits that its rows carry."""
        return recipe_hash(self.recipe, train=data.train.fingerprint, val=data.val.fingerprint)

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


def make_plan(
    strategies: Sequence[MixStrategy],
    overrides: Mapping[str, Any],
    *,
    config: str | Path | None = None,
    seeds: Sequence[int] | None = None,
    out: Path | None = None,
    data: Path | None = None,
    dataset: str | None = None,
    **options: Any,
) -> Plan:
    """The plan of a comparison under a recipe with `overrides`; options are fields of Plan.

    Without a config the recipe is `finetune` where weights are named, else `deit_small` for data
    that are not drawn, else `quick`. ValueError for a mistake in the recipe.
    """
    real = data is not None or not is_scenes(dataset or SCENES)
    if config is None:
        given = recipe_values(None, overrides)
        tunes = given.get("init") is not None or given.get("pretrained")
        config = "finetune" if tunes else "deit_small" if real else "quick"
    recipe = read_recipe(config, overrides, scenes=not real)
    return Plan(
        strategies=list(strategies),
        recipe=recipe,
        seeds=(recipe.seed,) if seeds is None else tuple(seeds),
        out=out or Path("runs") / Path(config).stem,
        named=out is not None,
        config=str(config),
        data=data,
        dataset=dataset,
        **options,
    )


def read_recipe(config: str | Path, overrides: Mapping[str, Any], *, scenes: bool = True) -> Recipe:
    """The recipe of a file with `overrides` on top; its weights' values stand over defaults.

    scenes: as of `recipe_values`.
    """
    values = recipe_values(config, overrides, scenes=scenes)
    if values.get("init") is not None or values.get("pretrained"):
        from mixbench.models.start import over_defaults

        values = over_defaults(values)
    return Recipe(**values)


def plan_data(plan: Plan, *, rehearsed: bool = False) -> Data:
    """The data that a plan names; ValueError says what is wrong with them.

    To be `rehearsed` alone, a large folder may come from the index of an earlier rehearsal, unless
    all of its images are read anyway.
    """
    reads = plan.check_data or plan.skip_unreadable
    data = open_data(
        data=plan.data,
        dataset=plan.dataset,
        download=plan.download,
        image_size=plan.recipe.image_size,
        limit_train=plan.limit_train,
        limit_val=plan.limit_val,
        listing=indexed_folder if rehearsed and not reads else open_folder,
    )
    if not reads:
        return data
    from mixbench.comparison.screen import Screen
    from mixbench.data.check import check_images

    screen = Screen(speaks=os.environ.get("RANK", "0") == "0")
    with screen.progress:
        return check_images(data, skip=plan.skip_unreadable, counting=screen.counting)


def check_early(plan: Plan, *, sweeps: bool = False) -> None:
    """ValueError for what is wrong with a plan's files and folders before images are listed.

    The tables of a sweep are of its jobs, those of a run of itself: neither writes the other's.
    """
    if plan.class_names is not None:
        read_class_names(plan.class_names)
    if plan.data is not None:
        check_splits(plan.data)
        out = Path(os.path.realpath(plan.out))  # resolve() raises at a loop of links
        for split in (plan.data / name for name in ("train", "val")):
            if out.is_relative_to(os.path.realpath(split)):
                raise ValueError(
                    f"--out {plan.out} lies in {split}, whose folders are classes: choose another "
                    "--out"
                )
    if plan.named:
        directory = RunDirectory(plan.out)
        if not sweeps and directory.holds_jobs:
            raise ValueError(
                f"{plan.out} holds the jobs of a sweep, whose tables would be lost: go on with "
                "mixbench sweep, or choose another --out"
            )
        if sweeps and directory.holds_results:
            raise ValueError(
                f"{plan.out} holds results of a run that is no sweep, whose tables would be lost: "
                "choose another --out"
            )
        directory.check(plan.recipe, files=plan.files, resume=plan.resume)


def fitted(plan: Plan, data: Data, *, ending: str = "") -> Plan:
    """The plan with its output directory, which takes this run; ValueError where it cannot.

    A directory that no option named is runs/<recipe>-<hash of the question> with `ending`: the same
    for the same data by another path, and the next free number where it holds results.
    """
    if plan.trains:
        check_warmup(plan.recipe, len(data.train.labels) // plan.recipe.batch_size)
    if not plan.named:
        specs = [strategy_spec(strategy) for strategy in plan.strategies]
        question = specs, plan.seeds, plan.mode, plan.rounds
        digits = recipe_hash(plan.recipe, of=digest(data.identity), asked=question)
        path = plan.out.with_name(f"{plan.out.name}-{digits}{ending}")
        plan = replace(plan, out=numbered(path, resume=plan.resume).path, named=True)
        check_early(plan, sweeps=bool(ending))
    RunDirectory(plan.out).check_data(plan.identity(data))
    return plan
