"""Two gloo processes see the images, draws and gradients of one that accumulates twice."""

import os
import socket
import time
from dataclasses import dataclass, replace

import pytest
import torch

from mixbench import create_strategies, distributed, register_strategy
from mixbench.data.datasets import open_data
from mixbench.distributed import World
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime
from mixbench.strategies.cutmix import CutMix
from mixbench.training.batches import resolve_sizes
from mixbench.training.loop import train
from tests.support import kills

SPECS = ["none", "cutmix", "transmix", "puzzlemix"]
SLOW = 0.3  # seconds
SMALL = {"embed_dim": 24, "depth": 1, "epochs": 1, "batch_size": 16, "micro_batch": 8}


def join(rank, size, port):
    """Join the other processes as torchrun's children do; the runtime."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    return Runtime(device=torch.device("cpu"), world=distributed.join("cpu"))


def _first_gradients(rank, size, port, folder):
    """Train one step of 16 images; save its gradients and the evaluation after the epoch."""
    gradients = []
    torch.nn.utils.clip_grad_norm_ = lambda parameters, norm: gradients.append(
        [p.grad.clone() for p in parameters]
    )
    runtime = join(rank, size, port)
    recipe = load_recipe(
        "quick", SMALL | {"depth": 2, "drop_path": 0.3, "mix_prob": 1.0, "clip_grad": 1.0}
    )
    data = open_data(image_size=32, limit_train=16, limit_val=37)
    learners = train(create_strategies(", ".join(SPECS)), recipe, data, runtime)
    content = {
        "gradients": gradients,
        "log": [learner.log[0].train_loss for learner in learners],
        "rank": [learner.evaluation.rank for learner in learners],
        "predicted": [learner.evaluation.predicted for learner in learners],
        "nll": [learner.evaluation.nll for learner in learners],
        "brier": [learner.evaluation.brier for learner in learners],
        "failures": [learner.failure for learner in learners],
    }
    torch.save(content, f"{folder}/{size}-{rank}.pt")
    distributed.leave(runtime.world)


def _failing(rank, size, port, folder):
    """Train a strategy that raises in the second process alone, and save the failures."""

    @register_strategy("raises")
    @dataclass(frozen=True)
    class Raises(CutMix):
        def mix(self, images, labels, ctx):
            if rank == 1:
                raise RuntimeError("on one rank alone")
            return super().mix(images, labels, ctx)

    runtime = join(rank, size, port)
    recipe = load_recipe("quick", SMALL | {"mix_prob": 1.0})
    _train_and_save("raises,cutmix", recipe, runtime, folder)


def _failing_in_gradients(rank, size, port, folder):
    """Train where the second process has no room for the first learner's gradients."""
    flatten, calls = World.flat_gradients, []

    def full(self, model):
        calls.append(model)
        if rank == 1 and len(calls) == 1:
            raise torch.OutOfMemoryError("no room for a copy")
        return flatten(self, model)

    World.flat_gradients = full
    runtime = join(rank, size, port)
    _train_and_save("none,cutmix", load_recipe("quick", SMALL), runtime, folder)


def _failing_in_the_last_update(rank, size, port, folder):
    """Train where the second process cannot make the second learner's last update."""
    calls = []

    def clip(parameters, norm):
        calls.append(norm)
        if rank == 1 and len(calls) == 3:  # the second step begins with the second learner
            raise RuntimeError("no last update")

    torch.nn.utils.clip_grad_norm_ = clip
    runtime = join(rank, size, port)
    _train_and_save(
        "none,cutmix", load_recipe("quick", SMALL | {"clip_grad": 1.0}), runtime, folder
    )


def _slow_on_one_rank(rank, size, port, folder):
    """Train a strategy that takes its time in the second process, and save the seconds."""

    @register_strategy("slow")
    @dataclass(frozen=True)
    class Slow(CutMix):
        def mix(self, images, labels, ctx):
            if rank == 1:
                time.sleep(SLOW)
            return super().mix(images, labels, ctx)

    runtime = join(rank, size, port)
    recipe = load_recipe("quick", SMALL | {"mix_prob": 1.0})
    data = open_data(image_size=32, limit_train=32, limit_val=10)
    [learner] = train(create_strategies("slow"), recipe, data, runtime)
    torch.save(learner.seconds, f"{folder}/{rank}.pt")
    distributed.leave(runtime.world)


def _evaluating_now_and_then(rank, size, port, folder):
    """Train three epochs, evaluated after each, then after the second and the last; save both."""
    runtime = join(rank, size, port)
    recipe = load_recipe("quick", SMALL | {"epochs": 3, "warmup_epochs": 0.0})
    data = open_data(image_size=32, limit_train=16, limit_val=11)
    content = {}
    for interval in (1, 2):
        each = replace(runtime, val_interval=interval)
        learners = train(create_strategies("cutmix,transmix"), recipe, data, each)
        content[interval] = [
            ([row.top1 for row in learner.log], learner.log[-1].train_loss, learner.evaluation.nll)
            for learner in learners
        ]
    torch.save(content, f"{folder}/{rank}.pt")
    distributed.leave(runtime.world)


