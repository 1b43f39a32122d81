"""A run is of its data by content: other data are refused in a sentence, a moved folder is not."""

import json
import shutil

import pytest
import torch

from mixbench.cli import main
from mixbench.comparison import accuracy
from mixbench.runs.directory import RunDirectory
from tests.support.command import cells

TINY = [
    *("--config", "quick", "--embed-dim", "24", "--depth", "1", "--batch-size", "8"),
    *("--micro-batch", "8", "--epochs", "2", "--workers", "0", "--mode", "accuracy"),
]


def command(data, out, *extra):
    return ["--data", str(data), "--out", str(out), "--strategies", "none", *TINY, *extra]


@pytest.fixture(scope="module")
def finished(photographs, tmp_path_factory):
    """A folder with 16 training images, and a finished run of it."""
    folder = tmp_path_factory.mktemp("finished")
    photographs(folder / "data", 8, 4, ("cat", "dog"))
    assert main(command(folder / "data", folder / "run")) == 0
    return folder


@pytest.fixture
def case(finished, tmp_path):
    """A copy of both."""
    shutil.copytree(finished, tmp_path / "case")
    return tmp_path / "case"


def files(folder):
    """Every file's bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_more(root):
    shutil.copy(root / "train" / "cat" / "0.jpg", root / "train" / "cat" / "more.jpg")


def another_size(root):
    (root / "train" / "cat" / "1.png").write_bytes((root / "train" / "dog" / "4.png").read_bytes())


def another_name(root):
    (root / "val" / "cat" / "1.png").rename(root / "val" / "cat" / "one.png")


def a_class_more(root):
    for split in ("train", "val"):
        shutil.copytree(root / split / "cat", root / split / "wolf")


def a_class_of_another_name(root):
    for split in ("train", "val"):
        (root / split / "cat").rename(root / split / "eel")


CHANGES = {
    one_more: "train/ has 17 images, this run was begun with 16: choose another --out",
    another_size: "train/ has as many images as this run was begun with, but other names or sizes",
    another_name: "val/ has as many images as this run was begun with, but other names or sizes",
    a_class_more: "class 'wolf' is new, this run was begun without it: choose another --out",
    a_class_of_another_name: "class 'eel' is new, this run was begun without it (2 diff",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_other_images_are_refused_before_anything_is_written(change, case, capsys):
    change(case / "data")
    before = files(case / "run")
    capsys.readouterr()
    assert main(command(case / "data", case / "run", "--resume")) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {CHANGES[change]}") and error.count("\n") == 1
    assert files(case / "run") == before


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_run_stopped_half_way_does_not_go_on_with_other_images(
    change, photographs, tmp_path, capsys, monkeypatch
):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    root, out = photographs(tmp_path / "data", 8, 4, ("cat", "dog")), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("mixbench.training.state.write_weights", stopped)
        assert main(command(root, out)) == 130
    assert RunDirectory(out).state(0).is_file()
    change(root)
    before = files(out)
    capsys.readouterr()
    assert main(command(root, out, "--resume")) == 2
    assert capsys.readouterr().err.startswith(f"error: {CHANGES[change]}")
    assert files(out) == before


def test_a_limit_that_differs_is_named(case, capsys):
    assert main(command(case / "data", case / "run", "--resume", "--limit-train", "12")) == 2
    sentence = "--limit-train is 12, this run was begun without it: choose another --out"
    assert sentence in capsys.readouterr().err
    assert main(command(case / "data", case / "run", "--resume", "--limit-train", "99")) == 0


def test_fields_of_the_recipe_that_differ_are_named(case, capsys):
    options = ["--resume", "--lr", "0.5", "--batch-size", "16"]
    assert main(command(case / "data", case / "run", *options)) == 2
    error = capsys.readouterr().err
    assert "batch_size is 16, this run was begun with 8 (2 differences in all)" in error


def test_the_same_data_by_another_path_are_the_same(case, monkeypatch, capsys):
    """A copy, a link, and a path with `..`; the finished run is left as it was."""
    shutil.copytree(case / "data", case / "copy" / "elsewhere")
    (case / "link").symlink_to(case / "data")
    directory = RunDirectory(case / "run")
    untouched = [directory.runs, directory.comparison, *directory.result_files()]
    untouched += sorted(directory.path.rglob("*.pt"))
    before = [file.read_bytes() for file in untouched]
    monkeypatch.setattr(accuracy, "train", None)  # nothing is trained
    monkeypatch.chdir(case / "copy")
    for data in ("elsewhere", case / "link", "../data", case / "data"):
        assert main(command(data, case / "run", "--resume")) == 0
        assert [file.read_bytes() for file in untouched] == before
    assert "error" not in capsys.readouterr().err


def test_a_directory_that_no_option_names_follows_the_content(case, monkeypatch, capsys):
    def argv(data, *extra):
        words = command(data, "out", *extra)
        place = words.index("--out")
        return words[:place] + words[place + 2 :]

    def named():
        assert main(argv("data", "--dry-run")) == 0
        lines = capsys.readouterr().out.splitlines()
        return next(line.split()[-1] for line in lines if line.startswith("output"))

    monkeypatch.chdir(case)
    first = named()
    assert main(argv(case / "data", "--dry-run")) == 0 and first in capsys.readouterr().out
    one_more(case / "data")
    assert named() != first
    (case / "data" / "train" / "cat" / "more.jpg").unlink()
    assert named() == first


def test_the_directory_and_the_weights_say_what_they_are_of(case):
    directory = RunDirectory(case / "run")
    content = json.loads(directory.data.read_text())
    assert content["classes"] == ["cat", "dog"]
    assert (content["train_images"], content["val_images"]) == (16, 8)
    weights = torch.load(directory.seed("none", 0).weights, weights_only=True)
    assert weights["data"]["train"] == content["train"]


def test_a_resume_of_nothing_is_told(case, capsys):
    extra = ("--resume", "--epochs", "1", "--warmup-epochs", "0")
    assert main(command(case / "data", case / "new", *extra)) == 0
    assert f"nothing to resume in {case / 'new'}: the run begins" in capsys.readouterr().out


def test_a_finished_run_resumed_changes_nothing(case):
    directory = RunDirectory(case / "run")
    before = files(case / "run")
    assert main(command(case / "data", case / "run", "--resume")) == 0
    after = files(case / "run")
    changed = {path.name for path in before if after[path] != before[path]}
    assert changed <= {"environment.json", "report.html", "comparison.md"}
    assert set(after) == set(before) and len(cells(directory.runs)) == 1
