"""A run that is killed, damaged or out of disk goes on to the figures of one left alone."""

import fcntl
import json
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mixbench.cli import main
from mixbench.comparison import timing
from mixbench.evaluations.speed import measure as measured
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import ComparisonRow, EpochRow, SpeedRow, read_table, write_table
from tests.support import kills
from tests.support.faults import DEAD_WORKER, FULL_DISK, KILLERS, PLUGIN

SPECS = "cutmix,transmix"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert kills.run(out, SPECS, "0,1")
    return kills.figures(out)


def killed(out, code, *extra):
    plugin = out.parent / "killer.py"
    plugin.write_text(PLUGIN + code)
    assert not kills.run(out, SPECS, "0,1", "--plugin", str(plugin), *extra)


def said(out):
    return Path(f"{out}.txt").read_text()


@pytest.mark.parametrize("where", KILLERS)
def test_killed_and_resumed(where, tmp_path, whole):
    out = tmp_path / "run"
    killed(out, KILLERS[where])
    assert kills.run(out, SPECS, "0,1") and "resuming after epoch" in said(out)
    assert not list(out.glob("state*"))
    assert kills.figures(out) == whole
    assert not list(out.glob("*.pt")) and not list(out.rglob("*.partial"))


def test_killed_after_an_epoch_that_was_not_evaluated(tmp_path, whole):
    """Resumed with another interval: seed 0 stopped in its third epoch, seed 1 begins anew."""
    out = tmp_path / "run"
    killed(out, KILLERS["in a step"], "--val-interval", "3")
    assert kills.run(out, SPECS, "0,1", "--val-interval", "2")
    assert "resuming after epoch 2" in said(out) and kills.figures(out) == whole
    for spec, evaluated in ((spec, {0: "3", 1: "13"}) for spec in SPECS.split(",")):
        for seed in (0, 1):
            log = read_table(RunDirectory(out).seed(spec, seed).log, EpochRow)
            found = "".join(str(row.epoch) for row in log if row.top1 is not None)
            assert len(log) == 4 and found == evaluated[seed]


def test_a_killed_fine_tuning_goes_on_from_its_weights(tmp_path):
    """From the file of an earlier run, in another place when it is resumed."""
    first, out, whole = tmp_path / "first", tmp_path / "run", tmp_path / "whole"
    assert kills.run(first, "none", "0", "--epochs", "1", "--warmup-epochs", "0")
    [weights] = first.glob("none*/seed0/last.pt")
    options = ("--layer-decay", "0.75", "--model-ema", "--headline", "ema", "--init")
    assert kills.run(whole, SPECS, "0,1", *options, str(weights))
    killed(out, KILLERS["in a step"], *options, str(weights))
    moved = weights.replace(tmp_path / "moved.pt")
    assert kills.run(out, SPECS, "0,1", *options, str(moved)) and "resuming" in said(out)
    rows = [{**row, "weights": ""} for row in kills.figures(out)]
    assert rows == [{**row, "weights": ""} for row in kills.figures(whole)]
    assert "training starts from" in said(out) and "with its classifier" in said(out)


def test_loader_processes_do_not_hold_the_directory_of_a_killed_run(tmp_path, whole):
    """They outlive it by seconds; it is resumed at once."""
    out, workers = tmp_path / "run", ("--workers", "2")
    for moment in ("30", "60"):
        killed(out, KILLERS["in a step"].replace("50", moment), *workers)
    assert kills.run(out, SPECS, "0,1", *workers)
    assert kills.figures(out) == whole


@pytest.mark.fuzz
def test_twenty_kills_at_random_moments(tmp_path):
    specs, seeds, workers = "none,mixup,cutmix,transmix", "0,1", ("--workers", "2")
    begin = time.monotonic()
    assert kills.run(tmp_path / "whole", specs, seeds, *workers)
    seconds = time.monotonic() - begin
    moments, count, number = random.Random(0), 0, 0
    while count < 20:
        out, ended = tmp_path / f"run{number}", False
        while count < 20 and not ended:
            moment = moments.uniform(0.2, seconds)
            ended = kills.run(out, specs, seeds, *workers, kill_after=moment)
            count += not ended
        assert kills.run(out, specs, seeds, *workers)
        assert kills.figures(out) == kills.figures(tmp_path / "whole")
        number += 1


