"""A full disk ends a run in a sentence; what was written before stays, and the run goes on."""

import json

import pytest
import torch

from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import RunRow, read_table
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