def _with_running_statistics(rank, size, port, folder):
    """Give each rank statistics of its own, then train a convolutional network."""
    runtime = join(rank, size, port)
    norms = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.BatchNorm1d(1))
    with torch.no_grad():
        norms[0].running_mean += torch.tensor([1.0, 5.0]) * rank
        norms[1].running_var *= 3 + rank
        norms[1].num_batches_tracked += rank
        norms[1].weight.fill_(rank)
    runtime.world.average_statistics(norms)
    recipe = load_recipe(
        "quick",
        {
            "model": "test_resnet",
            **dict.fromkeys(("patch_size", "embed_dim", "depth", "num_heads")),
            **{"epochs": 2, "batch_size": 16, "micro_batch": 4, "drop_path": 0.0},
            **{"model_ema": True, "headline": "ema", "model_ema_decay": 0.5},
        },
    )
    data = open_data(image_size=32, limit_train=32, limit_val=10)
    [learner] = train(create_strategies("cutmix"), recipe, data, runtime)
    trained = [model.state_dict() for model in learner.models]
    torch.save([norms.state_dict(), *trained, learner.evaluation.nll], f"{folder}/{rank}.pt")
    distributed.leave(runtime.world)


def _train_and_save(specs, recipe, runtime, folder):
    data = open_data(image_size=32, limit_train=32, limit_val=10)
    learners = train(create_strategies(specs), recipe, data, runtime)
    reasons = [learner.failure and learner.failure.reason for learner in learners]
    torch.save(reasons, f"{folder}/{runtime.world.rank}.pt")
    distributed.leave(runtime.world)


def together(work, size, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        kills.PROCESSES.Process(target=work, args=(rank, size, port, str(folder)))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0] * size


def test_two_processes_equal_one_with_two_accumulation_steps(tmp_path):
    for size in (1, 2):
        together(_first_gradients, size, tmp_path)
    alone, *two = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1")
    )
    assert alone["failures"] == [None] * len(SPECS)
    for other in two:
        for spec, mine, theirs in zip(SPECS, alone["gradients"], other["gradients"], strict=True):
            for a, b in zip(mine, theirs, strict=True):
                assert torch.allclose(a, b, atol=1e-6), spec
        assert other["log"] == pytest.approx(alone["log"], abs=1e-6)
        assert len(other["rank"][0]) == 37  # image by image in the data set's order
        for name in ("rank", "predicted"):
            assert all(torch.equal(a, b) for a, b in zip(alone[name], other[name], strict=True))
        for name in ("nll", "brier"):
            pairs = zip(alone[name], other[name], strict=True)
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in pairs)
    assert not torch.equal(alone["gradients"][0][0], alone["gradients"][1][0])


def test_all_ranks_agree_that_a_strategy_failed(tmp_path):
    together(_failing, 2, tmp_path)
    for rank in range(2):
        failed = "failed: RuntimeError: on one rank alone (rank 1)"
        assert torch.load(tmp_path / f"{rank}.pt") == [failed, None]


def test_an_error_on_one_rank_in_its_gradients_stops_that_strategy_alone(tmp_path):
    together(_failing_in_gradients, 2, tmp_path)
    for rank in range(2):
        failed = "out of memory: lower --micro-batch, and --mix-group with it (rank 1)"
        assert torch.load(tmp_path / f"{rank}.pt") == [failed, None]


def test_an_update_that_fails_on_one_rank_ends_that_strategy_on_all(tmp_path):
    together(_failing_in_the_last_update, 2, tmp_path)
    for rank in range(2):
        failed = "failed: RuntimeError: no last update (rank 1)"
        assert torch.load(tmp_path / f"{rank}.pt") == [None, failed]


def test_all_ranks_evaluate_after_the_same_epochs(tmp_path):
    together(_evaluating_now_and_then, 2, tmp_path)
    for rank in (0, 1):
        content = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for every, sparse in zip(content[1], content[2], strict=True):
            assert None not in every[0] and sparse[0] == [None, *every[0][1:]]
            assert sparse[1] == every[1] and torch.equal(sparse[2], every[2])


def test_all_ranks_go_on_with_the_mean_of_running_statistics(tmp_path):
    together(_with_running_statistics, 2, tmp_path)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for rank, (norms, raw, ema, _) in enumerate(ranks):
        assert norms["0.running_mean"].tolist() == [0.5, 2.5]
        assert norms["1.running_var"].tolist() == [3.5]
        assert norms["1.num_batches_tracked"] == rank and norms["1.weight"].tolist() == [rank]
        for model, other in ((raw, ranks[0][1]), (ema, ranks[0][2])):
            moved = [name for name in model if "running_" in name]
            assert len(moved) > 5 and all(model[name].any() for name in moved)
            assert all(torch.equal(model[name], other[name]) for name in model)
    assert torch.equal(ranks[0][3], ranks[1][3])


def test_waiting_for_a_slow_process_is_part_of_the_training_time(tmp_path):
    together(_slow_on_one_rank, 2, tmp_path)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") > 2 * SLOW  # two steps


def test_a_batch_that_processes_cannot_share_is_refused():
    recipe = load_recipe("quick", {"batch_size": 16, "micro_batch": 8})
    assert resolve_sizes(recipe, torch.device("cpu"), processes=2).micro_batch == 8
    assert resolve_sizes(recipe, torch.device("cpu"), processes=4).micro_batch == 4
    with pytest.raises(ValueError, match="multiple of 3"):
        resolve_sizes(recipe, torch.device("cpu"), processes=3)


def test_alone_nothing_is_exchanged():
    world, value = World(), torch.ones(2)
    assert (
        world.agree("no") == "no"
        and world.agree(None) is None
        and world.total(value) is value
        and world.lowest(value) is value
    )
