"""The page on what the loader costs, measured with small photographs."""

import dataclasses
import re

import pytest
import torch

from baselines import side_by_side
from baselines.side_by_side import Measured, Repeat, Trained
from mixbench.data.datasets import open_data
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime

CPU = Runtime(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(photographs, tmp_path_factory):
    """An image folder with one batch of 64 training images, below a folder with a private name."""
    root = tmp_path_factory.mktemp("private") / "flowers"
    return photographs(root, train=16, val=2, classes=("a", "b", "c", "d"))


def table(text, header):
    """The cells of the table whose header begins with this cell."""
    lines = text.partition(f"| {header} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_shows_what_was_measured(folder, tmp_path, monkeypatch, capsys):
    measurements = []

    def measure(options):
        measurements.append(original(options))
        return measurements[-1]

    original = side_by_side.measure
    monkeypatch.setattr(side_by_side, "measure", measure)
    argv = ["--data", str(folder), "--limit-train", "64", "--workers", "0", "--repeats", "2"]
    side_by_side.main([*argv, "--device", "cpu"], results=tmp_path)
    [file], [measured] = tmp_path.iterdir(), measurements
    assert re.fullmatch(r"side-by-side-cpu-\d{4}-\d\d-\d\d\.md", file.name)
    text = file.read_text(encoding="utf-8")
    assert table(text, "repeat") == [
        [
            str(number),
            f"{repeat.together.seconds:.2f}",
            f"{repeat.alone.seconds:.2f}",
            f"{repeat.alone.seconds / repeat.together.seconds:.2f}",
        ]
        for number, repeat in enumerate(measured.repeats, 1)
    ]
    rates = [[rate.name, f"{rate.im_per_sec:.0f}"] for rate in measured.rates]
    assert table(text, "what is done") == rates
    assert len(measured.repeats) == 2 and len(rates) == 5
    for repeat in measured.repeats:
        assert repeat.together.losses == repeat.alone.losses and len(repeat.alone.losses) == 4
        assert min(repeat.together.seconds, repeat.alone.seconds) > 0
    assert min(rate.im_per_sec for rate in measured.rates) > 0
    assert "One epoch of 64 images,\nworkers: 0; recipe: `quick`" in text
    assert "side_by_side.py --data flowers --limit-train 64 --workers 0 --repeats 2" in text
    assert str(folder.parent) not in text and folder.parent.name not in text
    assert text in capsys.readouterr().out


def test_the_first_lines_are_medians():
    """Ratios 2, 4 and 3; 1, 3 and 2 seconds; waiting 0.1, 0.3 and 0.2 of the time."""
    repeats = [
        Repeat(Trained(together, [], 0.5), Trained(alone, [], waited))
        for together, alone, waited in ((1.0, 2.0, 0.1), (3.0, 12.0, 0.3), (2.0, 6.0, 0.2))
    ]
    measured = Measured(
        repeats=repeats, rates=[], train_images=1024, workers=1, threads=2, device=CPU.device
    )
    text = " ".join(side_by_side.page(measured, "python x.py", "2026-01-01").split())
    assert "**3.00 times faster** (median of 3 interleaved repeats, 2.00 to 4.00)" in text
    assert "2.0 s against 6.0 s. Alone, a run waited for images 20% of its training time." in text
    assert "bit for bit. One epoch of 1,024 images" in text
    assert "Command: `OMP_NUM_THREADS=2 python x.py`" in text


def test_other_losses_are_no_comparison(folder, monkeypatch):
    """Where the two ways do not train alike, here with other seeds, there is no page."""

    def train_groups(groups, recipe, data, runtime):
        return original(groups, recipe, data, dataclasses.replace(runtime, seed=len(groups)))

    original = side_by_side.train_groups
    monkeypatch.setattr(side_by_side, "train_groups", train_groups)
    recipe = load_recipe("quick", side_by_side.RECIPE | {"epochs": 1, "warmup_epochs": 0})
    with pytest.raises(AssertionError, match="losses side by side and alone differ"):
        side_by_side.train_both_ways(recipe, open_data(data=folder), CPU, reverse=False)


def test_reverse_is_the_other_order(monkeypatch):
    """Side by side is one group of four strategies, one after the other four groups of one."""
    sizes = []

    def train_groups(groups, recipe, data, runtime):
        sizes.append([len(group) for group in groups])
        return Trained(float(len(sizes)), [], 0.0)

    monkeypatch.setattr(side_by_side, "train_groups", train_groups)
    forward, backward = (
        side_by_side.train_both_ways(None, None, CPU, reverse=reverse) for reverse in (False, True)
    )
    assert sizes == [[4], [1, 1, 1, 1], [1, 1, 1, 1], [4]]
    assert forward.ratio == 2 / 1 and backward.ratio == 3 / 4
