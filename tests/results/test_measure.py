"""`make results`: its tables are commands, one after the other, and none is lost or done twice."""

import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mixbench.cli import main
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import RunRow, SpeedRow, read_table
from results import measure
from results.measure import SPEEDS
from tests.support.rows import run_row, speed_row, write_run


@pytest.mark.parametrize(
    "options",
    [{}, *SPEEDS["cpu"].values(), *SPEEDS["cuda"].values()],
    ids=lambda options: " ".join(measure.command(options)),
)
def test_tables_of_make_results_are_commands(options, capsys):
    base = {"--strategies": "cutmix,transmix", "--mode": "speed", "--rounds": "40"}
    command = measure.command(base | options)
    assert main([*command, "--print-recipe"]) == 0
    # the page says what was run
    assert command.count("--rounds") == command.count("--strategies") == 1


class Command:
    """Stands for the command: keeps what it is called with and leaves rows of made figures."""

    def __init__(self, runs=(), speed=()):
        self.runs, self.speed = runs, speed
        self.calls = []
        self.failing = lambda argv: None  # what is raised or returned in place of a run

    def __call__(self, argv):
        self.calls.append(argv)
        failure = self.failing(argv)
        if isinstance(failure, Exception):
            raise failure
        out = Path(argv[argv.index("--out") + 1])
        if failure != 2:
            write_run(out, self.runs, self.speed)
            RunDirectory(out).comparison.write_text("strategy\n")
        return failure or 0


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A command that times CutMix, on a CPU, in a folder without peers."""
    command = Command(speed=[speed_row("cutmix")])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "mixbench", command)
    monkeypatch.setattr(measure, "timed_strategies", lambda: ["cutmix"])
    monkeypatch.setattr(measure, "choose_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # no GPU tests from within a test
    return command


@pytest.mark.parametrize("failure", [RuntimeError("out of memory"), 2], ids=["raises", "refused"])
def test_a_failed_table_does_not_lose_the_others(failure, tmp_path, command):
    """Nor is what there is measured again: only the failed one."""
    command.failing = lambda argv: None if "--gradient-amp" in argv else failure
    assert measure.main(["--rounds", "1"]) != 0
    [page] = (tmp_path / "results").glob("*.md")
    assert ["--gradient-amp" in argv for argv in command.calls] == [False, True]
    *argv, option, folder = command.calls[1]
    assert option == "--out" and "--rounds 1" in shlex.join(argv)
    typed = shlex.join(["python", "bench.py", *argv])
    assert f"`{typed}`" in page.read_text().splitlines()
    assert folder not in page.read_text()
    command.failing = lambda argv: None
    assert measure.main(["--rounds", "1"]) == 0
    assert [argv[:-1] for argv in command.calls[2:]] == [command.calls[0][:-1]]
    assert len(list((tmp_path / "results").glob("*.md"))) == 2


def test_an_interrupted_table_is_measured_again(tmp_path, command):
    """A run that was cut off leaves rows, but no page: with one it would count as measured."""
    command.failing = lambda argv: 130
    assert measure.main(["--rounds", "1"]) == 130
    assert len(command.calls) == 1 and not list(tmp_path.glob("results/*"))


def test_a_table_with_a_failed_strategy_is_kept(tmp_path, command):
    command.failing = lambda argv: 1
    assert measure.main(["--rounds", "1"]) == 1
    assert len(list(tmp_path.glob("results/*.md"))) == 2


def test_rows_beside_the_page(tmp_path, command):
    assert measure.main(["--rounds", "1"]) == 0
    for file in tmp_path.glob("results/*.csv"):
        assert read_table(file, SpeedRow) == [speed_row("cutmix")]
        assert "cutmix" in file.with_suffix(".md").read_text()


def test_training_says_nothing_of_the_folders_place(tmp_path, command, monkeypatch):
    """The page names the folder alone; a seed's figures come with their test over the images."""
    rows = [run_row("cutmix"), run_row("transmix", top1=71.0)]
    command.runs, command.speed = rows, []
    monkeypatch.setattr(measure, "epochs_within", lambda *_: 7)
    data = tmp_path / "private" / "flowers"
    page = tmp_path / "page.md"
    assert measure.measure_top1(str(data), "0", 60, torch.device("cpu"), page) == 0
    [argv] = command.calls
    assert argv[argv.index("--data") + 1] == str(data)
    assert argv[argv.index("--epochs") + 1] == "7"
    text = page.read_text()
    assert "--data flowers --config quick" in text and "private" not in text
    assert "McNemar p" in text
    assert read_table(page.with_suffix(".csv"), RunRow) == rows


def test_a_short_run_has_a_short_warm_up(tmp_path, command, monkeypatch):
    """The recipe of a GPU warms up for 20 epochs."""
    command.runs, command.speed = [run_row("cutmix")], []
    for epochs, warmup in ((7, ["1"]), (200, [])):
        monkeypatch.setattr(measure, "epochs_within", lambda *_, epochs=epochs: epochs)
        argv = [str(tmp_path), "0", 60, torch.device("cuda"), tmp_path / f"{epochs}.md"]
        assert measure.measure_top1(*argv) == 0
        argv = command.calls[-1]
        assert [value for name, value in pairwise(argv) if name == "--warmup-epochs"] == warmup


def test_share_of_the_matrix_rate():
    """2,000 images a second of 27.8 GFLOP are 55.6 of 556 TFLOP/s."""
    page = measure.shares(556e12, {"bf16": 2000.0, "bf16-compiled": None})
    assert "556 TFLOP/s" in page and "27.8 GFLOP an image, reaches of it: bf16 10.0 %." in page


def test_cutmix_rate(tmp_path):
    file = tmp_path / "speed.csv"
    assert measure.cutmix_rate(file) is None
    folder = write_run(tmp_path / "run", speed=[speed_row("none"), speed_row(im_per_sec=50.0)])
    assert measure.cutmix_rate(RunDirectory(folder).speed) == 50.0
