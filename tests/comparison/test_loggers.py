"""Where an epoch's figures go: TensorBoard's and Weights & Biases' files, and anyone's logger."""

import struct

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

from mixbench import compare
from mixbench.cli import main
from mixbench.loops import Logger
from mixbench.runs.directory import RunDirectory
from tests.support.command import TINY, cells

KEYWORDS = {
    **{"embed_dim": 24, "depth": 1, "batch_size": 8, "micro_batch": 8, "epochs": 2},
    **{"warmup_epochs": 0, "config": "quick", "mode": "accuracy"},
    **{"limit_train": 16, "limit_val": 16},
}
ARGV = ["--strategies", "cutmix,transmix", *TINY, "--mode", "accuracy", "--epochs", "2"]


@pytest.fixture
def anonymous(monkeypatch, tmp_path):
    """Nobody is logged in to Weights & Biases, and what the tests before it knew is forgotten."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()
    yield monkeypatch
    wandb.teardown()


def curve(directory, spec, seed, column):
    return [float(row[column]) for row in cells(directory.seed(spec, seed).log)]


def test_tensorboard_has_the_figures_of_log_csv(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    argv = [*ARGV, "--seeds", "0,1", "--log", "tensorboard", "--out", str(directory.path)]
    assert main(argv) == 0
    for spec in ("cutmix", "transmix"):
        for seed in (0, 1):
            events = EventAccumulator(str(directory.curves(spec, seed)))
            events.Reload()
            for name in ("top1", "train_loss", "lr"):
                logged = events.Scalars(name)
                assert [event.step for event in logged] == [0, 1]
                expected = pytest.approx(curve(directory, spec, seed, name))
                assert [event.value for event in logged] == expected


def records(file):
    """What an offline run of Weights & Biases wrote: records in LevelDB's log format."""
    data, place, found, parts = file.read_bytes(), 7, [], b""  # after the head of seven bytes
    while place + 7 < len(data):
        left = 32768 - place % 32768
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        if left < 7 or kind == 0:
            place += left  # the rest of a block is empty
            continue
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


def test_weights_and_biases_offline(tmp_path, anonymous):
    anonymous.setenv("WANDB_MODE", "offline")
    directory = RunDirectory(tmp_path / "run")
    assert main([*ARGV, "--log", "wandb,tensorboard", "--out", str(directory.path)]) == 0
    found = {}
    for file in (directory.path / "wandb").glob("offline-run-*/run-*.wandb"):
        written = records(file)
        [run] = [record.run for record in written if record.HasField("run")]
        points = [
            {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            for record in written
            if record.HasField("history")
        ]
        config = {item.key: item.value_json for item in run.config.update}
        assert run.project == "mixbench" and run.run_group == "run"
        assert config["epochs"] == "2" and config["seed"] == "0"
        found[run.display_name] = [float(point["top1"]) for point in points]
        assert [int(point["_step"]) for point in points] == [0, 1]
    assert found == {
        f"{spec} seed 0": pytest.approx(curve(directory, spec, 0, "top1"))
        for spec in ("cutmix", "transmix")
    }
    # a run with such a folder can be gone on with
    assert main([*ARGV, "--seeds", "0,1", "--out", str(directory.path), "--resume"]) == 0


def test_nobody_is_logged_in(tmp_path, anonymous, capsys):
    assert main([*ARGV, "--log", "wandb", "--out", str(tmp_path / "run")]) == 2
    assert "set WANDB_MODE=offline" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class Heard:
    """Keeps what it hears, and fails at a word of it."""

    def __init__(self, fails_at=None):
        self.rows, self.closed, self.fails_at = [], 0, fails_at

    def log(self, strategy, seed, epoch, figures):
        if self.fails_at == (seed, epoch):
            raise OSError("the server is away")
        self.rows.append((strategy, seed, epoch, figures["top1"], figures["train_loss"]))

    def close(self):
        self.closed += 1


def expected(directory, spec, seed):
    tops, losses = (curve(directory, spec, seed, name) for name in ("top1", "train_loss"))
    return [(spec, seed, epoch, tops[epoch], losses[epoch]) for epoch in (0, 1)]


def test_a_logger_of_ones_own_and_one_that_fails(tmp_path, capsys):
    out, heard, failing = tmp_path / "run", Heard(), Heard(fails_at=(0, 1))
    assert isinstance(heard, Logger)
    done = compare("none", seeds=[0, 1], log=[failing, heard], out=out, **KEYWORDS)
    directory = RunDirectory(out)
    rows = [*expected(directory, "none", 0), *expected(directory, "none", 1)]
    assert done.good and heard.rows == rows and heard.closed == 2
    assert failing.rows == rows[:1] and failing.closed == 0
    said = capsys.readouterr().out
    line = "no more curves for Heard: failed: OSError: the server is away; log.csv has them"
    assert said.count(line) == 1


@pytest.mark.parametrize(
    "log, words",
    [
        ("tensorbord", "--log must be one of tensorboard, wandb, not 'tensorbord'"),
        ([print], "log must be names or have log() and close(), not <built-in"),
    ],
)
def test_mistakes(tmp_path, log, words):
    with pytest.raises(ValueError) as raised:
        compare("none", log=log, out=tmp_path / "run", **KEYWORDS)
    assert words in str(raised.value)


def test_a_package_that_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mixbench.comparison.loggers.find_spec", lambda name: None)
    assert main([*ARGV, "--log", "wandb", "--out", str(tmp_path / "run")]) == 2
    assert "pip install wandb" in capsys.readouterr().err


def test_evaluations_from_python(tmp_path):
    done = compare("none", evaluate="shuffle", out=tmp_path / "run", **KEYWORDS)
    assert done.good and done.runs["shuffle_drop"].notna().all()
