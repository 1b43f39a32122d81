"""The state of training: any damage is seen, and no strategy's part of it is lost."""

import shutil
from dataclasses import replace

import pytest
import torch

from mixbench import create_strategies
from mixbench.data.datasets import open_data
from mixbench.recipe import load_recipe
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import RunRow
from mixbench.runtime import Runtime
from mixbench.training import state
from mixbench.training.loop import train

SPECS = "none,cutmix"
FIELDS = {"embed_dim": 24, "depth": 1, "epochs": 3, "batch_size": 8, "micro_batch": 8}
FLIPS = 400


class Stopped(Exception):
    """What ends a run after some epochs."""


@pytest.fixture(scope="module")
def tiny():
    recipe = load_recipe("quick", FIELDS)
    return recipe, open_data(image_size=32, limit_train=16, limit_val=10)


def runtime(out, lines, **changes):
    fields = {"device": torch.device("cpu"), "out": out, "resume": True, "say": lines.append}
    return Runtime(**(fields | changes))


def go(tiny, out, specs=SPECS, *, stop_after=None):
    """The logs of a run in `out` without their times, and what it said; it may be stopped."""
    recipe, data = tiny
    lines, keep, kept = [], state.keep, []

    def keep_and_stop(*arguments):
        keep(*arguments)
        kept.append(1)
        if len(kept) == stop_after:
            raise Stopped

    state.keep = keep_and_stop
    try:
        learners = train(create_strategies(specs), recipe, data, runtime(out, lines))
    except Stopped:
        return None, lines
    finally:
        state.keep = keep
    logs = {
        learner.spec: [replace(row, seconds=0.0) for row in learner.log] for learner in learners
    }
    return logs, lines


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    logs, _ = go(tiny, tmp_path_factory.mktemp("whole"))
    return logs


@pytest.fixture(scope="module")
def stopped(tiny, tmp_path_factory):
    """A directory whose run was stopped after its second epoch of three."""
    out = tmp_path_factory.mktemp("stopped")
    assert go(tiny, out, stop_after=2)[0] is None
    return out


@pytest.fixture
def out(stopped, tmp_path):
    """A copy of it."""
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def paths(out):
    return RunDirectory(out).states(0)


def flip(path, byte, bit):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def finish(out, spec):
    """Write a strategy's row, as the command does when its seed is done."""
    RunDirectory(out).keep(RunRow(strategy=spec, seed=0, recipe_hash="abc", top1=50.0))


def resumed_past_a_flip(tiny, out, whole, number):
    """Flip the bit of this number, of bytes spread evenly over the file, and go on."""
    newest, _ = paths(out)
    byte = (newest.stat().st_size - 1) * number // (FLIPS - 1)
    flip(newest, byte, number % 8)
    logs, lines = go(tiny, out)
    assert logs == whole
    assert f"{newest} is damaged: going on from the state before it" in lines
    assert "resuming after epoch 1" in lines


@pytest.mark.parametrize("number", [0, 200, 399])
def test_a_run_goes_on_past_a_flipped_bit(number, tiny, out, whole):
    resumed_past_a_flip(tiny, out, whole, number)


@pytest.mark.fuzz
@pytest.mark.parametrize("number", range(FLIPS))
def test_a_run_goes_on_past_every_flipped_bit(number, tiny, out, whole):
    resumed_past_a_flip(tiny, out, whole, number)


def test_every_flipped_bit_is_seen(out):
    newest, _ = paths(out)
    size = newest.stat().st_size
    assert state.sealed(newest)
    for byte in {*range(0, size, size // FLIPS), *range(size - 2 * state.SEAL_BYTES, size)}:
        flip(newest, byte, byte % 8)
        assert not state.sealed(newest)
        flip(newest, byte, byte % 8)
    assert state.sealed(newest)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:1],
        lambda content: content[:-1],
        lambda content: content[:-200],
        lambda content: content[1:],
        lambda content: content + b"\0",
        lambda content: content + content[-72:],
        lambda content: b"\0" * len(content),
        lambda content: content[: -state.SEAL_BYTES],
    ],
)
def test_other_damage_is_seen(damage, out):
    newest, before = paths(out)
    newest.write_bytes(damage(newest.read_bytes()))
    assert not state.sealed(newest) and state.sealed(before)
    assert not state.sealed(newest.with_name("not there"))