def test_fewer_strategies_go_on_and_the_others_after_them(tmp_path, whole):
    out = tmp_path / "run"
    killed(out, KILLERS["in a step"])
    assert kills.run(out, "cutmix", "0") and list(out.glob("state-seed0*.pt"))
    with pytest.raises(RuntimeError, match="in the middle of training transmix, and none cannot"):
        kills.run(out, "none", "0")
    assert kills.run(out, SPECS, "0,1")
    assert said(out).count("resuming after epoch 2") == 2 and not list(out.glob("*.pt"))
    assert sorted(kills.figures(out), key=str) == sorted(whole, key=str)


def test_a_new_strategy_follows_those_in_the_middle_of_training(tmp_path, whole):
    out = tmp_path / "run"
    killed(out, KILLERS["in a step"])
    with pytest.raises(RuntimeError, match="in the middle of training cutmix, transmix, and none"):
        kills.run(out, "none,transmix", "0")  # before it trains any
    assert said(out).count("resuming") == 0
    assert kills.run(out, f"none,{SPECS}", "0,1")
    assert "3 strategies train in 2 groups (2, 1)" in said(out)
    assert [row for row in kills.figures(out) if row["strategy"] != "none"] == whole


def test_a_damaged_state_is_found_and_the_one_before_it_used(tmp_path, whole):
    out = tmp_path / "run"
    killed(out, KILLERS["in a step"].replace("50", "80"))  # in the fourth epoch of the first seed
    state = out / "state-seed0.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    assert kills.run(out, SPECS, "0,1")
    assert "state-seed0.pt is damaged" in said(out) and "resuming after epoch 2" in said(out)
    assert kills.figures(out) == whole


def test_what_is_finished_is_not_done_again(tmp_path, whole):
    """Also where a finished seed is given another strategy, and another seed is asked for."""
    out = tmp_path / "run"
    assert kills.run(out, "cutmix", "0") and kills.run(out, SPECS, "0,1")
    assert said(out).count("seed 0  epoch 1/4  cutmix") == 1
    assert kills.figures(out) == whole
    assert kills.run(out, SPECS, "0,1")  # nothing is left to do
    assert kills.figures(out) == whole


def test_a_strategy_that_diverged_keeps_its_last_good_weights(tmp_path):
    code = """
@register_strategy("late")
@dataclass(frozen=True)
class Late(CutMix):
    def mix(self, images, labels, ctx):
        self.__dict__["progress"] = ctx.progress
        return super().mix(images, labels, ctx)
    def relabel(self, mixed, output):
        if self.progress >= 0.5:
            output.logits.data.fill_(float("nan"))  # the network's, as where it diverges
        return mixed.lam
"""
    out = tmp_path / "run"
    plugin = tmp_path / "late.py"
    plugin.write_text(PLUGIN + code + KILLERS["in a step"].replace("50", "80"))
    assert not kills.run(out, "late,cutmix", "0", "--plugin", str(plugin), "--mix-prob", "1")
    state = torch.load(out / "state-seed0.pt", weights_only=True)["learners"]["late"]
    assert state["failure"] == "diverged at step 24"
    assert all(value.isfinite().all() for value in state["model"].values())
    plugin.write_text(PLUGIN + code)
    with pytest.raises(
        RuntimeError, match="diverged at step 24"
    ):  # the status of the command is not 0
        kills.run(out, "late,cutmix", "0", "--plugin", str(plugin), "--mix-prob", "1")
    rows = {row["strategy"]: row for row in kills.figures(out)}
    assert rows["late"]["status"] == "diverged at step 24" and rows["late"]["top1"] == ""
    assert rows["cutmix"]["status"] == "ok"


@pytest.mark.parametrize(
    ("code", "extra", "message"),
    [
        (FULL_DISK, (), "No space left on device"),
        (DEAD_WORKER, ("--workers", "1"), "worker"),
    ],
    ids=["full disk", "dead worker"],
)
def test_a_full_disk_or_a_dead_worker_ends_the_run_resumably(code, extra, message, tmp_path, whole):
    out, plugin = tmp_path / "run", tmp_path / "fault.py"
    plugin.write_text(PLUGIN + code)
    with pytest.raises(RuntimeError, match=message):
        kills.run(out, SPECS, "0,1", "--plugin", str(plugin), *extra)
    assert "--resume goes on" in said(out)
    assert kills.run(out, SPECS, "0,1")
    assert kills.figures(out) == whole


