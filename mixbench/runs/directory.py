"""A run's directory: every path in it, what it is of, who holds it, and what is finished.

Nobody else knows a path of a run. A strategy's folder is its readable name and eight digits of the
hash of its spec text, so that no two strategies meet and no name is too long.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO

from mixbench.data.class_names import class_titles, read_class_names
from mixbench.files import WriteError, read_json, replace_file, trouble
from mixbench.recipe import Recipe, recipe_text
from mixbench.runs.identity import Identity, data_difference, read_data, recipe_difference
from mixbench.runs.places import check_places
from mixbench.runs.rows import SCHEMA_VERSION, RunRow, plain, read_row
from mixbench.visible import visible

READABLE = 60  # characters of a strategy's name in its folder's


def readable(spec: str) -> str:
    """A spec text as part of a file's name; two of them may be alike."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in spec.replace(" ", ""))
    return safe[:READABLE]


def folder_name(spec: str) -> str:
    """The name of a strategy's folder, another one for each spec text."""
    return f"{readable(spec)}-{hashlib.sha256(spec.encode()).hexdigest()[:8]}"


_locks: set[IO[str]] = set()  # of the directories that this process holds


def _let_go() -> None:
    """In a child process: a lock is its holder's alone, or a killed one's workers would keep it."""
    while _locks:
        _locks.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@dataclass(frozen=True)
class SeedFolder:
    """The files of one strategy and seed."""

    path: Path

    @property
    def log(self) -> Path:
        """A row an epoch."""
        return self.path / "log.csv"

    @property
    def weights(self) -> Path:
        """The trained weights, as timm loads them."""
        return self.path / "last.pt"

    @property
    def result(self) -> Path:
        """The finished row, to all digits; it is there once the strategy and seed are done."""
        return self.path / "result.json"

    @property
    def images(self) -> Path:
        """What the trained network says of each validation image."""
        return self.path / "images.npz"

    @property
    def correct(self) -> Path:
        """Which validation images were right, of a run before `images`."""
        return self.path / "correct.npz"

    @property
    def lam(self) -> Path:
        """A sample of A's share by area and in the label."""
        return self.path / "lam.csv"


