"""mixbench eval on a run: the table, what is done once, what is damaged, what is refused."""

import csv
import json
from dataclasses import dataclass

import pytest

from mixbench import register_strategy
from mixbench.cli import main
from mixbench.runs.directory import RunDirectory
from mixbench.runs.evaluated import read_rows
from mixbench.strategies.cutmix import CutMix

TRAIN = ["train", "--config", "quick", "--embed-dim", "24", "--depth", "1", "--epochs", "1"]
TRAIN += ["--warmup-epochs", "0", "--limit-train", "64", "--limit-val", "40", "--seeds", "0,1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("eval") / "run"
    assert main([*TRAIN, "--strategies", "cutmix,transmix", "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(trained, tmp_path):
    import shutil

    return shutil.copytree(trained, tmp_path / "run")


def table(run):
    with (run / "evaluations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_strategy_and_seed_is_measured_once(run, capsys):
    assert main(["eval", "label-error,occlusion,shuffle", str(run), "--saliency", "none"]) == 0
    out = capsys.readouterr().out
    assert out.count("measured ") == 12 and "transmix" in out and "mean drop" in out
    rows = table(run)
    keys = {(row["evaluation"], row["strategy"], row["seed"]) for row in rows}
    assert len(keys) == 12
    errors = {
        (row["strategy"], row["seed"]): float(row["value"])
        for row in rows
        if (row["metric"], row["setting"]) == ("label_error", "")
    }
    with (run / "runs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            column = float(row["label_error"])
            assert errors[row["strategy"], row["seed"]] == pytest.approx(column, abs=2e-3)
    top1 = {
        (row["strategy"], row["seed"], row["evaluation"]): float(row["value"])
        for row in rows
        if (row["metric"], row["setting"]) == ("top1", "clean")
    }
    with (run / "runs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name in ("occlusion", "shuffle"):
                assert top1[row["strategy"], row["seed"], name] == pytest.approx(float(row["top1"]))
    before = (run / "evaluations.csv").read_bytes()
    assert main(["eval", "shuffle,label-error", str(run)]) == 0
    assert "measured" not in capsys.readouterr().out
    assert (run / "evaluations.csv").read_bytes() == before


def test_other_options_are_measured_anew_and_stand_beside(run, capsys):
    for target in ("share", "fraction"):
        assert main(["eval", "label-error", str(run), "--target", target]) == 0
    rows = [row for row in table(run) if (row["metric"], row["setting"]) == ("label_error", "")]
    assert len({row["options"] for row in rows}) == 2 and len(rows) == 8


@pytest.mark.parametrize("damage", ["cut off", "no arrays"])
def test_what_is_damaged_is_measured_again(run, capsys, damage):
    assert main(["eval", "shuffle", str(run)]) == 0
    whole = table(run)
    [file, *_] = sorted(run.glob("*/seed*/eval-shuffle-*.json"))
    if damage == "cut off":
        file.write_text(file.read_text()[:-20])
        assert len(read_rows(RunDirectory(run))) == len(whole) * 3 // 4
    else:
        file.with_suffix(".npz").unlink()
    capsys.readouterr()
    assert main(["eval", "shuffle", str(run)]) == 0
    assert capsys.readouterr().out.count("measured") == 1
    assert [row["value"] for row in table(run)] == [row["value"] for row in whole]


def test_a_strategy_that_fails_is_named_and_the_others_go_on(run, capsys, monkeypatch):
    monkeypatch.setattr(CutMix, "mix", lambda *_: 1 / 0)
    assert main(["eval", "label-error", str(run)]) == 1
    out = capsys.readouterr().out
    assert "no label-error of cutmix, seed 0: failed: ZeroDivisionError" in out
    assert "no label-error of transmix, seed 1" in out  # its base is cutmix


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["blur", "RUN"], "unknown evaluation 'blur'"),
        (["label-error", "NONE"], "is no run that this mixbench trained: it lacks recipe.yaml"),
        (["label-error", "RUN", "--target", "size"], "--target must be one of share, fraction"),
        (["label-error", "RUN", "--by", "mass"], "unknown option '--by'"),
        (["occlusion", "RUN", "--draw", "-1"], "--draw must be 0 or more, not -1"),
        (["--device", "cpu", "shuffle", "RUN"], "NAME comes first: mixbench eval NAME[,NAME] RUN"),
        (["occlusion"], "say what to measure: RUN, a directory of training, or --checkpoint FILE"),
        (["label-error", "RUN", "--data", "NONE"], "NONE"),
    ],
)
def test_mistakes_exit_with_2(argv, message, run, tmp_path, capsys):
    places = {"RUN": str(run), "NONE": str(tmp_path / "NONE")}
    assert main(["eval", *(places.get(word, word) for word in argv)]) == 2
    assert message in capsys.readouterr().err
    assert not (run / "evaluations.csv").exists()


def test_data_are_read_where_they_were_or_where_they_lie_now(tmp_path, photographs, capsys):
    import tarfile

    photographs(tmp_path / "data", train=8, val=3)
    for split in ("train", "val"):
        with tarfile.open(tmp_path / "data" / f"{split}.tar", "w") as file:
            file.add(tmp_path / "data" / split, arcname=".")
    command = ["train", "--config", "quick", "--embed-dim", "24", "--depth", "1", "--epochs", "1"]
    command += ["--warmup-epochs", "0", "--batch-size", "8", "--micro-batch", "8", "--workers", "0"]
    command += ["--strategies", "cutmix"]
    for name, data in (
        ("folder", ["--data", str(tmp_path / "data")]),
        ("tars", ["--dataset", f"tar/{tmp_path / 'data'}"]),
    ):
        assert main([*command, *data, "--out", str(tmp_path / name)]) == 0
        assert main(["eval", "shuffle", str(tmp_path / name)]) == 0
    (tmp_path / "data").rename(tmp_path / "moved")
    capsys.readouterr()
    command = ["eval", "shuffle", str(tmp_path / "folder"), "--draw", "1"]
    assert main(command) == 2
    assert "are no longer in" in capsys.readouterr().err
    assert main([*command, "--data", str(tmp_path / "moved")]) == 0
    (tmp_path / "moved" / "val" / "a" / "0.jpg").unlink()
    assert main([*command, "--data", str(tmp_path / "moved")]) == 2
    assert "holds other validation images" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(run, capsys):
    for file in run.glob("*/seed0/last.pt"):
        file.write_bytes(b"nothing")
    assert main(["eval", "shuffle", str(run)]) == 1
    assert "no shuffle of cutmix, seed 0" in capsys.readouterr().out
    assert {row["seed"] for row in table(run)} == {"1"}


def test_what_failed_in_training_is_not_measured(run, capsys):
    text = (run / "runs.csv").read_text()
    assert text.count("transmix,1,ok,") == 1
    (run / "runs.csv").write_text(text.replace("transmix,1,ok,", "transmix,1,loss is not finite,"))
    assert main(["eval", "shuffle", str(run)]) == 0
    assert capsys.readouterr().out.count("measured ") == 3


def test_a_plug_ins_strategy_needs_its_file(tmp_path, capsys):
    @register_strategy("mine")
    @dataclass(frozen=True)
    class Mine(CutMix):
        pass

    out = tmp_path / "mine"
    command = [word for word in TRAIN if word != "0,1"]
    command.remove("--seeds")
    assert main([*command, "--strategies", "mine", "--out", str(out)]) == 0
    assert main(["eval", "label-error", str(out)]) == 0
    assert json.loads((out / "data.json").read_text())["source"] == "scenes"
