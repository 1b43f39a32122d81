"""The overview: the differences of the single reports, corrected together, each row marked."""

import json
import re

import numpy as np
import pytest

from mixbench.report.overview import Entry, recipe_words
from mixbench.report.page import report_runs
from mixbench.report.significance import Setting, common_baseline, compare, compare_settings
from mixbench.runs.directory import RunDirectory
from mixbench.runs.merge import ReportData, Tables
from mixbench.runs.rows import ComparisonRow, RunRow, read_table
from mixbench.runs.samples import Bitmap
from tests.support.html_pages import Page
from tests.support.rows import run_row, speed_row, write_run

NAMES = ("cutmix", "mixup", "transmix")


def trained_run(folder, names=NAMES, seeds=range(8), effect=0.0, recipe=None, **changes):
    """A directory of made rows; strategies lie `effect` and twice `effect` above the first."""
    changes = {"recipe_hash": folder.name, "dataset": f"photos-{folder.name}"} | changes
    rng = np.random.default_rng(len(folder.name) + sum(map(ord, folder.name)))
    draw = {name: rng.normal(70 + effect * NAMES.index(name), 1, 99) for name in NAMES}
    rows = [
        run_row(name, seed, float(draw[name][seed]), **changes) for seed in seeds for name in names
    ]
    write_run(folder, rows)
    if recipe:
        RunDirectory(folder).recipe.write_text(recipe)
    return folder


def overview(*directories):
    """The rows of comparison.csv, the page and the Markdown of an overview."""
    out = directories[0].parent / "all"
    page = Page(report_runs(directories, out).read_text())
    places = RunDirectory(out)
    rows = read_table(places.comparison, ComparisonRow)
    return rows, " ".join(page.text.split()), places.markdown.read_text()


def single(directory):
    """The rows of comparison.csv of one run's report."""
    out = directory.with_name(f"{directory.name}-alone")
    text = Page(report_runs([directory], out).read_text()).text
    return read_table(RunDirectory(out).comparison, ComparisonRow), " ".join(text.split())


def test_differences_are_the_single_reports_and_p_is_corrected_together(tmp_path):
    runs = [trained_run(tmp_path / name, effect=effect) for name, effect in (("a", 1.5), ("b", 0))]
    rows, page, markdown = overview(*runs)
    alone = [single(run) for run in runs]
    for row, other in zip(rows, alone[0][0] + alone[1][0], strict=True):
        for column in (
            "strategy",
            "top1",
            "top1_sd",
            "difference",
            "difference_lo",
            "p",
            "baseline",
        ):
            assert getattr(row, column) == getattr(other, column)
        assert (row.dataset, row.recipe_hash) == (other.dataset, other.recipe_hash)
    # Holm by hand over the four p of both
    tested = [row for row in rows if row.p is not None]
    floor = 0.0
    for rank, row in enumerate(sorted(tested, key=lambda row: row.p)):
        floor = max(floor, min(1.0, (4 - rank) * row.p))
        assert row.p_corrected == pytest.approx(floor, abs=1e-5)
    assert {row.comparisons for row in tested} == {4} and tested[1].verdict == "higher"
    for row, other in zip(tested, [r for rows, _ in alone for r in rows if r.p], strict=True):
        assert other.comparisons == 2 and other.p_corrected <= row.p_corrected
    for text in (page, markdown):
        assert "Holm's correction over 4 comparisons" in text
        assert "for 4 comparisons that takes 8 seeds" in text
        assert "(corrected for 4 comparisons)" in text
    assert all("after Holm's correction over 2 comparisons" in text for _, text in alone)


