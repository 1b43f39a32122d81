"""Names that a terminal, a plot, a spreadsheet or a file of lines would take for something else."""

import csv
import json
import warnings

import pytest
import torch
from PIL import Image

from mixbench.cli import main
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import RunRow, read_table, write_table
from mixbench.runs.samples import read_correct, read_images, write_images
from mixbench.visible import visible
from tests.support.command import TINY
from tests.support.rows import image_results, write_correct

NAMES = ("=cmd()", "$a_b$", "[red]x[b]", "中文", "line\nbreak", "<b>&")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a b", "a b"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202eabc", r"\u202eabc"),  # would turn the line around
        ("\udcff", r"\udcff"),
        ("[red]中", "[red]中"),
    ],
)
def test_what_is_no_letter_is_escaped(text, line):
    assert visible(text) == line


@pytest.mark.parametrize(
    "text",
    ["=cmd()", "+1", "-1", "@x", "\tx", "'=x", "''-x", "plain", "'plain", 'a,"b\nc', "[red]"],
)
def test_a_spreadsheet_runs_no_cell_and_the_text_comes_back(tmp_path, text):
    path = tmp_path / "runs.csv"
    rows = [RunRow(strategy=text, seed=0, dataset=text, top1=-0.5)]
    write_table(path, RunRow, rows)
    with path.open(newline="", encoding="utf-8") as file:
        [cells] = csv.DictReader(file)
    assert cells["strategy"][0] not in "=+-@\t\r" and cells["top1"] == "-0.5"
    assert read_table(path, RunRow) == rows


def test_a_name_that_is_not_utf_8_is_written(tmp_path):
    write_table(tmp_path / "runs.csv", RunRow, [RunRow(strategy="a\udcff", seed=0)])
    assert read_table(tmp_path / "runs.csv", RunRow)[0].strategy == r"a\udcff"


def test_rows_say_whether_scenes_were_drawn():
    assert RunRow(strategy="a", seed=0, dataset="scenes").of_scenes  # an older row
    assert not RunRow(strategy="a", seed=0, dataset="scenes", drawn=False).of_scenes
    assert RunRow(strategy="a", seed=0, dataset="x", drawn=True).of_scenes


def test_a_bitmap_says_which_image_each_bit_is_of(tmp_path):
    names = ["val/a/1.png", "val/b/\udcff.png", "val/b/line\nbreak.png"]
    write_correct(tmp_path / "correct.npz", [True, False, True], names)
    write_images(tmp_path / "images.npz", image_results([True, False, True], names))
    bitmap, results = read_correct(tmp_path / "correct.npz"), read_images(tmp_path / "images.npz")
    for right in (bitmap, results.bitmap):
        assert right.image_names() == names and right.right.tolist() == [True, False, True]
    assert bitmap.pairs_with(results.bitmap)  # an older seed beside a newer one
    write_correct(tmp_path / "older.npz", [True])
    assert read_correct(tmp_path / "older.npz").image_names() is None


def test_a_run_on_a_folder_called_scenes_with_odd_classes(tmp_path, capsys):
    root, out = tmp_path / "scenes", tmp_path / "out"
    for split in ("train", "val"):
        for number, name in enumerate(NAMES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in range(2):
                Image.new("RGB", (32, 32), (40 * number, 90 * image, 7)).save(
                    folder / f"{image}.png"
                )
    arguments = [
        *TINY,
        "--config",
        "quick",
        "--batch-size",
        "8",
        "--mode",
        "accuracy",
        "--workers",
        "0",
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Gg]lyph.*")
        status = main(
            [*arguments, "--strategies", "cutmix", "--data", str(root), "--out", str(out)]
        )
    said = capsys.readouterr().out
    assert status == 0 and "drawn by mixbench" not in said
    directory = RunDirectory(out)
    classes = sorted(NAMES)
    assert directory.classes.read_text(encoding="utf-8").splitlines() == [
        visible(name) for name in classes
    ]
    [row] = read_table(directory.runs, RunRow)
    assert (row.dataset, row.drawn, row.label_error) == ("scenes", False, None)
    folder = directory.seed("cutmix", 0)
    assert torch.load(folder.weights, weights_only=True)["classes"] == classes
    bitmap = read_images(folder.images).bitmap
    names = bitmap.image_names()
    assert len(names) == len(bitmap.right) == 12 and names[0] == "val/$a_b$/0.png"
    assert json.loads(directory.data.read_text(encoding="utf-8"))["classes"] == classes
    page = directory.report.read_text(encoding="utf-8")
    assert "<b>&" not in page and "drawn by mixbench" not in page
