"""Names of commands, and how a call of any kind is recorded."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from mixbench import __version__, cli
from mixbench.cli import called, main
from mixbench.commands.options import COMMANDS
from tests.support.command import TINY
from tests.support.pages import ROOT

COMPARED = ["--strategies", "none", "--mode", "accuracy", *TINY]


@pytest.fixture
def recorded(monkeypatch):
    """The calls of each command that records what was typed, as (name, options, typed)."""
    calls = []
    for name in cli.RECORDED:
        monkeypatch.setitem(
            cli.RECORDED, name, lambda argv, typed, name=name: calls.append((name, argv, typed))
        )
    return calls


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_mixbench_alone_is_its_help(argv, recorded, capsys):
    assert main(argv) == 0 and not recorded
    lines = capsys.readouterr().out.splitlines()
    for name in [*cli.RECORDED, *cli.OTHERS]:
        [_] = [line for line in lines if re.match(rf"  mixbench {name:<8} [a-z]", line)]
    assert "examples:" in lines and len(lines) < 30


def test_every_command_has_a_sentence():
    assert {*cli.RECORDED, *cli.OTHERS} == {*COMMANDS}


@pytest.mark.parametrize("argv", [[], ["--help"], ["--lr", "1"]])
def test_bench_py_is_bench(argv, recorded):
    main(argv, script=True)
    assert recorded == [("bench", argv, ["mixbench", *argv])]


@pytest.mark.parametrize(
    ("argv", "name", "options"),
    [
        (["--lr", "1"], "bench", ["--lr", "1"]),
        (["bench"], "bench", []),
        (["bench", "--help"], "bench", ["--help"]),
        (["speed", "--rounds", "2"], "speed", ["--rounds", "2"]),
    ],
)
def test_a_command_hears_its_options_and_what_was_typed(argv, name, options, recorded):
    main(argv)
    assert recorded == [(name, options, ["mixbench", *argv])]


def test_the_version_is_told(capsys):
    for argv in (["--version"], ["bench", "--version"]):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 0
        assert capsys.readouterr().out == f"mixbench {__version__}\n"


def test_a_mistake_names_the_nearest_command(capsys):
    assert main(["bnech"]) == 2
    assert capsys.readouterr().err == "error: unknown command 'bnech': did you mean 'bench'?\n"


@pytest.mark.parametrize(
    ("original", "argv", "words"),
    [
        ("python3 /env/bin/mixbench bench --x", "/env/bin/mixbench bench --x", "mixbench"),
        ("python bench.py --x", "bench.py --x", "python bench.py"),
        (".venv/bin/python ../a/bench.py", "../a/bench.py", ".venv/bin/python ../a/bench.py"),
        ("python -m mixbench list", "/mixbench/__main__.py list", "python -m mixbench"),
        ("python3 -W error bench.py a b", "bench.py a b", "python3 -W error bench.py"),
    ],
)
def test_how_it_was_called(original, argv, words):
    assert called(original.split(), argv.split()) == words.split()


@pytest.mark.parametrize(
    "command",
    [
        ["bench.py", "train", *COMPARED],
        ["-m", "mixbench", "bench", *COMPARED, "--strategies", "mixup(alpha=0.5),none"],
    ],
)
def test_the_record_is_what_was_typed(command, tmp_path):
    """Of a process as a shell starts it, in the files that a reader meets."""
    typed = [sys.executable, *command, "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(typed, cwd=ROOT, env=environment, check=True, capture_output=True)
    about = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert shlex.split(about["command"]) == typed
    markdown = (tmp_path / "run" / "comparison.md").read_text().splitlines()
    assert f"`{about['command']}`" in markdown