@pytest.mark.pictures
def test_a_row_of_the_overview_shows_the_figures(tmp_path):
    a, b = trained_run(tmp_path / "a", effect=1.5), trained_run(tmp_path / "b", model="resnet50")
    rows, page, markdown = overview(a, b)
    cutmix, _, transmix = rows[:3]
    cells = (
        f"deit_small_patch16_224 | photos-a, 1,000 images | recipe (a) | {cutmix.top1:.2f} ± "
        f"{cutmix.top1_sd:.2f}, 8 seeds |"
    )
    difference = (
        f"{transmix.difference:+.2f} [{transmix.difference_lo:+.2f}, {transmix.difference_hi:+.2f}]"
        f", p {transmix.p_corrected:.3f}, 8 seeds, higher |"
    )
    assert cells in markdown and difference in markdown
    assert "| resnet50 | photos-b, 1,000 images | recipe (b) |" in markdown
    assert difference.partition(",")[0] in page and "resnet50 on photos-b" in page
    assert not re.search(r"\b(nan|inf|None)\b", page + markdown)


@pytest.mark.pictures
def test_the_page_is_whole_and_fetches_nothing(tmp_path):
    a, b = trained_run(tmp_path / "a"), trained_run(tmp_path / "b")
    page = Page(report_runs([a, b], tmp_path / "all").read_text())
    assert "script" not in page.tags and page.tags.count("svg") == 2
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    # the merged directory gives the same page, but for what each run's directory says
    before = (tmp_path / "all" / "report.html").read_text()
    again = report_runs([tmp_path / "all"]).read_text()
    table = re.compile(r"<h1>.*?<h2>", re.S)
    assert table.search(again)[0] == table.search(before)[0]


def test_names_are_shown_as_text_by_the_overviews_markdown(tmp_path):
    a = trained_run(tmp_path / "a", dataset="cats|dogs <b>x</b> *y*")
    b = trained_run(tmp_path / "b")
    RunDirectory(a).environment.write_text(json.dumps({"command": "bench.py --out `x`"}))
    _, _, markdown = overview(a, b)
    assert "<b>" not in markdown and "`` bench.py --out `x` ``" in markdown
    header, _, row, *_ = (line for line in markdown.splitlines() if line.startswith("|"))
    assert row.count("|") == header.count("|") and r"\*y\*" in row


def test_the_order_of_the_strategies_is_nothing(tmp_path):
    a = trained_run(tmp_path / "a", ("mixup", "transmix"))
    b = trained_run(tmp_path / "b", ("transmix", "mixup"))
    rows, _, markdown = overview(a, b)
    assert {row.baseline for row in rows} == {"mixup"}
    assert "| mixup: top-1 in % | transmix |" in markdown
    assert [row.strategy for row in rows] == ["mixup", "transmix", "transmix", "mixup"]
    figures = {(row.recipe_hash, row.strategy): row for row in rows}
    mean = figures["b", "transmix"].top1 - figures["b", "mixup"].top1
    assert figures["b", "transmix"].difference == pytest.approx(mean, abs=2e-3)


@pytest.mark.parametrize(
    ("changes", "words", "comparisons"),
    [
        ({"names": ("cutmix", "mixup")}, "8 seeds | - |", 3),
        ({"names": ("cutmix",)}, "8 seeds | - | - |", 2),
        ({"seeds": range(1)}, ", 1 seed |", 2),
    ],
)
def test_what_a_run_lacks_is_said_in_its_row(tmp_path, changes, words, comparisons):
    _, page, markdown = overview(
        trained_run(tmp_path / "a"), trained_run(tmp_path / "b", **changes)
    )
    assert words in markdown
    assert f"over {comparisons} comparisons" in markdown and f"over {comparisons} comp" in page


def test_a_run_without_the_baseline(tmp_path):
    """Two of three runs have cutmix, and no strategy is in all."""
    names = (("cutmix", "mixup"), ("cutmix", "transmix"), ("mixup", "transmix"))
    runs = [trained_run(tmp_path / name, of) for name, of in zip("abc", names, strict=True)]
    rows, page, markdown = overview(*runs)
    assert "recipe (c) | - | no cutmix | no cutmix |" in markdown and "over 2 comparisons" in page
    assert [row.verdict for row in rows[4:]] == ["nothing to compare"] * 2


