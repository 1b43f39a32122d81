"""The estimated time, memory and disk, by hand from measured parts."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from mixbench import create_strategies, create_strategy, register_strategy
from mixbench.data import memory
from mixbench.data.datasets import open_data
from mixbench.recipe import load_recipe
from mixbench.runtime import Failed, Runtime
from mixbench.strategies.cutmix import CutMix
from mixbench.training import estimate, trial
from mixbench.training.batches import Sizes
from mixbench.training.estimate import (
    Room,
    Work,
    estimate_seconds,
    first_seconds,
    image_bytes,
    kept_bytes,
    remark_on_memory,
    room_of,
    sizes_in,
    training_disk,
    training_memory,
    training_seconds,
    tried_sizes,
)
from mixbench.training.evaluate import is_evaluated
from mixbench.training.learner import Learner
from mixbench.training.loop import train
from mixbench.training.objective import compose
from mixbench.training.trial import Loading, Trial, try_loading, try_strategies, turns

RECIPE = load_recipe(
    "quick",
    {"embed_dim": 24, "depth": 1, "epochs": 3, "batch_size": 16, "micro_batch": 8},
)
CPU = Runtime(device=torch.device("cpu"))
# 3 epochs of 5 steps of 2 micro-batches of 8 images; 40 are evaluated after each
WORK = Work(epochs=3, steps=5, parts=2, micro_batch=8, val=40, evaluations=3)
NONE = Trial(spec="none", step=2.0, update=0.5, evaluation=0.1, weights=10, held=40)
BOTH = [NONE, replace(NONE, spec="transmix", step=3.0, models=2, held=50)]
LOADING = Loading(train=0.25, val=0.05, first_train=0.25, first_val=0.05)


@pytest.fixture
def data():
    return open_data(image_size=32, limit_train=50, limit_val=10)


def test_steps_updates_and_evaluations_are_counted():
    """An epoch: 80 images come, 10 micro-batches, 5 updates; 40 images come, three models."""
    epoch = 80 * 0.25 + 10 * (2.0 + 3.0) + 5 * (0.5 + 0.5) + 40 * 0.05 + 40 * (1 + 2) * 0.1
    assert training_seconds(BOTH, LOADING, WORK) == pytest.approx(3 * epoch)
    with_scenes = training_seconds(BOTH, LOADING, replace(WORK, scenes=500))
    assert with_scenes == pytest.approx(3 * epoch + 500 * 2 * 0.1)
    augmented = training_seconds(BOTH, replace(LOADING, augment=0.125), WORK)
    assert augmented == pytest.approx(3 * (epoch + 80 * 0.125))


def test_epochs_without_evaluation_take_the_time_of_their_steps():
    training = 80 * 0.25 + 10 * 2.0 + 5 * 0.5
    evaluation = 40 * 0.05 + 40 * 0.1
    sparse = replace(WORK, epochs=7, evaluations=3)
    seconds = training_seconds([NONE], LOADING, sparse)
    assert seconds == pytest.approx(7 * training + 3 * evaluation)


@pytest.mark.parametrize(
    ("workers", "cores", "epoch"),
    [
        (4, 64, 22.5 + 4.0),  # 20 s of loading by four against 10 micro-batches and 5 updates
        (4, 1, 22.5 + 20 + 4.0 + 2.0),  # one core does it all
        (4, 2, 22.5 + 4.0),  # 42.5 core seconds on two cores
    ],
)
def test_workers_load_while_the_device_computes_unless_cores_are_few(workers, cores, epoch):
    work = replace(WORK, workers=workers, cores=cores)
    assert training_seconds([NONE], LOADING, work) == pytest.approx(3 * epoch)


def test_slow_loading_counts_instead_of_the_steps():
    slow = replace(LOADING, train=2.5, val=0.0)  # 200 s an epoch by four workers
    work = replace(WORK, workers=4, cores=64)
    assert training_seconds([NONE], slow, work) == pytest.approx(3 * (200 / 4 + 4.0))


def test_what_comes_for_the_first_time_counts_once():
    first = replace(LOADING, first_train=1.25, first_val=0.55)
    assert first_seconds(first, WORK) == pytest.approx(80 * 1.0 + 40 * 0.5)
    assert first_seconds(LOADING, WORK) == 0
    assert first_seconds(first, replace(WORK, workers=2)) == pytest.approx((80 + 20) / 2)


def test_a_strategy_that_cannot_run_counts_nothing():
    failed = Trial(spec="cannot", failure=Failed("failed: never"))
    assert training_seconds([failed, NONE], LOADING, WORK) == training_seconds(
        [NONE], LOADING, WORK
    )
    assert training_seconds([failed], LOADING, WORK) == training_memory([failed], 7) == 0
    assert training_disk([failed], RECIPE, 2) == 2 * estimate.PICTURES


def test_memory_and_disk_are_added_up():
    assert training_memory(BOTH, 1000) == 40 + 50 + 1000
    weights, state = 2 * (10 + 10), 30 + 40
    assert training_disk(BOTH, RECIPE, 2) == weights + 2 * estimate.PICTURES + 3 * state
    both = replace(RECIPE, model_ema=True, headline="ema")
    assert training_disk(BOTH, both, 2) == 2 * weights + 2 * estimate.PICTURES + 3 * state


def test_the_work_is_of_the_recipe_and_the_data(data):
    work = Work.of(RECIPE, data, Sizes(micro_batch=8, mix_group=8), 500, CPU)
    assert (work.epochs, work.steps, work.parts, work.val, work.scenes) == (3, 3, 2, 10, 500)
    assert work.evaluations == 3


def test_as_many_evaluations_as_the_loop_makes(data):
    for epochs, interval in product(range(1, 8), range(1, 9)):
        recipe = replace(RECIPE, epochs=epochs, warmup_epochs=0.0)
        runtime = replace(CPU, val_interval=interval)
        work = Work.of(recipe, data, Sizes(micro_batch=8, mix_group=8), 0, runtime)
        made = sum(is_evaluated(epoch, epochs, interval) for epoch in range(epochs))
        assert work.evaluations == made, (epochs, interval)


def test_turns_have_their_shares_of_the_batches():
    recipe = replace(RECIPE, compose="alternate", switch_prob=0.25, mix_prob=0.5)
    shares = turns(compose(create_strategy("cutmix"), recipe))
    assert [turn.share for turn in shares] == [0.125, 0.375, 0.5]
    assert [type(turn.strategy).__name__ for turn in shares] == ["CutMix", "Mixup", "NoMix"]
    assert turns(create_strategy("none")) == [(create_strategy("none"), None, 1.0)]


class TwoSeconds:
    """A clock on which every part takes two seconds."""

    def __init__(self, device):
        self.device = device

    def __call__(self, part):
        self.part = part

    def seconds(self):
        return {self.part: 2.0}


@pytest.fixture
def sized():
    """A strategy, and the list of how many images each mix had."""
    sizes = []

    @register_strategy("sized")
    @dataclass(frozen=True)
    class Sized(CutMix):
        def mix(self, images, labels, ctx):
            sizes.append(len(images))
            return super().mix(images, labels, ctx)

    return Sized(), sizes


@pytest.mark.parametrize(("group", "tried"), [(48, 4), (4, 4)])
def test_a_slow_step_is_tried_with_few_images(group, tried, sized, monkeypatch):
    monkeypatch.setattr(trial, "Clock", TwoSeconds)
    strategy, seen = sized
    recipe = replace(RECIPE, mix_prob=1.0, batch_size=48)
    sizes = Sizes(micro_batch=48, mix_group=group)
    [tried_once] = try_strategies([strategy], recipe, 10, sizes, CPU)
    assert max(seen) == tried
    assert tried_once.step == 2.0 * 48 / 4 and tried_once.update == 2.0
    assert tried_once.evaluation == pytest.approx(2.0 / 4) and tried_once.models == 1


def test_a_fast_step_is_tried_whole(sized):
    strategy, seen = sized
    recipe = replace(RECIPE, mix_prob=1.0, batch_size=48)
    [tried] = try_strategies([strategy], recipe, 10, Sizes(micro_batch=48, mix_group=48), CPU)
    assert 48 in seen and tried.step > 0


def test_what_stays_is_counted_by_hand():
    """AdamW keeps two values of each weight and a step of each tensor; the gradients are a copy."""
    recipe, none = replace(RECIPE, model_ema=True), create_strategy("none")
    [tried] = try_strategies([none], recipe, 10, Sizes(micro_batch=8, mix_group=8), CPU)
    model = trial.prepare([none], RECIPE, 10, CPU, 1)[0].model
    tensors = list(model.parameters())
    weights = 4 * sum(tensor.numel() for tensor in tensors)
    assert tried.weights == weights and tried.models == 2
    assert tried.held == 5 * weights + 4 * len(tensors)


def test_training_holds_what_was_estimated(data, monkeypatch):
    """Tensors alive after the last part of a step, before its update, counted one by one.

    The strategies keep their gradients until then, where a step has several parts.
    """
    recipe = replace(RECIPE, model_ema=True, epochs=1, warmup_epochs=0.0)
    strategies = create_strategies("none,cutmix,transmix")
    trials = try_strategies(strategies, recipe, 10, Sizes(micro_batch=8, mix_group=8), CPU)
    learners, counts, update = set(), [], Learner.update

    def counting(learner, step):
        learners.add(learner)
        if len(learners) == 3 and step:
            counts.append(sum(map(alive_bytes, learners)))
        update(learner, step)

    monkeypatch.setattr(Learner, "update", counting)
    train(strategies, recipe, data, CPU)
    assert training_memory(trials, 0) == max(counts)  # of whoever is first, others have theirs


def alive_bytes(learner):
    """Bytes of the storages of a learner's tensors, each counted once."""
    state = [v for values in learner.optimizer.state.values() for v in values.values()]
    gradients = [p.grad for p in learner.model.parameters() if p.grad is not None]
    tensors = [*learner.model.parameters(), *learner.model.buffers(), *gradients, *state]
    tensors += [*learner.ema.module.parameters(), *learner.ema.module.buffers()]
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def test_a_second_forward_pass_is_kept_too(monkeypatch):
    sizes, none = Sizes(micro_batch=8, mix_group=8), create_strategy("none")
    twice = create_strategy("puzzlemix(clean_lam=1.0)")
    trials = try_strategies([none, twice], replace(RECIPE, mix_prob=1.0), 10, sizes, CPU)
    assert [trial.passes for trial in trials] == [1, 2]
    monkeypatch.setattr(estimate, "activation_bytes", lambda *_: 100)
    assert image_bytes(trials[:1], sizes, RECIPE, 10, CPU.device) == 100
    assert image_bytes(trials, sizes, RECIPE, 10, CPU.device) == 200
    measured = [replace(trial, on_way=way) for trial, way in zip(trials, (0, 1601), strict=True)]
    assert image_bytes(measured, sizes, RECIPE, 10, torch.device("cuda")) == 201


