"""The comparison as a Python function."""

from __future__ import annotations

import dataclasses
import inspect
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixbench.comparison.checks import check_machine, check_plan
from mixbench.comparison.comparison import run
from mixbench.comparison.plan import check_early, fitted, make_plan, plan_data
from mixbench.data.datasets import is_dataset, limited
from mixbench.data.items import Items, data_of_items
from mixbench.data.sources import Data
from mixbench.files import replace_file
from mixbench.mix import MixStrategy
from mixbench.models.factory import Factory, register_factory
from mixbench.recipe import HINTS, MODEL_PARTS
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import ComparisonRow, RunRow, SpeedRow, read_table
from mixbench.runtime import Logger
from mixbench.spec import create_strategies, strategy_spec
from mixbench.values import did_you_mean, shown

if TYPE_CHECKING:
    import pandas as pd


# fields that a network of anyone's own cannot follow
OF_TIMMS_MODELS = (*MODEL_PARTS, "drop_rate", "drop_path", "pretrained", "init", "init_sha256")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a comparison measured; it lies in `out`."""

    out: Path
    good: bool  # no strategy failed

    @property
    def runs(self) -> pd.DataFrame:
        """A row for each strategy and seed that was trained, with the columns of runs.csv."""
        return self._frame(RunDirectory(self.out).runs, RunRow)

    @property
    def speed(self) -> pd.DataFrame:
        """A row for each strategy that was timed, with the columns of speed.csv."""
        return self._frame(RunDirectory(self.out).speed, SpeedRow)

    @property
    def summary(self) -> pd.DataFrame:
        """A row for each strategy, with the columns of comparison.csv."""
        return self._frame(RunDirectory(self.out).comparison, ComparisonRow)

    @staticmethod
    def _frame(file: Path, kind: Any) -> pd.DataFrame:
        import pandas as pd

        rows = read_table(file, kind) if file.is_file() else []  # a part that was not asked for
        names = [field.name for field in dataclasses.fields(kind)]
        return pd.DataFrame([dataclasses.asdict(row) for row in rows], columns=names)

    def report(self, path: str | Path) -> Path:
        """Write the page of the comparison, one file that needs no other, to `path`."""
        path = Path(path)
        if path.is_dir():
            raise ValueError(f"{path} is a directory: name a file for the page")
        replace_file(path, RunDirectory(self.out).report.read_text(encoding="utf-8"))
        return path


def compare(
    strategies: str | MixStrategy | Sequence[str | MixStrategy] = "cutmix,transmix",
    *,
    model: str | Factory | None = None,
    data: str | Path | tuple[Items, Items] | None = None,
    seeds: Sequence[int] | None = None,
    config: str | Path | None = None,
    mode: str = "both",
    rounds: int = 5,
    limit_train: int | None = None,
    limit_val: int | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    val_interval: int = 1,
    side_by_side: int | None = None,
    check_data: bool = False,
    skip_unreadable: bool = False,
    class_names: str | Path | None = None,
    evaluate: str | Sequence[str] = (),
    log: str | Logger | Sequence[str | Logger] = (),
    resume: bool = False,
    **recipe: Any,
) -> Comparison:
    """Train and time strategies under one recipe, as the command does; what was measured.

    strategies are spec texts or strategies. model is timm's name of a network, or a function that
    makes one for a number of classes. data is a folder with train/ and val/, a name such as
    "cifar10" or "tar/DIR", two data sets of (image, label), or None for the drawn scenes. config
    names a recipe, and other keywords are its fields. class_names is a file with what people call
    the classes. Files go to `out`, by default runs/<recipe>-<digits>; `resume` goes on with what is
    there. The validation images are evaluated after every `val_interval` epochs, and after the
    last. side_by_side is how many strategies of a seed train at once, by default as many as fit in
    memory; it changes no figure. evaluate names what is measured of the trained models
    (docs/evaluations.md), log where the figures of each epoch go too: "tensorboard", "wandb" or
    loggers of your own. ValueError for a mistake in any of it.
    """
    recipe = {name: _plain(value) for name, value in recipe.items()}
    seeds = None if seeds is None else _seeds(seeds)
    given = dict(locals())
    if not (model is None or isinstance(model, str) or callable(model)):
        raise ValueError(f"model must be a name or a function that makes one, not {shown(model)}")
    if not isinstance(out, str | Path | None) or out == "":
        raise ValueError(f"out must be a directory, not {shown(out)}")
    if not isinstance(class_names, str | Path | None):
        raise ValueError(f"class_names must be a file, not {shown(class_names)}")
    if type(resume) is not bool:
        raise ValueError(f"resume must be True or False, not {shown(resume)}")
    _check_fields(recipe, of_timm=not callable(model))
    folder, name, items = _place(data, limit_train, limit_val, skip_unreadable)
    overrides = dict(recipe)
    if isinstance(model, str):
        overrides["model"] = model
    elif model is not None:  # its name is known with the number of classes
        overrides |= {"model": "made", "drop_rate": 0.0, "drop_path": 0.0}
    plan = make_plan(
        _strategies(strategies),
        overrides,
        config=config,
        seeds=seeds,
        out=None if out is None else Path(out),
        command=_call(given),
        data=folder,
        dataset=name,
        mode=mode,
        rounds=rounds,
        limit_train=limit_train,
        limit_val=limit_val,
        device=device,
        workers=workers,
        val_interval=val_interval,
        side_by_side=side_by_side,
        check_data=check_data,
        skip_unreadable=skip_unreadable,
        class_names=None if class_names is None else Path(class_names),
        evaluate=_several(evaluate),
        log=_several(log),
        resume=resume,
    )
    if callable(model):
        items = items or plan_data(plan)
        made = register_factory(model, len(items.classes))
        plan = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, model=made))
    check_early(plan)
    check_plan(plan)
    check_machine(plan)
    opened = items or plan_data(plan)
    plan = fitted(plan, opened)
    return Comparison(plan.out, run(plan, opened) == 0)


def _check_fields(recipe: dict[str, Any], *, of_timm: bool) -> None:
    """ValueError where a keyword is no field of the recipe, or says nothing to the network."""
    for name in recipe:
        if name not in HINTS:
            known = {*inspect.signature(compare).parameters, *HINTS} - {"recipe"}
            raise ValueError(f"unknown keyword {shown(name)}: {did_you_mean(name, known)}")
        if name in OF_TIMMS_MODELS and not of_timm:
            raise ValueError(f"{name} is for timm's models: let your function make the model so")


def _several(given: Any) -> tuple[Any, ...]:
    """Names between commas, a list of anything, or one thing, as a tuple; None is nothing."""
    if given is None:
        return ()
    if isinstance(given, str):
        given = [name.strip() for name in given.split(",") if name.strip()]
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _plain(value: Any) -> Any:
    """A value as a recipe takes it: a path as text, a number of numpy's as Python's."""
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def _seeds(seeds: Sequence[int]) -> list[int]:
    try:
        return [operator.index(seed) for seed in seeds]
    except TypeError:
        raise ValueError(f"seeds must be different whole numbers, not {shown(seeds)}") from None


def _strategies(strategies: str | MixStrategy | Sequence[str | MixStrategy]) -> list[MixStrategy]:
    if isinstance(strategies, str | MixStrategy):
        strategies = [strategies]
    if not isinstance(strategies, Sequence) or not all(
        isinstance(each, str | MixStrategy) for each in strategies
    ):
        raise ValueError(
            f"strategies must be spec texts or strategies, not {shown(strategies)}: such as "
            "'cutmix, transmix'"
        )
    texts = [each if isinstance(each, str) else strategy_spec(each) for each in strategies]
    return create_strategies(", ".join(texts))


def _place(
    data: str | Path | tuple[Items, Items] | None,
    limit_train: int | None,
    limit_val: int | None,
    skip_unreadable: bool,
) -> tuple[Path | None, str | None, Data | None]:
    """A folder, a data set's name, or data that are open already."""
    if data is None:
        return None, None, None
    if isinstance(data, str) and is_dataset(data):
        return None, data, None
    if isinstance(data, str | Path):
        return Path(data), None, None
    if not isinstance(data, tuple) or len(data) != 2:
        raise ValueError(
            "data must be a folder, a name, or a pair of data sets (train, val), not "
            f"{type(data).__name__}"
        )
    opened = data_of_items(*data, skip=skip_unreadable)  # which reads every image
    items = limited(opened, limit_train, limit_val)
    return None, items.name, items


def _call(given: dict[str, Any]) -> str:
    """The call with what is not its default, as a reader would write it."""
    signature = inspect.signature(compare)
    values = {name: value for name, value in given.items() if name != "recipe"} | given["recipe"]
    parts = [
        f"{name}={_of_data(value) if name == 'data' else _written(value)}"
        for name, value in values.items()
        if name not in signature.parameters or value != signature.parameters[name].default
    ]
    return f"mixbench.compare({', '.join(parts)})"


def _of_data(value: Any) -> str:
    """Data as a reader would write them; of data sets, which may be long, what they are."""
    return f"({', '.join(map(_name, value))})" if isinstance(value, tuple) else _written(value)


def _written(value: Any) -> str:
    if isinstance(value, MixStrategy):
        return repr(strategy_spec(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    plain = isinstance(value, str | Path | int | float | bool | None)
    return repr(str(value) if isinstance(value, Path) else value) if plain else _name(value)


def _name(value: Any) -> str:
    return getattr(value, "__name__", type(value).__name__)
