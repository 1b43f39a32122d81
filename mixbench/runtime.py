"""Who runs and where: device, processes, directory and seed, and what is told on the way.

A `Runtime` is handed on in place of callbacks. A failure is a value, `Failed`, whose reason stands
in the strategy's row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from mixbench.distributed import World
from mixbench.values import error_text


@dataclass(frozen=True)
class Failed:
    """Why a strategy gives no figure, in words for its row."""

    reason: str


def explain(error: BaseException) -> Failed:
    """What a strategy's row says of `error`: one line, whatever the exception's class does."""
    if isinstance(error, torch.OutOfMemoryError):
        return Failed("out of memory: lower --micro-batch, and --mix-group with it")
    return Failed(f"failed: {error_text(error)}")


class CanFail(Protocol):
    """What `Runtime.agree` asks of a learner."""

    @property
    def spec(self) -> str:
        """The strategy's spec text."""

    @property
    def trouble(self) -> Failed | None:
        """What went wrong in this process since the processes last agreed."""

    def stop(self, failure: Failed) -> None:
        """Take no further part."""


def silent_line(line: str) -> None:
    """Nobody listens."""


def silent_step(done: int, steps: int) -> None:
    """Nobody counts."""


@runtime_checkable
class Logger(Protocol):
    """Takes the figures of each epoch: what `--log` names, or one of your own."""

    def log(self, strategy: str, seed: int, epoch: int, figures: Mapping[str, float]) -> None:
        """The row that log.csv gets of an epoch, from 0, without what it lacks.

        After epochs that are not evaluated (`--val-interval`) that is accuracies and val_nll.
        strategy is a spec text. Of strategies that are trained side by side, each has its turn.
        """

    def close(self) -> None:
        """The training of a seed is over, whether it failed or not; another one may follow."""


class NoLogger:
    """Nobody keeps curves."""

    def log(self, strategy: str, seed: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where training runs, and who hears of it."""

    device: torch.device
    world: World = World()
    seed: int = 0
    workers: int = 0  # loader processes
    val_interval: int = 1  # epochs from one evaluation of the validation images to the next
    out: Path | None = None  # the run's directory; without one nothing is written
    resume: bool = False
    say: Callable[[str], None] = silent_line
    tick: Callable[[int, int], None] = silent_step  # steps done, steps in all
    logger: Logger = NoLogger()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.world.rank == 0

    def agree(self, learner: CanFail) -> bool:
        """Whether a learner goes on in all processes; one's trouble ends it in every one."""
        reason = self.world.agree(learner.trouble.reason if learner.trouble else None)
        if reason is None:
            return True
        learner.stop(Failed(reason))
        self.say(f"seed {self.seed}  {learner.spec}: {reason}")
        return False


def choose_device(name: str) -> torch.device:
    """The torch device of a name; ValueError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(
            f"--device must be auto, cpu, cuda, cuda:<number> or mps, not {name!r}"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; "
            "use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: not available on this machine; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"--device must be auto, cpu, cuda, cuda:<number> or mps, not {name!r}")
    return device
