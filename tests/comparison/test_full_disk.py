"""A full disk ends a run in a sentence; what was written before stays, and the run goes on."""

import json
import os

import pytest
import torch

from mixbench.cli import main
from mixbench.comparison import accuracy
from mixbench.errors import STAYS
from mixbench.files import WriteError
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import RunRow, read_table
from mixbench.training import state
from tests.support import full_disks, kills

ARGV = ["--strategies", "none,cutmix", "--mode", "accuracy", *kills.TINY, "--epochs", "2"]
ARGV += ["--limit-train", "40", "--limit-val", "20"]
SIZES = 15


def command(out, seeds):
    return [*ARGV, "--out", str(out), "--seeds", seeds, "--resume"]


def contents(out):
    """The bytes of every file that a finished strategy and seed keep."""
    return {file: file.read_bytes() for file in sorted(out.glob("*/seed0/*"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("full") / "whole"
    status, text = full_disks.run(command(out, "0,1"))
    assert status == 0, text
    return out


def sizes(out):
    """Sizes spread over what a run writes: just too small for each file, and around a state's."""
    written = sorted({file.stat().st_size for file in out.rglob("*") if file.is_file()} - {0})
    too_small = [size - 1 for size in written]
    largest = too_small[-1]
    spread = [round(largest * share / 10) for share in range(11)]
    chosen = sorted({*too_small, *spread})
    return [chosen[number * (len(chosen) - 1) // (SIZES - 1)] for number in range(SIZES)]


@pytest.fixture
def one_thread():
    """As the runs in processes of their own have; the rows name it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "number", [2, *(pytest.param(n, marks=pytest.mark.fuzz) for n in range(SIZES) if n != 2)]
)
def test_a_full_disk_loses_nothing(number, tmp_path, whole):
    out = tmp_path / "run"
    assert full_disks.run(command(out, "0"))[0] == 0
    before = contents(out)
    assert len(before) == 2 * 5
    status, text = full_disks.run(command(out, "0,1"), sizes(whole)[number])
    line = text.rstrip().splitlines()[-1]
    assert status == 1 and line.startswith("error: ") and len(line) <= 500, text
    assert "disk" in line and "Traceback" not in text
    assert list(out.rglob("*.partial")) == []
    assert contents(out) == before
    for file in out.rglob("*.json"):
        json.loads(file.read_text())
    for file in out.rglob("*.pt"):
        torch.load(file, weights_only=True)
    assert {row.seed for row in read_table(RunDirectory(out).runs, RunRow)} >= {0}
    status, text = full_disks.run(command(out, "0,1"))
    assert status == 0, text
    assert kills.figures(out) == kills.figures(whole)


def test_the_sizes_are_spread(whole):
    assert len(set(sizes(whole))) == SIZES


@pytest.mark.usefixtures("one_thread")
def test_a_log_that_cannot_be_written_costs_one_epoch(tmp_path, whole, monkeypatch, capsys):
    write, calls = state.write_table, []

    def full(*arguments):
        calls.append(1)
        if len(calls) == 4:  # the second strategy's second epoch
            raise WriteError(28, "cannot write log.csv: the disk is full")
        write(*arguments)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(state, "write_table", full)
        assert main(command(out, "0")) == 1
    assert capsys.readouterr().err == f"error: cannot write log.csv: the disk is full; {STAYS}\n"
    assert RunDirectory(out).state(0).is_file()
    assert main(command(out, "0,1")) == 0
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert kills.figures(out) == kills.figures(whole)


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_a_table_elsewhere_that_cannot_be_written(option, tmp_path, monkeypatch, capsys):
    """It says so at the end of the part that filled it, and the run's own tables are there."""
    table, replace = tmp_path / "table", os.replace

    def full(source, target):
        if str(target) == str(table):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert main([*command(tmp_path / "run", "0"), option, str(table)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot write {table}: the disk is full") and STAYS in error
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len(read_table(RunDirectory(tmp_path / "run").runs, RunRow)) == 2


def test_a_gallery_that_cannot_be_written_is_told(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise WriteError(28, "cannot write a.png: the disk is full")

    monkeypatch.setattr(accuracy, "mixed_picture", full)
    assert main(command(tmp_path / "run", "0")) == 1
    assert "error: cannot write a.png: the disk is full" in capsys.readouterr().err
    assert len(RunDirectory(tmp_path / "run").results()) == 2
