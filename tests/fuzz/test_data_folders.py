"""Image folders of every layout: listed to the right classes and counts, or refused in words."""

import csv
import json
import unicodedata

import pytest

from tests.fuzz.data_folders import HOSTILE, LAYOUTS, Layout, plain
from tests.fuzz.ends import (
    ACCEPT,
    REFUSE,
    Case,
    assert_right,
    broken_rules,
    changed,
    in_a_process,
    run,
    tree,
)
from tests.fuzz.loading import listing

TINY = (
    *("--config", "quick", "--embed-dim", "24", "--num-heads", "3", "--depth", "1"),
    *("--epochs", "1", "--warmup-epochs", "0", "--batch-size", "4", "--micro-batch", "4"),
    *("--workers", "0", "--mode", "accuracy", "--strategies", "none"),
)
FORMULAS = ("=", "+", "@", "\t", "\r")


def wrong_listing(end, layout):
    """What is wrong with the classes and counts that were printed, as sentences."""
    if end.status != 0:
        return []
    shown = json.loads(end.stdout.splitlines()[-1])
    broken = []
    if layout.classes is not None and tuple(shown["classes"]) != layout.classes:
        broken.append(f"wrong result: classes {shown['classes']}, not {layout.classes}")
    if layout.train is not None and len(shown["train"]) != layout.train:
        broken.append(f"wrong result: {len(shown['train'])} images, not {layout.train}")
    return broken


def check(layout: Layout, folder):
    folder.mkdir()
    layout.make(folder / "photos")
    before = tree(folder)
    case = Case(("--data", "photos"), layout.expect, layout.names)
    end = in_a_process(listing, "photos", folder=folder, limit=case.limit)
    broken = broken_rules(end, case) or wrong_listing(end, layout)
    assert_right([*broken, *changed(before, tree(folder))], case, end)
    case = Case(("--data", "photos", *TINY, "--dry-run"), layout.expect, layout.names)
    end = run(case, folder)
    assert_right([*broken_rules(end, case), *changed(before, tree(folder))], case, end)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout(name, tmp_path):
    check(LAYOUTS[name], tmp_path / "case")


SAMPLE = ("linked folder", "link to its folder", "pipe x.png", "one class", "checkpoints")


@pytest.mark.parametrize("name", SAMPLE)
def test_some_layouts(name, tmp_path):
    check(LAYOUTS[name], tmp_path / "case")


@pytest.mark.fuzz
@pytest.mark.parametrize("option", ["--limit-train", "--limit-val"])
@pytest.mark.parametrize(("limit", "expect"), [("1", REFUSE), ("2", ACCEPT), ("99", ACCEPT)])
def test_a_limit_leaves_every_class(option, limit, expect, tmp_path):
    """At --limit-train 2 a batch of 4 has too few images: a refusal of its own kind."""
    folder = tmp_path / "case"
    folder.mkdir()
    plain(folder / "photos", ("a", "b"), 8, 8)
    small = ("--batch-size", "2", "--micro-batch", "2")
    case = Case(("--data", "photos", *TINY, *small, option, limit, "--dry-run"), expect, (option,))
    end = run(case, folder)
    assert_right(broken_rules(end, case), case, end)


def obeyed(folder, printed):
    """Where a screen, a page or a spreadsheet would obey a name, as sentences."""
    broken = []
    if any(unicodedata.category(letter) in ("Cc", "Cs") and letter != "\n" for letter in printed):
        broken.append("unprintable: the screen is given control characters")
    if "Warning: " in printed:
        broken.append("warning: the screen is given a warning of Python's")
    for path in (folder / "out").glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        broken += [f"formula: {path.name} has {c[:30]!r}" for c in cells if c.startswith(FORMULAS)]
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    if "<b onload" in page:
        broken.append("markup: report.html runs a name")
    return broken


@pytest.mark.fuzz
@pytest.mark.parametrize("name", HOSTILE)
def test_a_run_on_folders_with_odd_names(name, tmp_path):
    """Root and class have the name; the figures are those of the same images under plain names."""
    folder = tmp_path / "case"
    folder.mkdir()
    plain(folder / name, ("a", name), 6, 2)
    before = tree(folder)
    case = Case((f"--data=./{name}", *TINY, "--out", "out"), ACCEPT, limit=60)
    end = run(case, folder)
    broken = broken_rules(end, case)
    if not broken:
        broken = obeyed(folder, end.stdout + end.stderr)
    after = {path: each for path, each in tree(folder).items() if not path.startswith("out")}
    assert_right([*broken, *changed(before, after)], case, end)
