"""The estimated time, by hand from measured parts."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from mixbench import create_strategies, register_strategy
from mixbench.data.datasets import open_data
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime
from mixbench.strategies.cutmix import CutMix
from mixbench.training import estimate
from mixbench.training.estimate import estimate_seconds, kept_bytes, remark_on_memory

RECIPE = load_recipe(
    "quick",
    {"embed_dim": 24, "depth": 1, "epochs": 3, "batch_size": 16, "micro_batch": 8},
)
MICRO_BATCHES = 3 * (50 // 16) * 2  # epochs, steps an epoch, parts of a step


class TwoSeconds:
    """A clock on which every part takes two seconds."""

    def __init__(self, device):
        self.device = device

    def __call__(self, part):
        self.part = part

    def seconds(self):
        return {self.part: 2.0}


@pytest.fixture
def data():
    return open_data(image_size=32, limit_train=50, limit_val=10)


def seconds(specs, data, monkeypatch, *, workers, loading, on_device=0.0):
    monkeypatch.setattr(estimate, "Clock", TwoSeconds)
    monkeypatch.setattr(estimate, "_loading_seconds", lambda *_: (loading, on_device))
    runtime = Runtime(device=torch.device("cpu"), workers=workers)
    return estimate_seconds(create_strategies(specs), RECIPE, data, runtime)


def test_without_workers_loading_and_training_add_up(data, monkeypatch):
    whole = seconds("none,transmix", data, monkeypatch, workers=0, loading=0.5)
    assert whole == MICRO_BATCHES * (2 * 2.0 + 0.5)


def test_with_workers_the_slower_one_counts(data, monkeypatch):
    fast = seconds("none", data, monkeypatch, workers=4, loading=6.0)
    assert fast == MICRO_BATCHES * 2.0  # 1.5 s to load by four
    slow = seconds("none", data, monkeypatch, workers=2, loading=6.0, on_device=0.5)
    assert slow == MICRO_BATCHES * 3.0  # against 2.5 s of training and augmentation


def test_a_strategy_that_cannot_run_counts_nothing(data, monkeypatch):
    @register_strategy("cannot")
    @dataclass(frozen=True)
    class Cannot(CutMix):
        def mix(self, images, labels, ctx):
            raise RuntimeError("never")

    whole = seconds("cannot,none", data, monkeypatch, workers=0, loading=0.0)
    assert whole == MICRO_BATCHES * 2.0


@pytest.mark.parametrize("augment_on", ["loader", "device"])
def test_an_estimate_of_this_machine_is_a_time(data, augment_on):
    from dataclasses import replace

    recipe = replace(RECIPE, augment_on=augment_on)
    runtime = Runtime(device=torch.device("cpu"))
    assert 0 < estimate_seconds(create_strategies("cutmix"), recipe, data, runtime) < 600


def test_a_large_group_is_tried_in_part_on_a_cpu(data, monkeypatch):
    recipe = replace(RECIPE, batch_size=48, micro_batch="auto", mix_group=48)
    sizes = []

    @register_strategy("sized")
    @dataclass(frozen=True)
    class Sized(CutMix):
        def mix(self, images, labels, ctx):
            sizes.append(len(images))
            return super().mix(images, labels, ctx)

    monkeypatch.setattr(estimate, "Clock", TwoSeconds)
    monkeypatch.setattr(estimate, "_loading_seconds", lambda *_: (0.0, 0.0))
    runtime = Runtime(device=torch.device("cpu"))
    whole = estimate_seconds(create_strategies("sized"), recipe, data, runtime)
    assert set(sizes) == {32} and whole == 3 * 2.0 * 48 / 32  # three steps of two seconds each


def test_what_a_forward_pass_keeps_is_counted_by_hand():
    layers = nn.Flatten(), nn.Linear(3 * 8 * 8, 5), nn.ReLU(), nn.Linear(5, 2)
    recipe = replace(RECIPE, image_size=8)
    assert kept_bytes(nn.Sequential(*layers), recipe) == 4 * (3 * 8 * 8 + 5)  # the layers' inputs


def test_a_cpu_that_cannot_hold_a_group_says_so(monkeypatch):
    recipe = replace(RECIPE, batch_size=48, micro_batch="auto", mix_group=48)
    runtime = Runtime(device=torch.device("cpu"))
    monkeypatch.setattr(estimate, "kept_bytes", lambda *_: 2**30)
    monkeypatch.setattr(estimate, "free_memory", lambda: 20 * 2**30)
    assert remark_on_memory(recipe, 10, runtime) == (
        "memory may not suffice: 48 images at once take about 60.0 GiB, and 20.0 GiB are free: "
        "take --mix-group 16"
    )
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "120.0 GiB" in remark_on_memory(recipe, 10, runtime)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr(estimate, "free_memory", lambda: 60 * 2**30)
    assert remark_on_memory(recipe, 10, runtime) is None
    assert remark_on_memory(replace(recipe, mix_group="auto"), 10, runtime) is None