@dataclass(frozen=True)
class RunDirectory:
    """A directory that one command writes, or several commands with the same recipe and data."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe that the directory is of."""
        return self.path / "recipe.yaml"

    @property
    def data(self) -> Path:
        """What the data are that the directory is of."""
        return self.path / "data.json"

    @property
    def environment(self) -> Path:
        """The command, the machine and the versions."""
        return self.path / "environment.json"

    @property
    def classes(self) -> Path:
        """The classes, a line each, in the order of the labels; line breaks are escaped."""
        return self.path / "classes.txt"

    @property
    def class_names(self) -> Path:
        """What people call the classes, a line each, as --class-names reads it."""
        return self.path / "class-names.txt"

    @property
    def runs(self) -> Path:
        """A row for each strategy and seed."""
        return self.path / "runs.csv"

    @property
    def speed(self) -> Path:
        """A row for each timed strategy."""
        return self.path / "speed.csv"

    @property
    def comparison(self) -> Path:
        """A row for each strategy."""
        return self.path / "comparison.csv"

    @property
    def evaluations(self) -> Path:
        """A row for each figure that an evaluation found."""
        return self.path / "evaluations.csv"

    @property
    def checkpoint(self) -> Path:
        """What names the checkpoint whose strategies' rows lie here, where no run does."""
        return self.path / "checkpoint.txt"

    @property
    def markdown(self) -> Path:
        """The comparison as a Markdown page."""
        return self.path / "comparison.md"

    @property
    def report(self) -> Path:
        """The page with everything."""
        return self.path / "report.html"

    @property
    def mixed(self) -> Path:
        """A picture of what each strategy makes of some images."""
        return self.path / "mixed.png"

    @property
    def gallery(self) -> Path:
        """The folder of the page's pictures."""
        return self.path / "gallery"

    @property
    def profile(self) -> Path:
        """The dearest operators of each strategy."""
        return self.path / "profile.txt"

    @property
    def peers(self) -> Path:
        """Other packages' mixing beside ours."""
        return self.path / "peers.md"

    def trace(self, number: int) -> Path:
        """A profiled step, for a trace viewer."""
        return self.path / f"trace-{number}.json"

    def curves(self, spec: str, seed: int) -> Path:
        """TensorBoard's folder of one strategy and seed."""
        return self.path / "tensorboard" / folder_name(spec) / f"seed{seed}"

    def seed(self, spec: str, seed: int) -> SeedFolder:
        """The folder of one strategy and seed."""
        return SeedFolder(self.path / folder_name(spec) / f"seed{seed}")

    def state(self, seed: int) -> Path:
        """What training with this seed goes on from, of all strategies."""
        return self.path / f"state-seed{seed}.pt"

    def previous_state(self, seed: int) -> Path:
        """The state before it, for when it is damaged."""
        return self.path / f"state-seed{seed}-previous.pt"

    def states(self, seed: int) -> tuple[Path, Path]:
        """The state of a seed, and the one before it."""
        return self.state(seed), self.previous_state(seed)

    def clear_state(self, seed: int) -> None:
        """Remove the state of a seed whose figures are written."""
        for file in self.states(seed):
            file.unlink(missing_ok=True)

    @property
    def jobs(self) -> Path:
        """The jobs of a sweep, and the numbers that they were sent under."""
        return self.path / "jobs.json"

    @property
    def job_logs(self) -> Path:
        """The folder of the jobs' logs."""
        return self.path / "submitit"

    def job(self, name: str) -> RunDirectory:
        """The directory of one job of a sweep."""
        return RunDirectory(self.path / "jobs" / name)

    def class_titles(self, classes: Sequence[str]) -> dict[str, str]:
        """What pictures and tables call each class; by folder, with the run's own names.

        ValueError where their file is damaged.
        """
        stored = self.class_names
        return class_titles(classes, read_class_names(stored) if stored.is_file() else {})

    # What is finished.

    def keep(self, row: RunRow) -> None:
        """Write the row of a strategy and seed that are done."""
        replace_file(self.seed(row.strategy, row.seed).result, json.dumps(plain(row), indent=1))

    def result_files(self) -> list[Path]:
        """The files of finished rows, whole or damaged."""
        return sorted(self.path.glob("*/seed*/result.json"))

    def result(self, file: Path) -> RunRow:
        """The finished row in one of `result_files`; ValueError says how it is damaged."""
        row = read_row(file, RunRow, ("recipe_hash", "top1"))
        if self.seed(row.strategy, row.seed).result != file:
            raise ValueError(f"{file} is of {row.strategy} with seed {row.seed}")
        return row

    def results(self, recipe_hash: str | None = None) -> dict[tuple[str, int], RunRow]:
        """The finished rows by strategy and seed, of one recipe and data where a hash is given.

        A damaged file is as if it were not there: `mend` of runs/damage.py names it.
        """
        rows = {}
        for file in self.result_files():
            try:
                row = self.result(file)
            except ValueError:
                continue
            if recipe_hash is None or row.recipe_hash == recipe_hash:
                rows[row.strategy, row.seed] = row
        return rows

    @property
    def holds_results(self) -> bool:
        """Whether figures or a state of training would be lost by starting anew."""
        return any(self.path.glob("*/seed*/result.json")) or any(self.path.glob("state-seed*.pt"))

    @property
    def holds_jobs(self) -> bool:
        """Whether a sweep's jobs lie here."""
        return self.jobs.exists() or any(self.path.glob("jobs/*/"))

    # What it is of, and who holds it.

    def check(
        self,
        recipe: Recipe,
        *,
        files: Mapping[str, Path | None] | None = None,
        resume: bool = False,
    ) -> None:
        """ValueError where the directory, or one of the files by option, cannot take this run.

        That is so where results would be lost, where it holds another recipe's, where an older
        mixbench wrote it, and where it is not writable. `check_data` asks for the data.
        """
        out = self.path
        check_places(out, files or {})
        difference = recipe_difference(self.recipe, recipe) if self.recipe.exists() else None
        if difference:
            raise ValueError(f"{difference}: choose another --out")
        if self.holds_results and not resume:
            raise ValueError(
                f"{out} holds results of this recipe: add --resume (in Python resume=True) to keep "
                "them and go on, or choose another --out"
            )
        if resume:
            self._check_schema()

    def check_data(self, identity: Identity) -> None:
        """ValueError where the directory is of other data, and says how they differ."""
        if self.data.exists():
            difference = data_difference(read_data(self.data), identity)
            if difference:
                raise ValueError(f"{difference}: choose another --out")
        elif self.recipe.exists() and self.holds_results:
            raise ValueError(
                f"{self.data} is missing, as in runs of an older mixbench, and says what data a "
                "run is of: choose another --out"
            )

    def _check_all(self, identity: Identity, *, resume: bool) -> None:
        self.check(identity.recipe, resume=resume)
        self.check_data(identity)

    def _write_identity(self, identity: Identity) -> None:
        """Write what the directory is of; of its data once, and again where bytes are first read.

        The data's path stays that of the beginning.
        """
        replace_file(self.recipe, recipe_text(identity.recipe))
        if self.data.exists():
            unread = read_data(self.data).data.content is None
            if identity.data.content is None or not unread:
                return
        replace_file(self.classes, "".join(f"{visible(c)}\n" for c in identity.data.classes))
        replace_file(self.data, identity.data_text())

    def _check_schema(self) -> None:
        """ValueError where another version's command wrote the directory."""
        for file in (self.environment, *self.result_files()):
            version = _schema_version(file)
            if version is not None and version != SCHEMA_VERSION:
                raise ValueError(
                    f"{self.path} was begun by a mixbench with schema_version {version}, this one "
                    f"has {SCHEMA_VERSION}: `mixbench report` still reads it; to train, choose "
                    "another --out"
                )

    @contextmanager
    def claimed(self, identity: Identity, *, resume: bool) -> Iterator[None]:
        """Hold the directory for this process alone, by a lock that dies with it.

        ValueError where that cannot be.
        """
        self._check_all(identity, resume=resume)
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((self.path / ".lock").open("w"))
                _lock(lock)
                _locks.add(lock)
                stack.callback(_locks.discard, lock)
                self._check_all(identity, resume=resume)  # another may have held it until now
                self._write_identity(identity)
            except BlockingIOError:
                raise ValueError(self._in_use) from None
            except WriteError:
                raise
            except OSError as error:
                raise ValueError(
                    f"cannot write to {self.path}: {trouble(error)}; choose another --out"
                ) from None
            yield

    def check_free(self) -> None:
        """ValueError where another process holds the directory."""
        if self.in_use:
            raise ValueError(self._in_use)

    @property
    def _in_use(self) -> str:
        return f"{self.path} is in use by another process: wait for it, or choose another --out"

    @property
    def in_use(self) -> bool:
        """Whether a process holds the directory."""
        lock = self.path / ".lock"
        if not lock.is_file():
            return False
        with lock.open() as file:
            try:
                _lock(file, shared=True)
            except BlockingIOError:
                return True
        return False


def _lock(file: IO[str], *, shared: bool = False) -> None:
    """Lock an open file until it is closed; BlockingIOError where another process holds it.

    ValueError where the system has no such locks, as Windows.
    """
    try:
        import fcntl
    except ImportError:
        raise ValueError(
            "this system has no file locks (fcntl), which keep two runs apart: measure on Linux, "
            "macOS or in WSL; --help, --dry-run, list and report work here"
        ) from None
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _schema_version(file: Path) -> object:
    """The version that wrote a JSON file of a run; None where it cannot be read."""
    try:
        content = read_json(file)
    except ValueError:
        return None
    return content.get("schema_version", 2) if isinstance(content, dict) else None


def numbered(path: Path, *, resume: bool) -> RunDirectory:
    """`path`, path-2, path-3, ...: the first without results, or to resume the last with some."""
    last = directory = RunDirectory(path)
    for number in count(2):
        if not directory.holds_results:
            break
        last = directory
        directory = RunDirectory(path.with_name(f"{path.name}-{number}"))
    return last if resume else directory