def test_no_seed_in_common(tmp_path):
    b = tmp_path / "b"
    write_run(b, [run_row("cutmix", 0, recipe_hash="b"), run_row("mixup", 1, recipe_hash="b")])
    _, page, markdown = overview(trained_run(tmp_path / "a"), b)
    assert "1 seed | no seed in common | - |" in markdown and "over 2 comparisons" in page
    c = write_run(tmp_path / "c", [run_row("cutmix", 0, recipe_hash="c"), run_row("mixup", 0)])
    _, page, markdown = overview(b, c)
    assert "No strategy has two seeds in common with it: nothing is tested." in page


def test_one_seed_is_tested_over_its_images_in_its_own_row(tmp_path):
    flags = {"mixup": np.arange(40) < 30, "cutmix": np.arange(40) < 10}
    correct = {(name, 0): Bitmap(flag) for name, flag in flags.items()}
    figures = {"cutmix": {0: 25.0}, "mixup": {0: 75.0}}
    alone = compare(figures, correct=correct).differences[0]
    one, none = compare_settings([Setting(figures, correct), Setting(figures, {})])
    assert one.differences[0] == alone and "McNemar" in alone.sentence
    assert none.differences[0].p is None and one.comparisons == none.comparisons == 0


def test_the_baseline_is_one_that_all_have():
    assert common_baseline([["mixup", "cutmix"], ["cutmix"]]) == "cutmix"
    assert common_baseline([["cutmix", "mixup", "none"], ["none", "mixup"]]) == "mixup"
    assert common_baseline([["mixup", "cutmix"], ["none"]]) == "cutmix"


def test_recipes_are_told_apart_by_the_fields_that_differ(tmp_path):
    text = "model: {}\nepochs: {}\nlr: 0.1\nseed: {}\nspeed_model: {}\n"
    a = trained_run(tmp_path / "a", recipe=text.format("vit", 1, 0, "x"), dataset="photos")
    b = trained_run(tmp_path / "b", recipe=text.format("cait", 30, 1, "y"), dataset="photos")
    rows, page, _ = overview(a, b)
    assert {(row.recipe_hash, row.recipe) for row in rows} == {
        ("a", "epochs 1"),
        ("b", "epochs 30"),
    }
    assert "epochs 30 (b)" in page
    RunDirectory(b).recipe.write_text("- no recipe")
    said = []
    report_runs([a, b], tmp_path / "all", say=said.append)
    assert len(said) == 2 and said[0].startswith("left out: ") and "recipe.yaml" in said[0]
    assert said[1] == "2 models, data sets or recipes: the report is an overview of them"


def test_words_of_recipes():
    many = [dict.fromkeys("abcdef", str(k)) for k in range(2)]
    last = recipe_words(many)[1]
    assert last == ("a 1", "b 1", "c 1", "d 1", "e 1", "f 1")
    label = Entry("vit", "photos", last, "abc", ReportData(Tables([], [])), None).label
    assert label == ("vit", "photos", "a 1, b 1, c 1, d 1, 2 more (abc)")
    some = recipe_words([{"a": "1"}, {}, {"a": "2", "b": ["3", "4"]}])
    assert some == [("a 1",), (), ("a 2", "b 3 4")] and recipe_words([{}, {}]) == [(), ()]


def test_speeds_stand_with_their_own_run(tmp_path):
    a, b = trained_run(tmp_path / "a"), trained_run(tmp_path / "b")
    write_run(a, speed=[speed_row()])
    write_run(b, speed=[speed_row(device="Difference Engine", im_per_sec=7.0)])
    c = write_run(tmp_path / "c", speed=[speed_row("none", im_per_sec=5.0)])
    rows, page, _ = overview(a, b, c)
    rates = {(row.recipe_hash, row.strategy): row.im_per_sec for row in rows if row.im_per_sec}
    assert rates == {("a", "cutmix"): 100.0, ("b", "cutmix"): 7.0, (None, "none"): 5.0}
    assert "Speed alone: nothing was trained" in page
    assert len(read_table(RunDirectory(tmp_path / "all").runs, RunRow)) == 48
