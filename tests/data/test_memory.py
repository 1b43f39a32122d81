"""Decoded images in memory: the same pixels, and no more memory than there is."""

import shutil

import pytest
import torch

from mixbench.cli import main
from mixbench.data import memory
from mixbench.data.datasets import open_data
from mixbench.data.memory import MemorySource, keep_in_memory
from mixbench.data.sources import UnreadableImage
from mixbench.recipe import load_recipe
from tests.support import kills
from tests.support.batches import augmented


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photographs):
    return photographs(tmp_path_factory.mktemp("photographs") / "data")


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("deit_small", {"image_size": 32, "batch_size": 8})


def test_images_in_memory_are_the_same_pixels(folder, recipe, tmp_path):
    """Bit for bit with 0 and 2 workers; the files are not read again."""
    moved = tmp_path / "data"
    moved.symlink_to(folder)
    data, said = open_data(data=moved), []
    expected = augmented(data, recipe)
    cached = keep_in_memory(data, said.append)
    sizes = [data.train.load(i).size for i in range(26)] + [data.val.load(i).size for i in range(4)]
    amount = 3 * sum(w * h for w, h in sizes)
    assert len(said) == 1 and said[0].startswith(
        f"keeping 30 images of {amount / 30 / 1024:.0f} KiB on average, {amount / 2**20:.1f} MiB, "
        "in memory: "
    )
    moved.unlink()
    with pytest.raises(UnreadableImage):
        data.train.load(0)
    for workers in (0, 2):
        assert torch.equal(augmented(cached, recipe, workers), expected)
    assert (
        isinstance(cached.val, MemorySource)
        and cached.val.load(3).size == (47, 58)
        and cached.train.levels.is_shared()
    )
    assert (cached.train.labels, cached.train.fingerprint) == (
        data.train.labels,
        data.train.fingerprint,
    )


def test_memory_that_is_not_there_is_refused(folder, monkeypatch):
    data = open_data(data=folder)
    assert memory.free_shared_memory() > 2**20
    needed = sum(
        3 * s.load(i).width * s.load(i).height
        for s in (data.train, data.val)
        for i in range(len(s.labels))
    )
    monkeypatch.setattr(memory, "free_shared_memory", lambda: 2 * needed)
    keep_in_memory(data, print, processes=2)
    monkeypatch.setattr(memory, "free_shared_memory", lambda: 2 * needed - 1)
    with pytest.raises(
        ValueError,
        match=r"--cache ram needs 30 images of .* KiB on average, 2 copies, .* are free: leave it",
    ):
        keep_in_memory(data, print, processes=2)


def write(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_the_least_of_all_control_groups_counts(tmp_path, monkeypatch):
    """A job of Slurm has a group around its own; files that were read can go."""
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "_machine_memory", lambda: 10_000)
    assert memory.free_memory() == 10_000
    (tmp_path / "own").write_text("3:cpuset:/other\n0::/slurm/job_7/step_0\n")
    job, stat = tmp_path / "slurm/job_7", "anon 500\ninactive_file 30\nactive_file 4"
    write(job / "step_0", memory__max="max", memory__current=800)
    assert memory.free_memory() == 10_000
    write(tmp_path / "other", memory__max=1, memory__current=1)  # of no memory
    for name, text in (("max", 2000), ("current", 900), ("stat", stat)):
        (job / f"memory.{name}").write_text(f"{text}\n")
    assert memory.free_memory() == 2000 - 900 + 34
    (job / "memory.max").write_text("100\n")
    assert memory.free_memory() == 0  # a limit that was lowered since
    (job / "memory.max").write_text("max\n")
    (tmp_path / "memory.max").write_text("700\n")  # of a container, which sees its own group alone
    (tmp_path / "memory.current").write_text("600\n")
    assert memory.free_memory() == 100


def test_the_first_interface_of_control_groups_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "_machine_memory", lambda: 10_000)
    (tmp_path / "own").write_text("4:cpu,memory:/docker/abc\n0::/\n")
    limits = {"memory__limit_in_bytes": 3000, "memory__usage_in_bytes": 1000}
    stat = "inactive_file 1\ntotal_inactive_file 20\ntotal_active_file 5"
    write(tmp_path / "memory/docker/abc", memory__stat=stat, **limits)
    assert memory.free_memory() == 2025


def test_an_unreadable_image_is_named_before_training(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "data")
    victim = tmp_path / "data/train/a/3.jpg"
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(UnreadableImage, match=r"3\.jpg.*\n--check-data"):
        keep_in_memory(open_data(data=tmp_path / "data"), print)


def test_the_command_keeps_images_and_says_how_long_it_waited(tmp_path, capsys):
    assert (
        main(
            [
                "--strategies",
                "cutmix",
                "--mode",
                "accuracy",
                "--out",
                str(tmp_path),
                *kills.TINY,
                "--epochs",
                "1",
                "--cache",
                "ram",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert (
        "keeping 136 images of 3 KiB on average, 0.4 MiB, in memory: " in out
        and "seed 0  waiting for images: " in out
    )