def test_room_is_what_is_free(monkeypatch):
    monkeypatch.setattr(estimate, "free_memory", lambda: 1000)
    room = room_of(BOTH, 10, torch.device("cpu"))
    assert room == Room(free=1000, held=50, image=10)
    assert [room.strategies(images) for images in (0, 40, 85, 86, 200)] == [18, 10, 1, 0, 0]
    assert room_of([Trial(spec="cannot", failure=Failed("never"))], 0, CPU.device) is None
    figures = {"mem_get_info": (700, 9000), "memory_reserved": 500, "memory_allocated": 200}
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert room_of(BOTH, 10, torch.device("cuda")).free == 700 + 500 - 200


def test_the_likely_micro_batch_of_a_gpu_fits_with_a_quarter_more():
    """Of 64 images: 5/4 x 32 x 10 + 50 is 450, which fits; with 16 in place of 10 it does not."""
    recipe = replace(RECIPE, batch_size=64, micro_batch="auto", mix_group="auto")
    gpu = Runtime(device=torch.device("cuda"))
    room = Room(free=450, held=50, image=10)
    assert sizes_in(room, recipe, gpu) == Sizes(micro_batch=32, mix_group=32)
    assert sizes_in(replace(room, image=11), recipe, gpu).micro_batch == 16
    none_fits = sizes_in(replace(room, free=1), replace(recipe, mix_group=32), gpu)
    assert none_fits == Sizes(micro_batch=64, mix_group=32)  # as without a room
    assert sizes_in(room, RECIPE, CPU) == Sizes(micro_batch=8, mix_group=8)