def test_two_damaged_states_are_told_and_training_begins_anew(tiny, out, whole):
    for path in paths(out):
        flip(path, 99, 3)
    logs, lines = go(tiny, out)
    newest, before = paths(out)
    assert logs == whole and lines[0] == (
        f"{newest} is damaged and {before} is damaged: what is not finished of seed 0 begins anew"
    )


def test_a_missing_state_is_told_where_the_one_before_it_is_there(tiny, out, whole):
    newest, _ = paths(out)
    newest.unlink()
    logs, lines = go(tiny, out)
    assert logs == whole and f"{newest} is missing: going on from the state before it" in lines
    for path in paths(out):
        path.unlink()
    logs, lines = go(tiny, out)
    assert logs == whole and not any("missing" in line or "resuming" in line for line in lines)


def test_damage_that_one_process_sees_is_everyones(out):
    """As many processes as run take the same state."""

    class World:
        rank, size, answers = 1, 2, iter(["the state is damaged (rank 0)", None])

        def agree(self, error):
            assert error is None
            return next(self.answers)

    lines = []
    other = runtime(out, lines, world=World())
    assert state._intact(RunDirectory(out), other) == paths(out)[1]
    assert lines == ["the state is damaged (rank 0): going on from the state before it"]


def test_a_state_says_how_far_each_strategy_came(out):
    kept = torch.load(paths(out)[0], weights_only=True)
    assert {spec: len(learner["log"]) for spec, learner in kept["learners"].items()} == {
        "none": 2,
        "cutmix": 2,
    }


def test_fewer_strategies_leave_the_others_state(tiny, out, whole):
    logs, lines = go(tiny, out, "cutmix")
    assert logs["cutmix"] == whole["cutmix"] and "resuming after epoch 2" in lines
    finish(out, "cutmix")
    state.clear(["cutmix"], runtime(out, []))
    assert paths(out)[0].is_file()
    logs, lines = go(tiny, out, "none")
    assert logs["none"] == whole["none"] and "resuming after epoch 2" in lines
    finish(out, "none")
    state.clear(["none"], runtime(out, []))
    assert not any(path.exists() for path in paths(out))


def test_those_behind_catch_up(tiny, out, whole):
    """One of two went on alone and was stopped."""
    recipe, data = tiny
    longer = replace(recipe, epochs=5), data
    shutil.rmtree(out)
    assert go(longer, out, stop_after=1)[0] is None
    assert go(longer, out, "cutmix", stop_after=2)[0] is None
    logs, lines = go(longer, out)
    assert logs == go(longer, out.with_name("other"))[0]
    assert "resuming after epoch 1 (none), 3 (cutmix): those behind catch up first" in lines


def test_more_strategies_are_refused_in_the_middle_of_a_seed(tiny, out, whole):
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for specs in ("none,cutmix,mixup", "mixup"):
        with pytest.raises(ValueError, match=r"in the middle of training cutmix, none, and mixup"):
            go(tiny, out, specs)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    finish(out, "cutmix")
    with pytest.raises(ValueError, match="in the middle of training none, and mixup cannot join"):
        go(tiny, out, "none,mixup")
    finish(out, "none")  # killed before the state was cleared
    logs, _ = go(tiny, out, "mixup")
    assert len(logs["mixup"]) == 3


def test_a_state_of_another_run_is_refused(tiny, out):
    recipe, data = tiny
    others = [
        (replace(recipe, lr=0.1), data),
        (recipe, open_data(image_size=32, limit_train=16, limit_val=11)),
        (recipe, replace(data, classes=data.classes[::-1])),
    ]
    for other in others:
        with pytest.raises(ValueError, match="is of another recipe or other data than this run"):
            go(other, out)


def test_weights_say_what_they_were_trained_on(tiny, tmp_path):
    _, data = tiny
    go(tiny, tmp_path)
    weights = torch.load(RunDirectory(tmp_path).seed("cutmix", 0).weights, weights_only=True)
    assert weights["data"]["train_images"] == 16 and weights["data"]["val_images"] == 10
    assert weights["data"]["train"] == data.train.fingerprint
