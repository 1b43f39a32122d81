"""`--scene-area` in a whole run: what is drawn, what is stored, and what is evaluated later."""

import json

import pytest

from mixbench.cli import main
from mixbench.runs.directory import RunDirectory
from tests.support.command import TINY, cells

SMALL = [*("--strategies", "cutmix", *TINY, "--mode", "accuracy", "--scene-area", "0.02,0.06")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "small"
    assert main([*SMALL, "--out", str(folder)]) == 0
    return RunDirectory(folder)


def test_the_run_says_its_data_and_measures_labels_on_such_scenes(run):
    [row] = cells(run.runs)
    assert (row["dataset"], row["drawn"]) == ("scenes:0.02,0.06", "True")
    stored = json.loads(run.data.read_text())
    assert (stored["source"], stored["val"]) == (
        "scenes:0.02,0.06",
        "scenes:0.02,0.06-val-1000-32[20]",
    )
    figures = {}
    for masks in ("scenes", "scenes:0.02,0.06"):
        assert main(["eval", "label-error", str(run.path), "--masks", masks, "--passes", "1"]) == 0
        figures[masks] = _label_error(run, masks)
    assert figures["scenes:0.02,0.06"] == pytest.approx(float(row["label_error"]), abs=1e-3)
    assert abs(figures["scenes"] - float(row["label_error"])) > 1


def _label_error(run, masks):
    rows = [row for row in cells(run.evaluations) if row["metric"] == "label_error"]
    [value] = [row["value"] for row in rows if row["dataset"] == masks and row["setting"] == ""]
    return float(value)


def test_its_own_images_are_drawn_again_for_an_evaluation(run, capsys):
    assert main(["eval", "shuffle", str(run.path)]) == 0
    assert "scenes:0.02,0.06" in run.evaluations.read_text()


@pytest.mark.parametrize(
    ("area", "message"),
    [
        (["--scene-area", "0.02,0.07"], "--scene-area is another"),
        ([], "--scene-area is another"),
        (["--scene-area", "0.07,0.02"], "LOW,HIGH"),
        (["--scene-area", "0.001,0.02"], "take 0.004 or more"),
        (["--scene-area", "0.02,0.06", "--dataset", "cifar10"], "leave out --data and --dataset"),
    ],
)
def test_other_areas_are_refused(run, area, message, capsys):
    before = run.runs.read_bytes()
    argv = [*SMALL[:-2], *area, "--out", str(run.path), "--resume"]
    assert main(argv) == 2
    assert message in capsys.readouterr().err
    assert run.runs.read_bytes() == before


def test_the_same_area_is_the_same_run(run, capsys):
    assert main([*SMALL[:-1], "0.020,.06", "--out", str(run.path), "--resume"]) == 0
    assert (
        main([*SMALL[:-2], "--dataset", "scenes:0.02,0.06", "--out", str(run.path), "--resume"])
        == 0
    )
