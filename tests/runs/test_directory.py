"""A run's directory: names, what it is of, who holds it, what is finished."""

import fcntl
from dataclasses import replace

import pytest

from mixbench.recipe import load_recipe
from mixbench.runs.directory import Identity, RunDirectory, folder_name, numbered
from mixbench.runs.rows import RunRow

IDENTITY = Identity(load_recipe("quick"), "scenes")


def row(spec="cutmix", seed=0, **changes):
    return RunRow(strategy=spec, seed=seed, recipe_hash="abc", top1=12.3456789, **changes)


def test_a_folder_is_a_readable_name_and_a_hash():
    specs = [
        "attentivecutmix(network='a/b')",
        "attentivecutmix(network='a:b')",
        "cutmix",
        "x" * 999,
    ]
    names = [folder_name(spec) for spec in specs]
    assert len(set(names)) == 4 and max(map(len, names)) <= 60 + 1 + 8
    assert names[0].startswith("attentivecutmix_network__a_b__-")
    assert all(c.isalnum() or c in "._-" for name in names for c in name)
    assert folder_name("cutmix") == names[2]


def test_every_path_lies_inside(tmp_path):
    directory = RunDirectory(tmp_path)
    folder = directory.seed("../../etc", 3)
    assert folder.weights.resolve().is_relative_to(tmp_path.resolve())
    assert folder.path.name == "seed3" and folder.weights.name == "last.pt"


def test_results_are_read_back_to_all_digits_by_recipe(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.keep(row())
    directory.keep(row(seed=1))
    directory.keep(replace(row("mixup"), recipe_hash="other"))
    assert directory.results("abc") == {("cutmix", 0): row(), ("cutmix", 1): row(seed=1)}
    assert len(directory.results()) == 3 and directory.holds_results


def test_a_state_is_a_result_too_until_it_is_cleared(tmp_path):
    directory = RunDirectory(tmp_path)
    for path in (directory.state(0), directory.previous_state(0)):
        path.write_bytes(b"state")
    assert directory.holds_results
    directory.clear_state(0)
    directory.clear_state(1)
    assert not directory.holds_results and list(tmp_path.iterdir()) == []


def test_the_next_free_directory_or_the_last_full_one(tmp_path):
    base = tmp_path / "quick-abc"
    assert numbered(base, resume=False).path == numbered(base, resume=True).path == base
    for taken, free in (("quick-abc", "quick-abc-2"), ("quick-abc-2", "quick-abc-3")):
        RunDirectory(tmp_path / taken).keep(row())
        assert numbered(base, resume=False).path == tmp_path / free
        assert numbered(base, resume=True).path == tmp_path / taken


def test_another_recipe_or_other_data_are_refused(tmp_path):
    directory = RunDirectory(tmp_path)
    with directory.claimed(IDENTITY, resume=False):
        pass
    directory.check(IDENTITY)
    others = [
        replace(IDENTITY, recipe=load_recipe("quick", {"lr": 0.1})),
        replace(IDENTITY, data="photos"),
        replace(IDENTITY, limit_train=10),
    ]
    for other in others:
        with pytest.raises(ValueError, match="another recipe or other data: choose another --out"):
            directory.check(other)


def test_results_are_kept_unless_the_run_goes_on(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.keep(row())
    with pytest.raises(ValueError, match="add --resume"):
        directory.check(IDENTITY)
    directory.check(IDENTITY, resume=True)


def test_a_file_in_the_way_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match=rf"--out {file} is a file"):
        RunDirectory(file).check(IDENTITY)
    with pytest.raises(ValueError, match=rf"--csv {tmp_path} is a directory: name a file"):
        RunDirectory(tmp_path / "run").check(IDENTITY, files={"--csv": tmp_path, "--json": None})
    with pytest.raises(ValueError, match=r"cannot write to .*; choose another --json"):
        RunDirectory(tmp_path / "run").check(IDENTITY, files={"--json": file / "x" / "y.json"})
    assert file.read_text() == "mine" and not (tmp_path / "run").exists()


def test_one_process_holds_it_at_a_time(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    assert not directory.in_use
    with directory.claimed(IDENTITY, resume=False):
        assert directory.in_use
        again = directory.claimed(IDENTITY, resume=True)
        with pytest.raises(ValueError, match="in use by another process"), again:
            pass
    assert not directory.in_use
    assert directory.recipe.read_text() == IDENTITY.text()
    with (directory.path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert directory.in_use
