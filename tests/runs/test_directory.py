"""A run's directory: names, what it is of, who holds it, what is finished."""

import fcntl
import json
import os
import signal
from dataclasses import replace

import pytest

from mixbench.data.sources import DataIdentity
from mixbench.recipe import load_recipe
from mixbench.runs.directory import RunDirectory, folder_name, numbered
from mixbench.runs.identity import Identity
from mixbench.runs.rows import RunRow

RECIPE = load_recipe("quick")
DATA = DataIdentity(("a", "b", "c"), 48, 12, "train's files", "val's files")
IDENTITY = Identity(RECIPE, DATA, "photos")


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


def begun(directory, identity=IDENTITY):
    with directory.claimed(identity, resume=False):
        pass
    return directory


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_size": 128}, "batch_size is 128, this run was begun with 64"),
        ({"mean": (0.5, 0.5, 0.25)}, "mean is 0.5, 0.5, 0.25, this run was begun with "),
        ({"lr": 0.1, "seed": 3}, r"lr is 0.1, .* with 0.001 \(2 differences in all\)"),
        ({"speed_amp": True}, "speed_amp is true, this run was begun with false"),
    ],
)
def test_another_recipe_is_refused_by_its_field(changes, sentence, tmp_path):
    directory = begun(RunDirectory(tmp_path))
    directory.check(RECIPE)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=f"^{sentence}.*: choose another --out$"):
        directory.check(load_recipe("quick", changes))
    assert files(tmp_path) == before


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_recipe_of_an_older_or_a_newer_mixbench_is_named(tmp_path):
    directory = begun(RunDirectory(tmp_path))
    text = directory.recipe.read_text()
    directory.recipe.write_text("".join(f"{line}\n" for line in text.splitlines()[1:]))
    with pytest.raises(ValueError, match=r"model is .* older mixbench does not say it: choose"):
        directory.check(RECIPE)
    directory.recipe.write_text(text + "mixes: 3\n")
    with pytest.raises(ValueError, match="says mixes, which this mixbench does not know"):
        directory.check(RECIPE)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train_images": 49}, "train/ has 49 images, this run was begun with 48"),
        ({"val_images": 11}, "val/ has 11 images, this run was begun with 12"),
        ({"classes": ("a", "b", "c", "d")}, "class 'd' is new, this run was begun without it"),
        ({"classes": ("a", "c")}, "class 'b' is gone, this run was begun with it"),
        ({"classes": ("x", "y")}, r"class 'x' is new, .* \(5 differences in all\)"),
        ({"classes": ("a", "c", "b")}, "class 1 is 'c', this run was begun with 'b' there"),
        ({"train": "others"}, "train/ has as many images .*, but other names or sizes"),
        ({"val": "others"}, "val/ has as many images .*, but other names or sizes"),
    ],
)
def test_other_data_are_refused_by_what_differs(changes, sentence, tmp_path):
    directory = begun(RunDirectory(tmp_path))
    directory.check_data(IDENTITY)
    before = files(tmp_path)
    other = replace(IDENTITY, data=replace(DATA, **changes))
    with pytest.raises(ValueError, match=f"^{sentence}.*: choose another --out$"):
        directory.check_data(other)
    claim = directory.claimed(other, resume=True)
    with pytest.raises(ValueError, match=f"^{sentence}"), claim:
        pass
    assert files(tmp_path) == before


def test_a_limit_is_named_where_it_makes_the_difference(tmp_path):
    directory = begun(RunDirectory(tmp_path), replace(IDENTITY, limit_train=48))
    other = replace(IDENTITY, limit_train=96, data=replace(DATA, train_images=96))
    with pytest.raises(ValueError, match=r"^--limit-train is 96, this run was begun with 48: "):
        directory.check_data(other)
    other = replace(IDENTITY, data=replace(DATA, train_images=3000))
    with pytest.raises(ValueError, match=r"^--limit-train is not given, this run was begun with"):
        directory.check_data(other)
    directory.check_data(replace(IDENTITY, source="elsewhere", limit_train=1000))  # the same


