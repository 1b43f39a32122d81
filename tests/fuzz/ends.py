"""How a command ends: run in a process and a folder of its own, and what must hold of any end."""

import faulthandler
import hashlib
import os
import resource
import shlex
import signal
import stat
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.kills import PROCESSES

LONGEST = 500  # characters of an error's sentence
MEMORY = 6 << 30  # bytes that a case may ask for
ACCEPT, REFUSE, EITHER = "accepted", "refused", "accepted or refused"


@dataclass(frozen=True)
class End:
    """What is left of a command: its exit status (a signal's number below 0) and its output."""

    status: int | None  # None: it had to be stopped
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Case:
    """A command with what a careful reader of the docs expects of it."""

    argv: tuple[str, ...]
    expect: str = EITHER
    names: tuple[str, ...] = ()  # a refusal says one of these
    shown: dict[str, object] = field(default_factory=dict)  # what --print-recipe then says
    says: tuple[str, ...] = ()  # what the output of an accepted one holds, one of these
    files: Callable[[Path], None] | None = None  # makes what the command meets in its folder
    limit: int = 20  # seconds

    def __str__(self) -> str:
        return shlex.join(["mixbench", *self.argv])[:2000]


def in_a_process(target: Callable[..., int | None], *args: object, folder: Path, limit: int) -> End:
    """Call `target` in a process that stands in `folder`; its end, with what it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    home = folder.with_name(f"{folder.name}-home")
    home.mkdir(exist_ok=True)
    process = PROCESSES.Process(target=_stand_in, args=(folder, home, target, args))
    process.start()
    process.join(limit)
    stopped = process.is_alive()
    if stopped:
        os.kill(process.pid, signal.SIGABRT)  # faulthandler says where it was
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()
    texts = [
        (home / name).read_bytes().decode("utf-8", "surrogateescape") for name in ("out", "err")
    ]
    return End(None if stopped else process.exitcode, *texts)


def _stand_in(
    folder: Path, home: Path, target: Callable[..., int | None], args: tuple[object, ...]
) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(home / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    faulthandler.enable(2)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.environ |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "COLUMNS": "100"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    os.chdir(folder)
    import torch

    torch.set_num_threads(1)
    sys.exit(target(*args))


def command(argv: tuple[str, ...]) -> int:
    """Run the command in this process; its exit status."""
    from mixbench.cli import main

    return main(list(argv))


def run(case: Case, folder: Path) -> End:
    """Run a case in `folder`."""
    return in_a_process(command, case.argv, folder=folder, limit=case.limit)


def tree(folder: Path) -> dict[str, str]:
    """What lies in a folder: each path with a digest of its content, or with what it is."""
    content = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            content[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif not stat.S_ISDIR(mode):
            content[str(path.relative_to(folder))] = oct(stat.S_IFMT(mode))
        else:
            content[str(path.relative_to(folder))] = "folder"
    return content


def broken_rules(end: End, case: Case) -> list[str]:
    """What is wrong with an end, as sentences; none where every rule holds."""
    broken = []
    if end.status is None:
        broken.append(f"hangs: no end within {case.limit} s")
    elif end.status < 0:
        broken.append(f"crash: ended by signal {-end.status}")
    elif end.status not in (0, 1, 2):
        broken.append(f"status: {end.status}")
    if "Traceback (most recent call last)" in end.stderr:
        broken.append("traceback: " + end.stderr.strip().splitlines()[-1][:200])
    elif "Exception ignored" in end.stderr:
        broken.append("traceback: an ignored exception")
    if broken:
        return broken
    if end.status == 0:
        return _acceptance(end, case)
    return _refusal(end, case)


def _acceptance(end: End, case: Case) -> list[str]:
    broken = []
    if case.expect == REFUSE:
        broken.append("wrong acceptance: it should be refused")
    if case.says and not any(text in end.stdout + end.stderr for text in case.says):
        broken.append(f"wrong acceptance: it does not say {case.says[0]!r}")
    return broken


def _refusal(end: End, case: Case) -> list[str]:
    broken = []
    if case.expect == ACCEPT:
        broken.append("wrong refusal: it should be accepted")
    broken += unfit_sentence(end.stderr)
    message = end.stderr.replace("-", "_")
    if case.names and not any(name.replace("-", "_") in message for name in case.names):
        broken.append(f"unnamed: the sentence does not say {case.names[0]!r}")
    if case.expect == REFUSE and end.status != 2:
        broken.append(f"status: {end.status} for a user's mistake")
    return broken


def unfit_sentence(stderr: str) -> list[str]:
    """What is wrong with the last words of a command that was refused."""
    lines = stderr.rstrip("\n").split("\n")
    errors = [line for line in lines if line.startswith("error: ")]
    broken = []
    if len(errors) != 1 or not lines[-1].startswith("error: "):
        broken.append(f"sentence: {len(errors)} lines begin with 'error: ', the last does not")
    if len(lines[-1]) > LONGEST + len("error: "):
        broken.append(f"length: a sentence of {len(lines[-1])} characters")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in stderr if letter != "\n"):
        broken.append("unprintable: control characters or bytes that are no text")
    return broken


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What became of the files that were there, and what is new, as sentences."""
    lost = [name for name in before if after.get(name) != before[name]]
    new = [name for name in after if name not in before]
    return [f"harm: {name} was changed or lost" for name in lost] + [
        f"litter: {name} is left behind" for name in new
    ]


def assert_right(broken: list[str], case: object, end: End) -> None:
    """Fail with everything that is wrong, the command, and what it printed."""
    if broken:
        raise AssertionError(
            "\n".join([*broken, f"$ {case}", f"status {end.status}", end.stderr[-1500:]])
        )
