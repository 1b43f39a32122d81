"""Which runs are below a folder, and how far they are."""

import json

import pytest

from mixbench.cli import main
from mixbench.runs.directory import RunDirectory
from mixbench.runs.found import run_rows
from tests.support.command import TINY
from tests.support.rows import run_row, speed_row, write_run

ASKED = {"recipe": "quick", "strategies": ["none", "cutmix"], "seeds": [0, 1], "mode": "accuracy"}


def ask(folder, **changes):
    """Write what a run was asked for."""
    about = {"schema_version": 3, "command": "mixbench bench", "asked": ASKED | changes}
    RunDirectory(folder).environment.write_text(json.dumps(about))


def state(folder):
    [row] = run_rows(folder)
    return row["state"]


def test_a_run_of_the_command_is_found(tmp_path, capsys):
    out = tmp_path / "runs" / "mine"
    argv = ["--strategies", "none,cutmix", "--seeds", "0-1", "--mode", "accuracy", *TINY]
    assert main([*argv, "--out", str(out)]) == 0
    (tmp_path / "runs" / "other").mkdir()
    [row] = run_rows(tmp_path / "runs")
    assert row == run_rows(out)[0] | {"directory": str(out)}
    assert (row["directory"], row["recipe"]) == (str(out), "quick")
    assert (row["strategies"], row["seeds"]) == (["none", "cutmix"], [0, 1])
    assert (row["model"], row["state"]) == ("vit_tiny_patch16_224", "finished")
    assert row["command"].startswith("mixbench --strategies none,cutmix --seeds 0-1")
    capsys.readouterr()
    assert main(["list", "runs", str(tmp_path / "runs")]) == 0
    [_, line] = capsys.readouterr().out.splitlines()
    assert line.split()[-6:] == [
        "quick",
        "vit_tiny_patch16_224",
        "none,",
        "cutmix",
        "0,1",
        "finished",
    ]


def test_nothing_is_no_run(tmp_path, capsys, monkeypatch):
    assert run_rows(tmp_path) == [] and run_rows(tmp_path / "nowhere") == []
    monkeypatch.chdir(tmp_path)
    assert main(["list", "runs"]) == 0 and "no runs here" in capsys.readouterr().out


def test_what_is_missing_makes_it_unfinished(tmp_path):
    rows = [run_row(name, seed) for seed in (0, 1) for name in ("none", "cutmix")]
    run = write_run(tmp_path / "run", rows, files=False)
    assert state(run) == "finished"  # an older run, which does not say what was asked
    ask(run)
    assert state(run) == "finished"
    ask(run, seeds=[0, 1, 2])
    assert state(run) == "unfinished" and run_rows(run)[0]["seeds"] == [0, 1, 2]
    ask(run, mode="both")
    assert state(run) == "unfinished"
    ask(run, mode="speed")
    assert state(run) == "unfinished"
    speeds = [speed_row("none"), speed_row("cutmix")]
    ask(write_run(run, rows, speeds, files=False), mode="both")
    assert state(run) == "finished"
    RunDirectory(run).state(1).touch()
    assert state(run) == "unfinished"


def test_a_run_that_was_just_begun_is_unfinished(tmp_path):
    ask(tmp_path)
    assert state(tmp_path) == "unfinished"
    ask(tmp_path, strategies=[])
    assert state(tmp_path) == "unfinished"


def test_a_job_that_waits_is_unfinished_and_a_strategy_that_failed_is_told(tmp_path):
    good, bad = run_row("none", 0), run_row("cutmix", 0, None, status="failed: no luck")
    assert state(write_run(tmp_path / "a", [good, bad], files=False)) == "failed"
    waits = run_row("cutmix", 0, None, status="queued or running", dataset=None)
    assert state(write_run(tmp_path / "b", [good, waits], files=False)) == "unfinished"


def test_a_directory_in_use_is_running(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", [run_row()], files=False)
    monkeypatch.setattr(RunDirectory, "in_use", property(lambda self: True))
    assert state(run) == "running"


@pytest.mark.parametrize("content", ["", "[]", '{"asked": 3}', '{"asked": {"seeds": "x"}}', "{"])
def test_a_damaged_description_hides_no_run(content, tmp_path):
    run = write_run(tmp_path / "run", [run_row()], files=False)
    RunDirectory(run).environment.write_text(content)
    RunDirectory(run).recipe.write_text("- no recipe")
    [row] = run_rows(run)
    assert (row["strategies"], row["seeds"], row["model"]) == (["cutmix"], [0], None)
    assert row["state"] == "finished"
