"""The page on what listing costs, measured with a small tree."""

import argparse
import os
import re
import sys

import pytest

from baselines import listing
from baselines.listing import CASES, INDEXED, WORKED, Listed, make_tree, page
from mixbench.data.folders import open_folder


def rows(text):
    """The cells of the page's table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_tree_is_of_links_to_few_files(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "LINKS", 4)
    make_tree(tmp_path / "set", 3, 5, 2)
    data = open_folder(tmp_path / "set")
    assert data.train.labels == [0] * 5 + [1] * 5 + [2] * 5
    assert data.val.labels == [0, 0, 1, 1, 2, 2]
    originals = [path for path in (tmp_path / "set").iterdir() if path.is_file()]
    assert len(originals) == 6 and max(os.stat(path).st_nlink for path in originals) == 5
    names = [data.train.image_name(index) for index in range(5)]
    assert names[0].startswith("train/n01440764/n01440764_") and names == sorted(names)


def test_a_listing_has_a_process_of_its_own(tmp_path):
    for name in ("small", "large"):
        make_tree(tmp_path / name, 2, 20, 2)
    listed = listing.in_a_process("mixbench, names and sizes", tmp_path, workers=0)
    assert 0 < listed.seconds < 5 and 0 <= listed.kept <= listed.peak < 50
    assert listed.worker is None and not (tmp_path / "home").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what a process shares")
def test_the_page_shows_what_was_measured(tmp_path, monkeypatch, capsys):
    """In this process, since each other one imports torch and timm."""
    monkeypatch.setattr(listing, "in_a_process", listing.list_once)
    argv = ["--classes", "2", "--train", "40", "--val", "2", "--rounds", "1", "--workers", "2"]
    listing.main(argv, results=tmp_path)
    [file] = tmp_path.iterdir()
    assert re.fullmatch(r"listing-\d{4}-\d\d-\d\d\.md", file.name)
    text = file.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert [row[0] for row in rows(text)] == [case for case in CASES if case != INDEXED]
    assert all(float(row[1]) >= 0 for row in rows(text))
    assert "2 classes, 80 + 4 files" in text and "each of 2 forked processes" in text
    assert f"listing.py {' '.join(argv)}`" in text and str(tmp_path) not in text


def test_figures_are_medians_and_ratios_of_rounds():
    """Ratios 2/1, 9/3 and 8/2: their median is 3, not 8/2."""
    first = [Listed(1.0, 10, 20, 5.0), Listed(3.0, 12, 30), Listed(2.0, 14, 40)]
    other = [Listed(2.0, 1, 2, 0.25), Listed(9.0, 3, 4), Listed(8.0, 2, 9)]
    listed = {WORKED[0]: first, WORKED[1]: other}
    options = argparse.Namespace(classes=1000, train=1281, val=50, workers=8)
    text = page(listed, options, "python x.py", "2026-01-01")
    assert rows(text)[1][1:] == ["8.00", "3.00 [2.00, 4.00]", "2", "4"]
    assert rows(text)[0][1:] == ["2.00", "1.00 [1.00, 1.00]", "12", "30"]
    assert "1,000 classes, 1,281,000 + 50,000 files" in text
    assert "5.0 (torchvision) and 0.2 (mixbench, names and sizes)" in text
