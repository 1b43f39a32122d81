"""How a step's batch is divided: micro-batches, and the mixing groups that share one draw."""

from dataclasses import dataclass, replace

import pytest
import torch

from mixbench import create_strategies, register_strategy
from mixbench.data.datasets import open_data
from mixbench.distributed import World
from mixbench.mix import MixStrategy
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime
from mixbench.strategies.cutmix import CutMix
from mixbench.training import batches as module
from mixbench.training.batches import (
    Batches,
    Sizes,
    agreed_sizes,
    check_division,
    check_groups,
    resolve_sizes,
)
from mixbench.training.loop import train

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SMALL = {"embed_dim": 24, "depth": 1, "epochs": 1, "mix_prob": 1.0}


def sizes(batch_size, micro_batch, mix_group, *, processes=1, fits=None):
    """Micro-batch and mixing group of a recipe, on a GPU where `fits` images do."""
    recipe = load_recipe(
        "quick", {"batch_size": batch_size, "micro_batch": micro_batch, "mix_group": mix_group}
    )
    device = CPU if fits is None else GPU
    found = resolve_sizes(recipe, device, lambda size: size <= fits, processes)
    return found.micro_batch, found.mix_group


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "expected"),
    [
        (1024, "auto", 16),
        (64, "auto", 16),
        (30, "auto", 10),  # even before 15
        (45, "auto", 15),
        (37, "auto", 37),  # a prime: 1 would mix nothing
        (2, "auto", 2),
        (64, 64, 64),
        (8, 64, 8),  # an upper bound
        (60, 16, 15),
        (37, 16, 1),  # refused by check_groups
    ],
)
def test_micro_batches_divide_the_batch(batch_size, micro_batch, expected):
    assert sizes(batch_size, micro_batch, "auto") == (expected, expected)


def test_a_gpu_takes_what_fits():
    assert sizes(1024, "auto", "auto", fits=300) == (256, 256)
    assert sizes(1024, "auto", 128, fits=300) == (256, 128)
    assert sizes(1024, 128, 64, fits=5000) == (128, 64)
    assert sizes(74, "auto", "auto", fits=40) == (2, 2)  # 37 is odd


def test_a_group_is_kept_whatever_the_processor():
    assert sizes(1024, "auto", 128) == (128, 128)
    assert sizes(1024, 512, 128) == (512, 128)
    assert sizes(1024, "auto", 128, processes=8) == (128, 128)
    assert sizes(96, 40, 8) == (32, 8)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((64, "auto", 128), "mix_group 128 must divide the 64 images.*take --mix-group 64"),
        ((100, "auto", 16), "must divide the 100 images.*--mix-group 10"),
        ((64, 8, 16), "micro_batch 8 cannot hold a mixing group of 16 images: take --mix-group 8"),
    ],
)
def test_a_group_that_cannot_be_kept_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        sizes(*arguments)


def test_a_group_that_does_not_fit_names_the_one_that_does():
    with pytest.raises(ValueError, match=r"128 images does not fit on cuda: take --mix-group 64"):
        sizes(1024, "auto", 128, fits=100)


def test_a_group_of_one_is_refused_unless_nothing_mixes():
    recipe = load_recipe("quick", {"batch_size": 37, "micro_batch": 16})
    alone = resolve_sizes(recipe, CPU)
    check_groups(create_strategies("none"), recipe, alone)
    with pytest.raises(ValueError, match="one image mixes nothing: micro_batch 16 and batch_size"):
        check_groups(create_strategies("none,cutmix"), recipe, alone)
    with pytest.raises(ValueError, match="mix_group must be"):
        load_recipe("quick", {"mix_group": 1})


def groups(micro_batch, world, data, aug_repeats=0):
    """Image sums of each mixing group of four of an epoch, by its step and number."""
    recipe = load_recipe("quick", SMALL | {"batch_size": 16, "aug_repeats": aug_repeats})
    runtime = Runtime(device=CPU, seed=3, world=world)
    batches = Batches(data, recipe, Sizes(micro_batch=micro_batch, mix_group=4), runtime)
    return {
        (group.step, group.shard): (group.images.sum((1, 2, 3)).tolist(), group.labels.tolist())
        for micro in batches.of(0)
        for group in micro.groups()
    }


def test_groups_do_not_depend_on_micro_batch_or_processes():
    data = open_data(image_size=32, limit_train=32, limit_val=10)
    expected = groups(4, World(), data)
    assert sorted(expected) == [(step, number) for step in range(2) for number in range(4)]
    assert groups(16, World(), data) == groups(8, World(), data) == expected
    for micro_batch in (4, 8):
        shared = [groups(micro_batch, World(rank, 2), data) for rank in range(2)]
        assert shared[0] | shared[1] == expected and not shared[0].keys() & shared[1].keys()


