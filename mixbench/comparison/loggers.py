"""Where an epoch's figures go besides log.csv: TensorBoard, Weights & Biases, or anyone's."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from mixbench.comparison.plan import Plan
from mixbench.runs.directory import RunDirectory
from mixbench.runtime import Logger, NoLogger, Runtime, explain


class TensorBoard:
    """Curves for TensorBoard, a folder for each strategy and seed."""

    def __init__(self, plan: Plan):
        self._directory = RunDirectory(plan.out)
        self._writers: dict[str, Any] = {}

    def log(self, strategy: str, seed: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Add a point to each curve; what lies on the disk can be looked at at once."""
        from torch.utils.tensorboard import SummaryWriter

        if strategy not in self._writers:
            self._writers[strategy] = SummaryWriter(str(self._directory.curves(strategy, seed)))
        for name, value in figures.items():
            if name != "epoch":
                self._writers[strategy].add_scalar(name, value, epoch)
        self._writers[strategy].flush()

    def close(self) -> None:
        """Close the seed's files."""
        while self._writers:
            self._writers.popitem()[1].close()


class WeightsAndBiases:
    """A run of Weights & Biases for each strategy and seed, in a group for the output directory.

    The project is `mixbench` where WANDB_PROJECT names none. With WANDB_MODE=offline all of it
    stays in the output directory. What is resumed goes on under the same id.
    """

    def __init__(self, plan: Plan):
        self._out, self._recipe = plan.out, asdict(plan.recipe)
        self._runs: dict[str, Any] = {}

    def log(self, strategy: str, seed: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        if strategy not in self._runs:
            self._runs[strategy] = self._begin(strategy, seed)
        values = {name: value for name, value in figures.items() if name != "epoch"}
        self._runs[strategy].log(values, step=epoch)

    def close(self) -> None:
        """End the seed's runs."""
        while self._runs:
            self._runs.popitem()[1].finish()

    def _begin(self, strategy: str, seed: int) -> Any:
        import wandb

        name = f"{strategy} seed {seed}"
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mixbench"),
            group=self._out.name,
            name=name,
            id=hashlib.sha256(f"{self._out.absolute()} {name}".encode()).hexdigest()[:16],
            config=self._recipe | {"strategy": strategy, "seed": seed},
            dir=self._out,  # in a folder `wandb` there
            resume="allow",
            reinit="create_new",  # strategies are trained side by side
            settings=wandb.Settings(console="off", silent=True),
        )


LOGGERS: dict[str, Callable[[Plan], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


class Guarded:
    """Several loggers, of which one that fails is named and left out: no training ends by it."""

    def __init__(self, loggers: Sequence[tuple[str, Logger]], runtime: Runtime):
        self._loggers, self._say = list(loggers), runtime.say

    def log(self, strategy: str, seed: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Hand on an epoch's figures."""
        self._each("log", strategy, seed, epoch, figures)

    def close(self) -> None:
        """Hand on that a seed is over."""
        self._each("close")

    def _each(self, method: str, *values: Any) -> None:
        for named in list(self._loggers):
            name, logger = named
            try:
                getattr(logger, method)(*values)
            except Exception as error:  # of code that is not ours
                self._loggers.remove(named)
                self._say(f"no more curves for {name}: {explain(error).reason}; log.csv has them")


def check_loggers(plan: Plan) -> None:
    """ValueError where what `--log` names cannot be used on this machine."""
    for each in plan.log:
        if isinstance(each, str) and each not in LOGGERS:
            raise ValueError(f"--log must be one of {', '.join(LOGGERS)}, not {each!r}")
        if isinstance(each, str) and not find_spec(each):
            raise ValueError(f"--log {each} needs the package {each}: pip install {each}")
        if not isinstance(each, str | Logger):
            raise ValueError(f"log must be names or have log() and close(), not {each!r:.80}")
    if "wandb" in plan.log:
        _check_login()


def _check_login() -> None:
    import wandb

    offline = wandb.setup().settings.mode != "online"
    if not offline and not wandb.login(prompt=False):
        raise ValueError(
            "--log wandb: nobody is logged in: `wandb login`, or set WANDB_MODE=offline, and "
            "`wandb sync` sends the curves later"
        )


def open_loggers(plan: Plan, runtime: Runtime) -> Logger:
    """What the plan's `log` names, as one logger; only the first process has any."""
    if not plan.log or not runtime.first:
        return NoLogger()
    return Guarded([_named(each, plan) for each in plan.log], runtime)


def _named(each: str | Logger, plan: Plan) -> tuple[str, Logger]:
    if isinstance(each, str):
        return each, LOGGERS[each](plan)
    return type(each).__name__, each
