"""A dry run finds what the run finds, in the same sentence and with the same status."""

import re

import pytest
import torch

from mixbench.cli import main
from mixbench.data import index, memory
from mixbench.data.folders import open_folder
from mixbench.runs.directory import RunDirectory
from mixbench.runs.identity import read_data
from mixbench.runs.rows import RunRow, read_table
from mixbench.training import trial
from tests.support.command import TINY

PHOTOS = ("--data", "photos", "--config", "quick", "--workers", "0")

MISTAKES = {
    "optimizer": ("--opt", "nonsense"),
    "model": ("--model", "nonsense"),
    "device": ("--device", "nonsense"),
    "seeds": ("--seeds", "0,x"),
    "strategy": ("--strategies", "cutmicks"),
    "sides of patches": ("--model", "pvt_tiny", "--image-size", "48"),
    "timed side": ("--speed-image-size", "40"),
    "groups of one image": ("--micro-batch", "1"),
    "groups that do not divide": ("--mix-group", "3"),
    "batch above the images": ("--batch-size", "64", "--micro-batch", "64"),
    "no class token": ("--strategies", "transmix", "--model", "resnet18", "--embed-dim", "null"),
    "no class token timed": ("--strategies", "transmix", "--speed-model", "resnet18"),
    "speed alone": ("--mode", "speed", "--strategies", "transmix", "--speed-model", "resnet18"),
    "no folder": ("--data", "nowhere"),
    "other classes": (*PHOTOS, "--data", "other"),
    "no image": (*PHOTOS, "--data", "damaged"),
    "no memory": (*PHOTOS, "--cache", "ram"),
    "damaged weights": ("--init", "damaged.pt"),
    "weights of another model": ("--init", "other.pt"),
    "output is a file": ("--out", "damaged.pt"),
    "table is a folder": ("--csv", "photos"),
    "another recipe's folder": ("--out", "begun"),
    "folder in use": ("--out", "held"),
    "no plug-in": ("--plugin", "nowhere.py"),
    "plug-in that cannot load": ("--plugin", "broken.py"),
    "needs that raise": ("--plugin", "failing.py", "--strategies", "needs"),
}


@pytest.fixture
def folder(tmp_path, photographs, monkeypatch):
    """A working directory in which everything is wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "free_shared_memory", lambda: 1)
    for name in ("photos", "other", "damaged"):
        photographs(tmp_path / name, 10, 4, ("cat", "dog"))
    (tmp_path / "other/val/dog").rename(tmp_path / "other/val/wolf")
    (tmp_path / "damaged/val/cat/0.jpg").write_bytes(b"no picture")
    (tmp_path / "damaged.pt").write_bytes(b"no weights")
    torch.save({"state_dict": {"layer.weight": torch.zeros(2, 2)}}, "other.pt")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/recipe.yaml").write_text("lr: 1\n")
    (tmp_path / "held").mkdir()
    (tmp_path / "broken.py").write_text("import a_module_that_nobody_has\n")
    (tmp_path / "failing.py").write_text(FAILING)
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_dry_run_refuses_what_a_run_refuses(mistake, folder, capsys):
    fcntl = pytest.importorskip("fcntl")
    argv = ["--strategies", "cutmix", "--out", "run", *TINY, *MISTAKES[mistake]]
    with (folder / "held/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main([*argv, "--dry-run"]) == 2
        dry = capsys.readouterr()
        assert dry.out == "" and dry.err and not (folder / "run").exists()
        assert main(argv) == 2
    free = re.compile(r"[0-9.,]+ MiB are free")
    assert free.sub("", capsys.readouterr().err) == free.sub("", dry.err)


def test_a_strategy_that_fails_is_told_by_both(folder, capsys):
    argv = ["--plugin", "failing.py", "--strategies", "raises,none", "--out", "run", *TINY]
    assert main([*argv, "--dry-run"]) == 1
    said = capsys.readouterr().out
    assert not (folder / "run").exists()
    assert main(argv) == 1
    [row] = [
        row for row in read_table(RunDirectory(folder / "run").runs, RunRow) if row.top1 is None
    ]
    assert f"{row.strategy} {row.status}" in said.splitlines()


FAILING = """
from dataclasses import dataclass
from mixbench import register_strategy
from mixbench.strategies.cutmix import CutMix

@register_strategy("raises")
@dataclass(frozen=True)
class Raises(CutMix):
    def mix(self, images, labels, ctx):
        raise RuntimeError("no luck")

@register_strategy("needs")
@dataclass(frozen=True)
class Needing(CutMix):
    @property
    def needs(self):
        raise RuntimeError("no idea")
"""


def test_a_dry_run_says_what_a_run_costs(folder, capsys):
    assert main(["--strategies", "cutmix", "--out", "run", *TINY, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"timing will take about [\d.]+ \w+ and training will take about [\d.]+ \w+, "
        r"[\d.]+ \w+ in all, on this machine, with about [\d.]+ [MG]iB of memory and "
        r"[\d.]+ [MG]iB on the disk",
        said,
    )
    assert "timing      test_vit at 64 px, 2 rounds" in said


BFLOAT16 = {
    "training": (("--mode", "accuracy", "--amp"), "take --no-amp"),
    "timing": (("--mode", "speed", "--speed-amp"), "take --no-speed-amp"),
    "both": (("--amp", "--speed-amp"), "take --no-amp and --no-speed-amp"),
    "training alone": (("--amp",), "take --no-amp"),
    "the gradient": (("--gradient-amp", "true"), "take --gradient-amp false"),
    "none": (("--mode", "accuracy", "--speed-amp"), None),
}


@pytest.mark.parametrize("case", BFLOAT16)
@pytest.mark.parametrize("times", [45, 1.5])
def test_slow_bfloat16_is_told_with_the_way_out(case, times, folder, capsys, monkeypatch):
    options, way_out = BFLOAT16[case]

    def seconds_of(work, device):
        result = work()  # a product, or a step, which returns nothing
        return 0.01 * times if getattr(result, "dtype", None) == torch.bfloat16 else 0.01

    monkeypatch.setattr(trial, "seconds_of", seconds_of)
    argv = ["--strategies", "cutmix", "--out", "run", *TINY, *options, "--dry-run"]
    assert main(argv) == 0
    said = re.findall(r"^a product in bfloat16.*$", capsys.readouterr().out, re.MULTILINE)
    sentence = "a product in bfloat16 takes 45 times as long here as one in float32: "
    assert said == ([sentence + way_out] if way_out and times > 2 else [])


def test_a_dry_run_says_that_it_reads_an_index_and_a_run_lists_anew(folder, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setattr(index, "LARGE", 20)
    argv = [*PHOTOS, "--mode", "accuracy", "--strategies", "none", "--out", "run", *TINY]
    sentence = re.compile(
        r"^images are listed as in an index of \d{4}-\d\d-\d\d \d\d:\d\d UTC, which serves dry "
        r"runs alone: a run lists them anew$",
        re.MULTILINE,
    )

    def said(*more, command=()):
        assert main([*command, *argv, *more]) == 0
        return bool(sentence.search(capsys.readouterr().out))

    assert [said("--dry-run") for _ in range(3)] == [False, True, True]
    assert said("--dry-run", command=["sweep"])
    with (folder / "photos/train/cat/0.jpg").open("ab") as file:
        file.write(b"more")
    assert not said("--dry-run", "--check-data")  # which reads every image anyway
    assert said("--dry-run")
    assert not said()
    expected = open_folder(folder / "photos").identity
    assert read_data(RunDirectory(folder / "run").data).data == expected
