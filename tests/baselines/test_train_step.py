"""The page on a training step beside timm's: small steps, and figures by hand."""

import copy

import pytest
import torch

from baselines import train_step
from baselines.train_step import Timed, our_step, page, timms_step
from mixbench.recipe import load_recipe

TINY = {"embed_dim": 24, "depth": 1, "image_size": 32, "batch_size": 8, "micro_batch": 8}


@pytest.fixture
def recipe():
    return load_recipe("quick", train_step.RECIPE | TINY)


def table(text):
    """The cells of the page's table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_step_is_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_step, "RECIPE", train_step.RECIPE | TINY)
    (tmp_path / "results").mkdir()
    threads = torch.get_num_threads()
    train_step.main(["--rounds", "2", "--steps", "1"], results=tmp_path / "results")
    [file] = (tmp_path / "results").iterdir()
    text = file.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out and torch.get_num_threads() == threads
    names = ["mixup, mixbench", "cutmix, mixbench", "transmix, mixbench"]
    assert [row[0] for row in table(text) if row[0].endswith("mixbench")] == names
    assert all(float(row[1]) > 0 for row in table(text))


def test_a_ratio_is_of_the_same_round_and_the_same_peer():
    """Ratios 2/1, 9/3 and 8/2: their median is 3, not 8/2."""
    timed = [
        Timed("Mixup, timm", "Mixup, timm", [100.0, 100.0, 100.0]),
        Timed("CutMix, timm", "CutMix, timm", [1.0, 3.0, 2.0]),
        Timed("transmix, mixbench", "CutMix, timm", [2.0, 9.0, 8.0]),
    ]
    text = page(timed, load_recipe("quick", train_step.RECIPE), 4, "python x.py", "2026-01-01")
    assert table(text)[2] == [
        "transmix, mixbench", "8.0", "3.000 [2.000, 4.000]", "2.000, 4.000"
    ]  # fmt: skip


def test_both_steps_do_the_same_work(recipe, monkeypatch):
    """Without mixing, the same weights and averages after the same batches."""
    models, averages, learners = [], [], []
    for name, kept in (("recipe_model", models), ("ModelEmaV3", averages), ("prepare", learners)):
        monkeypatch.setattr(train_step, name, keeping(getattr(train_step, name), kept))
    monkeypatch.setattr(train_step, "Mixup", lambda *_, **__: unmixed)
    steps = [timms_step(recipe, (0.8, 0.0)), our_step(recipe, "none")]
    [[learner]] = learners
    start = copy.deepcopy(learner.model.state_dict())
    labels = torch.arange(8)
    for number in range(4):
        images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        for step in steps:
            step(images, labels)
    for theirs, ours in ((models[0], learner.model), (averages[0].module, learner.ema.module)):
        for name, value in theirs.state_dict().items():
            assert torch.allclose(ours.state_dict()[name], value, atol=1e-6), name
    moved = [not torch.equal(start[name], value) for name, value in models[0].state_dict().items()]
    assert all(moved)


def keeping(build, kept):
    def built(*arguments, **options):
        kept.append(build(*arguments, **options))
        return kept[-1]

    return built


def unmixed(images, labels):
    """Images as they are, and targets smoothed as timm smooths them."""
    targets = torch.full((len(labels), train_step.CLASSES), 0.1 / train_step.CLASSES)
    return images, targets.scatter_(1, labels[:, None], 0.9 + 0.1 / train_step.CLASSES)
