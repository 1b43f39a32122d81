"""What the command keeps of single images, and what it calls their classes."""

import json
import shutil

import numpy as np
import pytest

from mixbench.cli import main
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import EpochRow, RunRow, read_table
from mixbench.runs.samples import read_gallery, read_images
from tests.support.command import TINY, cells

COMMAND = ["--strategies", "cutmix", "--mode", "accuracy", "--config", "quick", "--workers", "0"]
NAMES = "n01440764\tthe tench\nother\tnot here\n"


@pytest.fixture(scope="module")
def photos(tmp_path_factory, photographs):
    return photographs(tmp_path_factory.mktemp("photos") / "photos", 10, 12, ("n01440764", "own"))


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """A run with names from a file, which names one class of two and one that is not there."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "names.txt").write_text(NAMES)
    argv = ["--data", str(photos), *COMMAND, *TINY, "--limit-val", "17"]
    argv += ["--class-names", str(folder / "names.txt"), "--out", str(folder / "run")]
    assert main(argv) == 0
    return RunDirectory(folder / "run"), argv


def test_the_figures_of_single_images_are_those_of_the_row(finished):
    directory, _ = finished
    [row], seed = read_table(directory.runs, RunRow), directory.seed("cutmix", 0)
    images = read_images(seed.images)
    assert len(images.label) == 17 and not seed.correct.exists()
    names = images.bitmap.image_names()
    classes = json.loads(directory.data.read_text())["classes"]
    assert [name.split("/")[1] for name in names] == [classes[label] for label in images.label]
    assert row.top1 == pytest.approx(100 * images.bitmap.right.mean(), abs=1e-3)
    assert row.nll == pytest.approx(images.nll.mean(), abs=1e-4)
    assert row.brier == pytest.approx(images.brier.mean(), abs=1e-4)
    # of two classes the rest follows from the confidence
    right, likely = images.bitmap.right, images.confidence
    true = np.where(right, likely, 1 - likely)
    np.testing.assert_allclose(images.nll, -np.log(true), rtol=1e-4)
    np.testing.assert_allclose(images.brier, 2 * (1 - true) ** 2, rtol=1e-3, atol=1e-6)
    [last] = read_table(seed.log, EpochRow)
    assert last.val_nll == pytest.approx(images.nll.mean()) and last.val_nll_ema is None
    [compared] = cells(directory.comparison)
    assert float(compared["brier"]) == pytest.approx(row.brier, abs=1e-4)


def test_names_are_shown_and_who_a_class_is_stays(finished):
    directory, _ = finished
    assert directory.class_names.read_text() == "n01440764\tthe tench\n"
    assert directory.classes.read_text() == "n01440764\nown\n"
    entries = read_gallery(directory.gallery)
    assert {e.class_a for e in entries} | {e.class_b for e in entries} == {"n01440764", "own"}
    page = directory.report.read_text()
    assert ">the tench</bdi>" in page and ">n01440764<" not in page


def test_a_run_goes_on_with_its_names_or_with_others(finished, tmp_path, capsys):
    directory, argv = finished
    shutil.copytree(directory.path, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    place, hashes = argv.index("--class-names"), {row.recipe_hash for row in read_rows(directory)}
    without = [*argv[:place], "--out", str(run.path), "--resume", "--seeds", "0,1"]
    assert main(without) == 0
    assert run.class_names.read_text() == "n01440764\tthe tench\n"
    (tmp_path / "own.txt").write_text("own,mine\n")
    capsys.readouterr()
    assert main([*without, "--class-names", str(tmp_path / "own.txt")]) == 0
    assert "names 1 of 2 classes: the others, such as 'n01440764'" in capsys.readouterr().out
    assert run.class_names.read_text() == "n01440764\ttench\nown\tmine\n"  # by WordNet
    assert {row.recipe_hash for row in read_rows(run)} == hashes and len(read_rows(run)) == 2


def read_rows(directory):
    return read_table(directory.runs, RunRow)


def test_a_report_takes_names_too(finished, tmp_path, capsys):
    directory, _ = finished
    (tmp_path / "names.txt").write_text("own  my own\n")
    out = ["--out", str(tmp_path / "out"), "--class-names", str(tmp_path / "names.txt")]
    assert main(["report", str(directory.path), *out]) == 0
    page = RunDirectory(tmp_path / "out").report.read_text()
    assert ">my own</bdi>" in page and ">the tench</bdi>" in page  # the run's own where not named


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b\n", "names.txt, line 1: a line is a class's folder, a tab"),
        ("cat\tthe cat\n", "names none of the 2 classes, whose folders are called as 'n01440764'"),
    ],
)
def test_a_mistake_in_names_is_told_before_anything_is_done(photos, text, words, tmp_path, capsys):
    (tmp_path / "names.txt").write_text(text)
    argv = ["--data", str(photos), *COMMAND, *TINY, "--out", str(tmp_path / "run")]
    for end in ([], ["--dry-run"]):
        assert main([*argv, "--class-names", str(tmp_path / "names.txt"), *end]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_none_alone_has_no_pictures(tmp_path):
    argv = ["--strategies", "none", "--mode", "accuracy", *TINY, "--out", str(tmp_path / "run")]
    assert main(argv) == 0
    assert not (tmp_path / "run" / "mixed.png").exists()
    assert (
        "A strategy that mixes nothing has none" not in (tmp_path / "run/report.html").read_text()
    )