def test_bytes_are_compared_where_both_runs_read_them(tmp_path):
    read, unread = replace(IDENTITY, data=replace(DATA, content="abc")), IDENTITY
    directory = begun(begun(begun(RunDirectory(tmp_path), unread), read), unread)
    other = replace(IDENTITY, data=replace(DATA, content="def"))
    with pytest.raises(ValueError, match="images have other bytes than this run was begun with"):
        directory.check_data(other)
    begun(directory, read)


def test_a_sentence_stays_short_whatever_the_names(tmp_path):
    names = tuple(f"{'x' * 5000}{number}" for number in range(50))
    directory = begun(RunDirectory(tmp_path), replace(IDENTITY, data=replace(DATA, classes=names)))
    with pytest.raises(ValueError) as caught:
        directory.check_data(IDENTITY)
    assert len(str(caught.value)) < 300
    with pytest.raises(ValueError) as caught:
        directory.check(load_recipe("quick", {"model": "x" * 5000}))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["recipe.yaml", "data.json"])
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x00" * 9, b"\xff\xfe", b"null", b"[1]", b"3", b"{", b"[" * 5000, b'{"a": 1}'),
        *(b"- a\n- b\n", b"a: &x [*x]\n", b"? [1]\n: 2\n", b"a: b: c\n", b"\t"),
    ],
)
def test_a_damaged_identity_is_named_and_stays(name, content, tmp_path):
    directory = begun(RunDirectory(tmp_path))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"choose another --out") as caught:
        directory.check(RECIPE)
        directory.check_data(IDENTITY)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
    assert (tmp_path / name).read_bytes() == content
    assert name in str(caught.value) or content == b"a: &x [*x]\n" or b"a" in content


@pytest.mark.parametrize("field", ["classes", "train_images", "val", "content", "limit_train"])
@pytest.mark.parametrize("value", [True, 1.5, [1], {"a": 1}])
def test_an_identity_of_other_types_is_damaged(field, value, tmp_path):
    directory = begun(RunDirectory(tmp_path))
    content = json.loads(directory.data.read_text())
    directory.data.write_text(json.dumps(content | {field: value}))
    with pytest.raises(ValueError, match=r"data.json is damaged"):
        directory.check_data(IDENTITY)


def test_a_run_of_an_older_mixbench_is_not_gone_on_with(tmp_path):
    directory = begun(RunDirectory(tmp_path))
    directory.keep(row())
    directory.data.unlink()
    with pytest.raises(ValueError, match=r"data.json is missing, as in runs of an older mixbench"):
        directory.check_data(IDENTITY)


def test_a_child_process_does_not_hold_the_directory(tmp_path):
    """As a loader's worker that outlives its killed parent."""
    directory = RunDirectory(tmp_path)
    ready, wait = os.pipe(), os.pipe()
    with directory.claimed(IDENTITY, resume=False):
        child = os.fork()
        if not child:
            os.write(ready[1], b"x")
            os.read(wait[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        held = directory.in_use
    freed = not directory.in_use  # while the child still runs
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for end in (*ready, *wait):
        os.close(end)
    assert held and freed


def test_results_are_kept_unless_the_run_goes_on(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.keep(row())
    with pytest.raises(ValueError, match="add --resume"):
        directory.check(RECIPE)
    directory.check(RECIPE, resume=True)


def test_a_file_in_the_way_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match=rf"--out {file} is a file"):
        RunDirectory(file).check(RECIPE)
    with pytest.raises(ValueError, match=rf"--csv {tmp_path} is a directory: name a file"):
        RunDirectory(tmp_path / "run").check(RECIPE, files={"--csv": tmp_path, "--json": None})
    with pytest.raises(ValueError, match=r"cannot write to .*; choose another --json"):
        RunDirectory(tmp_path / "run").check(RECIPE, files={"--json": file / "x" / "y.json"})
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
    assert load_recipe(directory.recipe) == RECIPE
    content = json.loads(directory.data.read_text())
    assert content["source"] == "photos" and content["classes"] == ["a", "b", "c"]
    with (directory.path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert directory.in_use