def test_two_processes_cannot_share_a_directory(tmp_path, capsys):
    (tmp_path / ".lock").write_text("")
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["--mode", "accuracy", "--out", str(tmp_path), *kills.TINY]) == 2
    assert "in use by another process" in capsys.readouterr().err


SPEED = [
    *("--mode", "speed", "--rounds", "2", "--speed-model", "test_vit"),
    *("--speed-image-size", "32", "--speed-batch-size", "2"),
]


def test_speed_is_not_measured_again(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path / "run")
    argv = [*SPEED, "--out", str(directory.path)]
    assert main(argv) == 0
    before = directory.speed.read_text(), directory.comparison.read_text()
    monkeypatch.setattr(timing, "measure", None)
    assert main([*argv, "--resume"]) == 0
    assert (directory.speed.read_text(), directory.comparison.read_text()) == before


def test_a_failed_strategy_is_not_timed_again(tmp_path, monkeypatch):
    plugin = tmp_path / "failing.py"
    plugin.write_text(PLUGIN + FAILING)
    argv = [*SPEED, "--plugin", str(plugin), "--strategies", "failing,none"]
    argv += ["--out", str(tmp_path / "run")]
    assert main(argv) == 1
    monkeypatch.setattr(timing, "measure", None)
    assert main([*argv, "--resume"]) == 1


FAILING = """
@register_strategy("failing")
@dataclass(frozen=True)
class Failing(CutMix):
    def mix(self, images, labels, ctx):
        raise RuntimeError("no luck")
"""


def test_rows_of_two_measurements_are_not_passed_off_as_one(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path / "run")
    argv = [*SPEED, "--out", str(directory.path)]
    assert main([*argv, "--strategies", "none"]) == 0
    assert main([*argv, "--strategies", "mixup", "--resume"]) == 0
    assert {row.strategy for row in read_table(directory.speed, SpeedRow)} == {
        *("cutmix", "none", "mixup")
    }
    rounds = []
    monkeypatch.setattr(timing, "measure", lambda *_: rounds.append(1) or measured(*_))
    assert main([*argv, "--strategies", "none,mixup", "--resume"]) == 0 and rounds == [1]


@pytest.mark.parametrize("option", [("--speed-image-size", "64"), ("--speed-batch-size", "4")])
def test_another_size_is_measured_anew(option, tmp_path, monkeypatch):
    """Of a speed alone the recipe may differ in what is timed: the directory is another's then."""
    assert main([*SPEED, "--out", str(tmp_path / "run")]) == 0
    assert main([*SPEED, *option, "--out", str(tmp_path / "run"), "--resume"]) == 2


@pytest.mark.parametrize("column", ["versions", "compiled"])
def test_another_machine_or_version_is_measured_anew(column, tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path / "run")
    argv = [*SPEED, "--out", str(directory.path)]
    assert main(argv) == 0
    value = True if column == "compiled" else "other"
    rows = [replace(row, **{column: value}) for row in read_table(directory.speed, SpeedRow)]
    write_table(directory.speed, SpeedRow, rows)
    rounds = []
    monkeypatch.setattr(timing, "measure", lambda *_: rounds.append(1) or measured(*_))
    assert main([*argv, "--resume"]) == 0 and rounds == [1]


