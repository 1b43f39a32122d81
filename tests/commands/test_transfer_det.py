"""mixbench transfer det: a run's strategies and seeds, the control, what is done once, mistakes."""

import re

import pytest

from mixbench.cli import main
from mixbench.transfer.recipe import DetectionRecipe, load_recipe
from tests.commands.test_transfer import SPECS, TRAIN, figures
from tests.support.coco import annotations_of, write_annotations, write_detection

SMALL = "--fpn-channels 16 --box-head-dim 16 --rois-per-image 8 --short-side 32 --long-side 64"
DET = ["--config", "coco100_det", *SMALL.split(), "--epochs", "1", "--milestones", "1"]
DET += ["--batch-size", "2", "--limit-classes", "0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("transfer") / "run"
    assert main([*TRAIN, "--strategies", ",".join(SPECS), "--out", str(out)]) == 0
    return out


@pytest.fixture
def data(tmp_path):
    return write_detection(tmp_path / "objects")


def test_every_strategy_and_seed_is_transferred_once(run, data, capsys):
    argv = ["transfer", "det", str(run), "--data", str(data), *DET, "--control"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert out.count("measured det of") == 6 and "det on objects (epochs=1" in out
    assert "left out of the training of objects: 2 images without an object" in out
    for setting in ("boxes", "masks"):
        for metric in ("ap", "ap50", "ap75"):
            found = [key for key in figures(run, metric) if key[2] == setting]
            assert {key[:2] for key in found} == {
                (spec, seed) for spec in (*SPECS, "random weights") for seed in "01"
            }
    page = (run / "report.html").read_text()
    assert "TransMix-PVT-S 40.9 AP of boxes" in page and "masks AP75" in page
    columns = ("truth", *(f"{spec}, seed 0" for spec in (*SPECS, "random weights")))
    assert re.findall(r'src="data:image/jpeg[^"]*" alt="([^"]*)"', page) == list(columns)
    before = (run / "evaluations.csv").read_bytes()
    assert main(argv) == 0
    assert "measured" not in capsys.readouterr().out
    assert (run / "evaluations.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ms"], "unknown option '--ms'"),
        (["--decoder", "linear"], "unknown option '--decoder'"),
        (["--milestones", "2"], "milestones (2,) must not be above epochs 1"),
        (["--batch-size", "4"], "batch_size 4 is larger than the 3 training images"),
        (["--config", "coco"], "recipe file not found: 'coco'; did you mean 'coco_1x'?"),
    ],
)
def test_mistakes_exit_with_2(options, message, run, data, capsys):
    status = main(["transfer", "det", str(run), "--data", str(data), *DET, *options])
    out = capsys.readouterr()
    assert status == (1 if "batch_size" in message else 2)
    assert message in out.err + out.out


def test_annotations_without_an_object_end_it_before_training(run, data, capsys):
    content = annotations_of(data, "val2017")
    write_annotations(data, "val2017", content | {"annotations": []})
    assert main(["transfer", "det", str(run), "--data", str(data), *DET]) == 2
    assert "instances_val2017.json has no usable object of ant, cow, bus" in capsys.readouterr().err


def test_the_shipped_recipe_is_the_defaults_in_full():
    assert load_recipe(DetectionRecipe, "coco_1x", {}) == DetectionRecipe()
