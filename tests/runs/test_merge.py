"""Several runs as one: their rows in a pair of tables, and what may not be compared."""

import pytest

from mixbench.runs.directory import RunDirectory
from mixbench.runs.merge import Tables, by_recipe, merge, read_runs, read_settings, read_tables
from tests.support.rows import run_row, speed_row, write_run


def test_rows_of_several_runs(tmp_path):
    a = write_run(tmp_path / "a", [run_row("cutmix", 0), run_row("transmix", 0)], [speed_row()])
    b = write_run(tmp_path / "b", [run_row("cutmix", 1), run_row("transmix", 1)])
    tables = merge([a, b])
    assert [(row.strategy, row.seed) for row in tables.runs] == [
        ("cutmix", 0),
        ("transmix", 0),
        ("cutmix", 1),
        ("transmix", 1),
    ]
    assert tables.speed == [speed_row()] and merge([]) == Tables([], [])
    again = write_run(tmp_path / "again", [run_row("cutmix", 0)])
    with pytest.raises(ValueError, match=r"cutmix with seed 0 is in both .*a and .*again"):
        merge([a, again])
    timed = write_run(tmp_path / "timed", speed=[speed_row()])  # whose rows say no seed
    with pytest.raises(ValueError, match=r"timed/\.\./timed is named twice: name each run once"):
        merge([timed / ".." / "timed", timed])
    c = write_run(tmp_path / "c", [run_row("cutmix", 2, recipe_hash="other")])
    for read in (merge, read_runs):
        with pytest.raises(ValueError, match=r"different recipes or data .*\(abc\).*\(other\)"):
            read([a, c])


def test_rows_by_recipe(tmp_path):
    """Speeds and rows without a hash are of their directory's recipe, else apart."""
    queued = run_row("mixup", 0, None, dataset=None, recipe_hash=None, status="queued or running")
    a = write_run(tmp_path / "a", [run_row(), queued], [speed_row()])
    b = write_run(tmp_path / "b", [run_row(recipe_hash="other")], [speed_row("mixup")])
    c = write_run(tmp_path / "c", speed=[speed_row("puzzlemix")])
    two = [run_row(seed=1), run_row(seed=1, recipe_hash="other")]
    both = write_run(tmp_path / "d", two, files=False)

    def rows(*directories):
        return {
            recipe: [
                (part.directory.name, [row.strategy for row in [*tables.runs, *tables.speed]])
                for part in parts
                for tables in [part.tables]
            ]
            for recipe, parts in by_recipe(directories).items()
        }

    assert rows(a, b, c, both) == {
        "abc": [("a", ["cutmix", "mixup", "cutmix"]), ("d", ["cutmix"])],
        "other": [("b", ["cutmix", "mixup"]), ("d", ["cutmix"])],
        None: [("c", ["puzzlemix"])],
    }
    assert list(rows(a, c)) == ["abc"] and list(rows(c)) == [None] and rows() == {}
    assert [len(data.tables.runs) for data in read_settings([a, b, both])] == [3, 2]
    again = write_run(tmp_path / "again", [run_row()])
    with pytest.raises(ValueError, match=r"cutmix with seed 0 is in both .*a and .*again"):
        read_settings([a, b, again])


def test_a_job_that_has_no_figures_yet_is_in_nobodys_way(tmp_path):
    queued = run_row("cutmix", 0, None, dataset=None, recipe_hash=None, status="queued or running")
    a = write_run(tmp_path / "a", [queued])
    b = write_run(tmp_path / "b", [run_row("cutmix", 0)])
    assert len(merge([a, b]).runs) == 2


def test_speeds_of_different_machines(tmp_path):
    a = write_run(tmp_path / "a", speed=[speed_row()])
    b = write_run(tmp_path / "b", speed=[speed_row(device="Difference Engine")])
    c = write_run(tmp_path / "c", [run_row("cutmix", 0, device="Loom")])  # trained there, not timed
    failed = speed_row(device="Loom", status="failed: no", im_per_sec=None)
    d = write_run(tmp_path / "d", speed=[failed])
    with pytest.raises(
        ValueError, match=r"Abacus, 2 threads; Difference Engine\).*--mixed-machines"
    ):
        merge([a, b])
    assert len(merge([a, b], mixed_machines=True).speed) == 2
    assert len(merge([a, c, d]).runs) == 1


def test_speeds_of_different_settings(tmp_path):
    """One table would not say which figure is of which."""
    a = write_run(tmp_path / "a", speed=[speed_row()])
    b = write_run(tmp_path / "b", speed=[speed_row(timed_image_size=32)])
    c = write_run(tmp_path / "c", speed=[speed_row(rounds=5)])
    with pytest.raises(ValueError, match=r"different settings .* at 224 px.* at 32 px"):
        merge([a, b])
    assert len(merge([a, c]).speed) == len(merge([a, b], mixed_machines=True).speed) == 2


def test_a_directory_without_tables(tmp_path):
    with pytest.raises(ValueError, match=r"runs\.csv and speed\.csv not found: name the directory"):
        read_tables(tmp_path)


def test_everything_of_a_run_is_read(tmp_path):
    places = RunDirectory(write_run(tmp_path, [run_row("cutmix", 4)], [speed_row()]))
    data = read_runs([places.path])
    key = ("cutmix", 4)
    assert data.commands == ["python bench.py --seeds 0,1,2"]
    assert [row.train_loss for row in data.logs[key]] == [2.5, 1.5]
    assert data.lam[key].shape == (50, 2) and data.correct[key].right.shape == (200,)
    assert data.gallery == {places.gallery: []}