def test_timing_again_without_resume_replaces_what_was_timed(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    argv = [*SPEED, "--out", str(directory.path)]
    assert main([*argv, "--strategies", "none"]) == 0
    assert main([*argv, "--strategies", "mixup"]) == 0
    assert [row.strategy for row in read_table(directory.speed, SpeedRow)] == ["cutmix", "mixup"]


def test_a_speed_is_on_disk_before_training_begins(tmp_path, whole):
    out, plugin = tmp_path / "run", tmp_path / "killer.py"
    plugin.write_text(PLUGIN + KILLERS["in a step"])
    both = ["--mode", "both", *SPEED[2:]]
    assert not kills.run(out, SPECS, "0", *both, "--plugin", str(plugin))
    assert kills.run(out, SPECS, "0", *both)
    assert said(out).count("timing test_vit") == 1
    assert len(read_table(RunDirectory(out).speed, SpeedRow)) == 2


def test_a_profile_that_fails_costs_no_speed(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path / "run")
    monkeypatch.setattr(timing, "profile", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([*SPEED, "--profile", "--out", str(directory.path)])
    assert len(read_table(directory.speed, SpeedRow)) == 2


def test_a_strategy_without_a_finite_loss_has_status_1_and_a_page(tmp_path):
    plugin = tmp_path / "nan.py"
    plugin.write_text(PLUGIN + NOT_A_NUMBER)
    directory = RunDirectory(tmp_path / "run")
    argv = ["--plugin", str(plugin), "--strategies", "nan,cutmix", "--mode", "accuracy"]
    assert main([*argv, "--out", str(directory.path), *kills.TINY, "--epochs", "1"]) == 1
    assert directory.report.is_file()
    assert directory.seed("nan", 0).log.read_text().splitlines()[1].split(",")[2] == "nan"
    assert "diverged at step 0" in directory.comparison.read_text()


NOT_A_NUMBER = """
@register_strategy("nan")
@dataclass(frozen=True)
class NotANumber(CutMix):
    def relabel(self, mixed, output):
        output.logits.data.fill_(float("nan"))  # the network's, as where it diverges
        return mixed.lam
"""


def test_a_failed_row_stays_in_every_table(tmp_path):
    """Timing afterwards takes nothing from the tables."""
    plugin = tmp_path / "failing.py"
    plugin.write_text(PLUGIN + FAILING)
    directory = RunDirectory(tmp_path / "run")
    common = [*SPEED[2:], "--plugin", str(plugin), "--out", str(directory.path), *kills.TINY]
    assert main(["--strategies", "failing", "--mode", "accuracy", *common]) == 1
    assert main(["--strategies", "none", "--mode", "speed", "--resume", *common]) == 0
    rows = {row.strategy: row.status for row in read_table(directory.comparison, ComparisonRow)}
    assert "no luck" in rows["failing"] and rows["none"] == "ok"
    assert "no luck" in directory.runs.read_text()


def test_another_number_of_rounds_is_measured_anew(tmp_path, monkeypatch):
    argv = [*SPEED, "--out", str(tmp_path / "run")]
    assert main(argv) == 0

    def measured_anew(*_):
        raise ValueError("measured anew")

    monkeypatch.setattr(timing, "measure", measured_anew)
    assert main([*argv, "--rounds", "3", "--resume"]) == 2


def test_an_interrupt_does_not_wipe_the_comparison(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path / "run")
    argv = ["--strategies", "cutmix", "--mode", "accuracy", "--out", str(directory.path)]
    argv += [*kills.TINY, "--epochs", "1"]
    assert main(argv) == 0
    before = directory.runs.read_text(), directory.comparison.read_text()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "measure", interrupted)
    assert main([*argv, "--mode", "both", "--resume"]) == 130
    assert (directory.runs.read_text(), directory.comparison.read_text()) == before


@pytest.mark.parametrize("file", ["environment.json", "result.json"])
def test_a_directory_of_an_older_schema_is_not_gone_on_with(file, tmp_path, capsys):
    directory = RunDirectory(tmp_path / "run")
    argv = ["--mode", "accuracy", "--out", str(directory.path), *kills.TINY]
    old = directory.seed("cutmix", 0).result if file == "result.json" else directory.environment
    old.parent.mkdir(parents=True)
    content = {"schema_version": 2, "strategy": "cutmix", "seed": 0}
    old.write_text(json.dumps(content if file == "result.json" else {"device": "a CPU"}))
    assert main([*argv, "--resume"]) == 2
    assert "schema_version 2, this one has 3" in capsys.readouterr().err


def test_a_strategy_that_raises_after_training_costs_no_figure(tmp_path):
    code = """
@register_strategy("eights")
@dataclass(frozen=True)
class Eights(CutMix):
    def mix(self, images, labels, ctx):
        assert len(images) == 8, "eight at a time"
        return super().mix(images, labels, ctx)
"""
    out, plugin = tmp_path / "run", tmp_path / "eights.py"
    plugin.write_text(PLUGIN + code)
    assert kills.run(out, "eights,cutmix", "0", "--plugin", str(plugin))
    assert [row["status"] for row in kills.figures(out)] == ["ok", "ok"]
    assert "no label error of eights" in said(out)