def test_groups_of_copies_do_not_depend_on_the_micro_batch():
    data = open_data(image_size=32, limit_train=32, limit_val=10)
    small, large = (
        [groups(micro_batch, World(rank, 2), data, aug_repeats=3) for rank in range(2)]
        for micro_batch in (4, 8)
    )
    assert small == large and not small[0].keys() & small[1].keys()
    numbers = sorted([*small[0], *small[1]])
    assert numbers == [(step, number) for step in range(2) for number in range(4)]


class Tells(World):
    """A process alone that remembers what it would tell others."""

    def agree(self, error):
        HEARD.append(error)
        return error


HEARD = []


class OtherIsFull(World):
    """This process is one of two, and the other has no room."""

    def agree(self, error):
        return "a mixing group of 4 images does not fit on cuda:1 (rank 1)"

    def lowest(self, value):
        raise AssertionError("the other process will not come")


def test_a_group_that_does_not_fit_on_one_device_ends_all_processes(monkeypatch):
    recipe = load_recipe("quick", SMALL | {"batch_size": 16, "mix_group": 4})
    runtime = Runtime(device=CPU, world=OtherIsFull(rank=0, size=2))
    with pytest.raises(ValueError, match=r"does not fit on cuda:1 \(rank 1\)"):
        agreed_sizes(torch.nn.Identity(), recipe, runtime)
    HEARD.clear()
    full = Runtime(device=GPU, world=Tells())
    monkeypatch.setattr(module, "fits_in_memory", lambda *_: False)
    with pytest.raises(ValueError, match="does not fit on cuda: take a smaller model"):
        agreed_sizes(torch.nn.Identity(), replace(recipe, micro_batch="auto"), full)
    assert len(HEARD) == 1  # others would wait for it in vain


@pytest.mark.parametrize("device", [CPU, GPU])
def test_what_no_machine_can_divide_is_known_before_a_trial(device):
    strategies = create_strategies("cutmix")
    quick = load_recipe("quick", {"batch_size": 64, "micro_batch": "auto"})
    check_division(strategies, quick, device, processes=32)
    with pytest.raises(ValueError, match="one image mixes nothing"):
        check_division(strategies, quick, device, processes=64)
    check_division(create_strategies("none"), quick, device, processes=64)
    with pytest.raises(ValueError, match="cannot be shared by 3 processes"):
        check_division(strategies, quick, device, processes=3)
    fixed = load_recipe("deit_small")
    check_division(strategies, fixed, device, processes=8)
    with pytest.raises(
        ValueError, match=r"mix_group 128 must divide the 64 images.*--mix-group 64"
    ):
        check_division(strategies, fixed, device, processes=16)


@pytest.mark.parametrize("spec", ["cutmix", "transmix", "puzzlemix(clean_lam=1.0)", "saliencymix"])
def test_training_with_groups_does_not_depend_on_the_micro_batch(spec):
    """Without drop path the size of the micro-batch changes rounding alone."""
    data = open_data(image_size=32, limit_train=48, limit_val=10)
    recipe = load_recipe("quick", SMALL | {"batch_size": 16, "mix_group": 4})
    learners = [
        train(
            create_strategies(spec),
            replace(recipe, micro_batch=size),
            data,
            Runtime(device=CPU, seed=3),
        )[0]
        for size in (4, 8, 16)
    ]
    assert all(learner.failure is None and learner.mix_group == 4 for learner in learners)
    first, *others = (
        torch.cat([p.detach().flatten() for p in learner.model.parameters()])
        for learner in learners
    )
    for other in others:
        assert torch.allclose(first, other, atol=1e-5)
    losses = [learner.log[0].train_loss for learner in learners]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-6)


def test_mix_is_called_once_a_group_and_its_memo_comes_back():
    calls = []

    @register_strategy("counted")
    @dataclass(frozen=True)
    class Counted(MixStrategy):
        def mix(self, images, labels, ctx):
            calls.append(len(images))
            return replace(CutMix().mix(images, labels, ctx), memo=(len(calls), images.clone()))

        def relabel(self, mixed, output):
            number, images = mixed.memo
            assert len(output.logits) == len(mixed.images) == len(images) == 4
            calls.append(-number)
            return mixed.lam

    data = open_data(image_size=32, limit_train=16, limit_val=10)
    recipe = load_recipe("quick", SMALL | {"batch_size": 16, "mix_group": 4, "micro_batch": 8})
    [learner] = train(create_strategies("counted"), recipe, data, Runtime(device=CPU))
    assert learner.failure is None
    assert calls == [4, 4, -1, -2, 4, 4, -5, -6]
