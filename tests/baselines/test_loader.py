"""The page on the loader beside timm's, measured with small photographs."""

import re

import pytest
import torch

from baselines import loader
from baselines.loader import Timed, page


def rows(text):
    """The cells of the page's table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_shows_what_was_measured(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loader, "SIZES", (32,))
    root = photographs(tmp_path / "private" / "flowers", train=16)
    (tmp_path / "results").mkdir()
    threads = torch.get_num_threads()
    argv = ["--data", str(root), "--images", "32", "--rounds", "2"]
    loader.main(argv, results=tmp_path / "results")
    [file] = (tmp_path / "results").iterdir()
    assert re.fullmatch(r"loader-cpu-\d{4}-\d\d-\d\d\.md", file.name)
    text = file.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out and torch.get_num_threads() == threads
    names = ["timm", "mixbench", "timm again, the control"]
    assert [row[:2] for row in rows(text)] == [["32", name] for name in names]
    assert all(float(row[2]) > 0 for row in rows(text))
    assert "loader.py --data flowers --images 32 --rounds 2`" in text and "private" not in text


def test_figures_are_medians_and_ratios_of_rounds():
    """Ratios 2/1, 9/3 and 8/2: their median is 3, not 8/2."""
    timed = [Timed(64, "timm", [1.0, 3.0, 2.0]), Timed(64, "mixbench", [2.0, 9.0, 8.0])]
    text = page(timed, 256, "python x.py", "2026-01-01")
    assert rows(text)[1] == ["64", "mixbench", "8.000", "3.000 [2.000, 4.000]"]
    assert "Medians of 3 interleaved rounds" in text


@pytest.mark.parametrize("size", [32])
def test_timms_loader_has_the_recipes_augmentation(photographs, tmp_path, size):
    recipe = loader.load_recipe("deit_small", {"image_size": size, "batch_size": 32})
    root = photographs(tmp_path / "data", train=16)
    theirs = loader.timms_loader(root, recipe)
    [(images, labels)] = list(theirs)
    assert images.shape == (32, 3, size, size) and sorted(labels.tolist()) == [0] * 16 + [1] * 16
    assert str(theirs.dataset.transform) == str(loader.train_transform(recipe))
