"""What is kept of finished runs: their rows and a page, without this machine's paths."""

import json
import re

import pytest

from mixbench.runs.rows import EvaluationRow, RunRow, read_table
from results import keep
from tests.support.rows import run_row, write_run

COMMAND = "python /home/me/mixbench/bench.py --data /data/photos --strategies cutmix --resume"


@pytest.fixture
def run(tmp_path):
    rows = [
        run_row(spec, seed, top1 + seed, label_error=error)
        for spec, top1, error in (("cutmix", 70.0, 20.0), ("transmix", 72.0, 15.0))
        for seed in (0, 1)
    ]
    folder = tmp_path / "run"
    write_run(folder, rows)
    (folder / "environment.json").write_text(json.dumps({"command": COMMAND}))
    return folder


def test_rows_page_and_picture_are_kept(run, tmp_path, capsys):
    results = tmp_path / "results"
    results.mkdir()
    also = "mixbench eval label-error /tmp/x/run --masks coco:/data/coco100"
    assert keep.main(["tuned", str(run), "--also", also], results) == 0
    files = sorted(file.name for file in results.iterdir())
    [day] = {re.search(r"\d{4}-\d\d-\d\d", name)[0] for name in files}
    stem = f"tuned-{day}"
    assert files == [f"{stem}-label-error.svg", f"{stem}-top1.csv", f"{stem}-top1.md"]
    kept = read_table(results / f"{stem}-top1.csv", RunRow)
    assert [(row.strategy, row.seed, row.top1) for row in kept] == [
        ("cutmix", 0, 70.0), ("cutmix", 1, 71.0), ("transmix", 0, 72.0), ("transmix", 1, 73.0)
    ]  # fmt: skip
    text = (results / f"{stem}-top1.md").read_text()
    assert "`python bench.py --data photos --strategies cutmix`" in text
    assert "Also: `mixbench eval label-error run --masks coco:coco100`." in text
    assert f"({stem}-label-error.svg)" in text and "/home" not in text and "/data" not in text
    assert "| transmix | 72.50 ± 0.71 | +2.00" in text
    assert (results / f"{stem}-label-error.svg").read_text().startswith("<svg")


def test_evaluations_are_on_the_page(run, tmp_path, monkeypatch):
    common = {"evaluation": "label-error", "options": "passes=1", "dataset": "scenes"}
    common |= {"metric": "label_error", "n": 500}
    rows = [
        EvaluationRow(strategy=spec, seed=seed, value=value, **common)
        for spec, value in (("cutmix", 21.5), ("transmix", 17.25))
        for seed in (0, 1)
    ]
    monkeypatch.setattr(keep, "read_runs", with_evaluations(keep.read_runs, rows))
    assert keep.main(["tuned", str(run)], tmp_path) == 0
    [page] = tmp_path.glob("tuned-*-top1.md")
    [file] = tmp_path.glob("tuned-*-evaluations.csv")
    assert [row.value for row in read_table(file, EvaluationRow)] == [21.5, 21.5, 17.25, 17.25]
    section = page.read_text().partition("## label-error on scenes (passes=1)")[2]
    assert "| transmix | 2 | 17.25 | 0.00 | -4.25 |" in section


def test_seeds_of_another_day_are_joined_to_a_kept_table(run, tmp_path, monkeypatch):
    results = tmp_path / "results"
    results.mkdir()
    common = {"evaluation": "label-error", "options": "passes=1", "dataset": "scenes"}
    common |= {"metric": "label_error", "n": 500, "strategy": "cutmix"}
    rows = [EvaluationRow(seed=seed, value=20.0 + seed, **common) for seed in (0, 1)]
    with monkeypatch.context() as patch:
        patch.setattr(keep, "read_runs", with_evaluations(keep.read_runs, rows))
        assert (
            keep.main(["first", str(run), "--also", "mixbench eval label-error run"], results) == 0
        )
    [table] = results.glob("first-*-top1.csv")
    later = tmp_path / "later"
    write_run(later, [run_row("cutmix", 2, 73.0), run_row("transmix", 2, 77.0)])
    later_command = f"{COMMAND} --seeds 2"
    (later / "environment.json").write_text(json.dumps({"command": later_command}))
    assert keep.main(["all", str(later), str(table)], results) == 0
    [joined] = results.glob("all-*-top1.csv")
    both = read_table(joined, RunRow)
    assert {(row.strategy, row.seed) for row in both} == {
        (name, seed) for name in ("cutmix", "transmix") for seed in (0, 1, 2)
    }
    page = joined.with_suffix(".md").read_text()
    assert "| transmix | 74.00" in page and "+2.67" in page  # (2 + 2 + 4) / 3
    assert "`python bench.py --data photos --strategies cutmix --seeds 2`" in page
    assert (
        "Also: `python bench.py --data photos --strategies cutmix`, "
        "`mixbench eval label-error run`." in page
    )
    [file] = results.glob("all-*-evaluations.csv")
    assert [row.value for row in read_table(file, EvaluationRow)] == [20.0, 21.0]


def test_a_seed_that_is_in_both_is_refused(run, tmp_path):
    assert keep.main(["first", str(run)], tmp_path) == 0
    [table] = tmp_path.glob("first-*-top1.csv")
    with pytest.raises(ValueError, match=r"cutmix with seed 0 is in both .*run and .*first-"):
        keep.main(["all", str(run), str(table)], tmp_path)


def test_paths_are_left_out_however_they_are_given(run, tmp_path):
    command = "python bench.py --data=/data/my/photos --out=/scratch/me/run --masks coco:/data/coco"
    (run / "environment.json").write_text(json.dumps({"command": command}))
    assert keep.main(["tuned", str(run)], tmp_path) == 0
    [page] = tmp_path.glob("tuned-*.md")
    assert "`python bench.py --data=photos --out=run --masks coco:coco`" in page.read_text()


def test_a_damaged_run_is_not_kept(run, tmp_path, capsys):
    (run / "environment.json").write_text('{"command": ')
    results = tmp_path / "results"
    results.mkdir()
    assert keep.main(["tuned", str(run)], results) == 1
    assert "environment.json" in capsys.readouterr().err and not list(results.iterdir())


def test_nothing_stays_of_what_was_kept_before_on_the_day(run, tmp_path, monkeypatch):
    common = {"evaluation": "label-error", "options": "passes=1", "dataset": "scenes"}
    rows = [EvaluationRow(strategy="cutmix", seed=0, value=9, metric="label_error", **common)]
    with monkeypatch.context() as patch:
        patch.setattr(keep, "read_runs", with_evaluations(keep.read_runs, rows))
        assert keep.main(["tuned", str(run)], tmp_path) == 0
    assert len(list(tmp_path.glob("tuned-*"))) == 4
    other = tmp_path / "other"
    write_run(other, [run_row(spec, seed, 70.0) for spec in ("cutmix", "none") for seed in (0, 1)])
    assert keep.main(["tuned", str(other)], tmp_path) == 0
    assert {file.suffix for file in tmp_path.glob("tuned-*")} == {".md", ".csv"}
    assert not list(tmp_path.glob("tuned-*-evaluations.csv"))


def test_a_run_without_its_command_is_kept(run, tmp_path):
    (run / "environment.json").unlink()
    assert keep.main(["tuned", str(run)], tmp_path) == 0
    [page] = tmp_path.glob("tuned-*.md")
    assert "| transmix | 72.50" in page.read_text() and "``" not in page.read_text()


def with_evaluations(read, rows):
    def given(*arguments):
        data = read(*arguments)
        data.evaluations.extend(rows)
        return data

    return given