def test_a_micro_batch_that_a_gpu_does_not_hold_is_not_tried(monkeypatch):
    """Of 128 images at most; where none fits, as without a trial."""
    held = 64
    monkeypatch.setattr(
        estimate, "fits_in_memory", lambda model, recipe, size, device: size <= held
    )
    gpu = Runtime(device=torch.device("cuda"))
    recipe = replace(RECIPE, batch_size=256, micro_batch="auto", mix_group="auto")
    assert tried_sizes(recipe, 10, gpu) == Sizes(micro_batch=64, mix_group=64)
    held = 1000
    assert tried_sizes(recipe, 10, gpu) == Sizes(micro_batch=128, mix_group=128)
    held = 0
    groups = replace(recipe, mix_group=32)
    assert tried_sizes(groups, 10, gpu) == Sizes(micro_batch=128, mix_group=32)
    assert tried_sizes(RECIPE, 10, CPU) == Sizes(micro_batch=8, mix_group=8)


def test_a_system_that_does_not_say_what_is_free_gives_no_room(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "Path", lambda path: tmp_path / "nothing")
    monkeypatch.delattr("os.sysconf")
    assert room_of(BOTH, 10, CPU.device) is None


def test_what_a_step_takes_of_a_gpu_is_beside_what_stays(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 900)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 600)
    assert trial._on_way(torch.device("cuda")) == 300
    assert trial._on_way(torch.device("cpu")) == 0


def test_a_strategy_that_raises_says_why():
    @register_strategy("cannot")
    @dataclass(frozen=True)
    class Cannot(CutMix):
        def mix(self, images, labels, ctx):
            raise RuntimeError("never")

    cannot, none = try_strategies(
        [Cannot(), create_strategy("none")], RECIPE, 10, Sizes(micro_batch=8, mix_group=8), CPU
    )
    assert cannot.failure == Failed("failed: RuntimeError: never") and none.failure is None


@pytest.mark.parametrize("augment_on", ["loader", "device"])
def test_trials_leave_the_generators_alone(data, augment_on):
    recipe = replace(RECIPE, augment_on=augment_on)
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    seconds = estimate_seconds(create_strategies("cutmix"), recipe, data, CPU)
    assert 0 < seconds < 600
    loading = try_loading(data, recipe, 8, CPU)
    assert (
        loading.train > 0 and loading.val > 0 and (loading.augment > 0) == (augment_on == "device")
    )
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


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
