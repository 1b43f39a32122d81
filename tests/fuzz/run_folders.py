"""A run's folder, half finished, of which one file is damaged; by number, always the same."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.ends import command, in_a_process
from tests.support.command import cells

MEASURED = ("date", "train_seconds", "loading_share", "train_im_per_sec", "command")
RUN = (
    *("--config", "quick", "--embed-dim", "24", "--num-heads", "3", "--depth", "1"),
    *("--epochs", "3", "--warmup-epochs", "0", "--batch-size", "8", "--micro-batch", "8"),
    *("--limit-train", "16", "--limit-val", "20", "--workers", "0", "--mode", "accuracy"),
    *("--strategies", "none,cutmix", "--seeds", "0,1", "--out", "run"),
)


@dataclass(frozen=True)
class Runs:
    """Folders of one command: left half way, come to its end, and that end's figures.

    `other` is of other seeds, so that a report can be of both.
    """

    half: Path
    whole: Path
    other: Path
    figures: list[dict[str, str]]


def figures(folder: Path) -> list[dict[str, str]]:
    """The rows of a run without what was measured of time."""
    return [
        {name: cell for name, cell in row.items() if name not in MEASURED}
        for row in cells(folder / "runs.csv")
    ]


def killed_half_way(argv: tuple[str, ...]) -> int:
    """Run the command until the state after the second epoch of seed 1 is written."""
    replace, written = os.replace, []

    def replaced(source: str, target: str, **options: int) -> None:
        replace(source, target, **options)
        if str(target).endswith("state-seed1.pt"):
            written.append(target)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replaced
    return command(argv)


def make_runs(folder: Path) -> Runs:
    """Run the command to its end, and once more to the middle of its second seed."""
    end = in_a_process(command, RUN, folder=folder / "whole", limit=120)
    assert end.status == 0, end.stderr
    end = in_a_process(killed_half_way, RUN, folder=folder / "half", limit=120)
    half = folder / "half" / "run"
    assert end.status == -signal.SIGKILL and any(half.glob("state-seed1*.pt")), end
    others = (*RUN, "--seeds", "2")
    end = in_a_process(command, others, folder=folder / "other", limit=120)
    assert end.status == 0, end.stderr
    whole = folder / "whole" / "run"
    return Runs(half, whole, folder / "other" / "run", figures(whole))


Damage = Callable[[Path, random.Random], None]


def _cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(max(1, len(content)))])


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    for _ in range(rng.choice([1, 1, 4, 40])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _loop(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _other(path: Path, rng: random.Random) -> None:
    """JSON, YAML or text of another kind."""
    others = ("[]", "{}", "null", "5", '"x"', '[{"a": [1, {"b": null}]}]', '{"schema_version": 3}')
    path.write_text(
        rng.choice([*others, '{"schema_version": "x"}', "a,b\n1,2\n", "NaN", "[" * 5000])
    )


def _text(content: bytes) -> Damage:
    return lambda path, rng: path.write_bytes(content) and None


def _before(content: bytes) -> Damage:
    return lambda path, rng: path.write_bytes(content + path.read_bytes()) and None


DAMAGES: dict[str, Damage] = {
    "cut": _cut,
    "flipped": _flip,
    "emptied": _text(b""),
    "removed": lambda path, rng: path.unlink(),
    "of another kind": _other,
    "a folder": _folder,
    "a link to itself": _loop,
    "of no encoding": _before(b"\xff\xfe\xe9"),
    "of NULs": _text(bytes(200)),
    "twice as long": lambda path, rng: path.write_bytes(path.read_bytes() * 2) and None,
}  # fmt: skip
RESUME, REPORT, BOTH = "--resume", "report", "report of two"
SILENT = ("cut", "flipped", "of another kind", "twice as long")  # perhaps still a right file


@dataclass(frozen=True)
class Damaged:
    """A run, a file of it, what becomes of that, and the command that meets it."""

    whole: bool  # else half way
    file: str
    damage: str
    command: str
    number: int

    def apply(self, folder: Path) -> None:
        """Damage the file in a run's folder."""
        DAMAGES[self.damage](folder / self.file, random.Random(self.number))


def _files(folder: Path) -> list[str]:
    """The files of a run that a command could read, one of each kind."""
    names = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and (path.suffix != ".png" or "mask" in path.name):
            names.append(name)
    pictures = [name for name in names if name.endswith(".png")]
    return [name for name in names if name not in pictures[2:]]


def damaged_runs(runs: Runs, count: int) -> list[Damaged]:
    """So many damages, spread over files, kinds and commands."""
    rng = random.Random("runs")
    every = [
        (whole, file, damage, name)
        for whole, folder in ((True, runs.whole), (False, runs.half))
        for file in _files(folder)
        for damage in DAMAGES
        for name in (RESUME, REPORT, BOTH)
        if whole or name == RESUME
    ]
    rng.shuffle(every)
    return [Damaged(*each, number) for number, each in enumerate(every[:count])]


def copied(runs: Runs, case: Damaged, folder: Path) -> None:
    """The run, damaged, as folder/run, and beside it one of other seeds as folder/other."""
    folder.mkdir()
    shutil.copytree(runs.whole if case.whole else runs.half, folder / "run", symlinks=True)
    if case.command == BOTH:
        shutil.copytree(runs.other, folder / "other", symlinks=True)
    case.apply(folder / "run")


def argv_of(case: Damaged) -> tuple[str, ...]:
    """The command that meets the damage."""
    if case.command == RESUME:
        return (*RUN, "--resume")
    if case.command == REPORT:
        return ("report", "run")
    return ("report", "run", "other", "--out", "both")
