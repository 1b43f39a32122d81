"""The parts of a comparison that need no training."""

import pytest

from mixbench import create_strategies
from mixbench.comparison import accuracy
from mixbench.comparison.cost import duration, training_cost
from mixbench.comparison.plan import Plan, plan_data
from mixbench.comparison.screen import Screen
from mixbench.recipe import load_recipe


def plan(tmp_path, **changes):
    fields = {
        "strategies": create_strategies("cutmix,transmix"),
        "recipe": load_recipe("quick"),
        "seeds": (0, 1, 2),
        "out": tmp_path,
        "command": "python bench.py",
    }
    return Plan(**(fields | changes))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 seconds"),
        (89, "89 seconds"),
        (90, "1.5 minutes"),
        (5400, "1.5 hours"),
        (2.5 * 86400, "2.5 days"),
        (1e9, "11,574.1 days"),
    ],
)
def test_times_as_a_person_says_them(seconds, words):
    assert duration(seconds) == words


def test_the_cost_is_counted_by_hand(tmp_path):
    """DeiT-S of 10 classes: 22,050,664 parameters less 990 x 385, and 4.6 G multiply-adds.

    48 of 50 images fill batches of 16.
    """
    fields = {"batch_size": 16, "epochs": 2, "cooldown_epochs": 0, "warmup_epochs": 0}
    recipe = load_recipe("deit_small", fields)
    limited = plan(tmp_path, recipe=recipe, limit_train=50, seeds=(0,))
    text = training_cost(limited, plan_data(limited))
    assert text.startswith("96 images for each strategy and seed; 21.67M")
    flops = float(text.partition("parameters; ")[2].partition(" PFLOP")[0])
    assert flops == pytest.approx(6 * 4.6e9 * 96 * 2 / 1e15, rel=0.01)


def test_loader_processes_follow_the_data_and_the_cores(tmp_path, monkeypatch):
    data = plan_data(plan(tmp_path, limit_train=10, limit_val=10))
    assert accuracy.workers(plan(tmp_path), data) == 0  # drawn, not decoded
    assert accuracy.workers(plan(tmp_path, workers=3), data) == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    object.__setattr__(data, "drawn", False)
    assert accuracy.workers(plan(tmp_path), data) == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert accuracy.workers(plan(tmp_path), data) == 1
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert accuracy.workers(plan(tmp_path), data) == 8


def test_a_log_that_was_quiet_gets_a_line(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    screen = Screen(speaks=True)
    with screen.counting("training", "seed 0  step") as tick:
        tick(1, 9)
        now[0] = 61.0
        tick(2, 9)
        now[0] = 62.0
        tick(3, 9)
    assert capsys.readouterr().out == "seed 0  step 2/9\n"
    Screen(speaks=False).say("not the first process")
    assert capsys.readouterr().out == ""


def test_the_identity_is_of_recipe_data_and_limits(tmp_path):
    whole, limited = plan(tmp_path), plan(tmp_path, limit_val=20)
    identity = limited.identity(plan_data(limited))
    assert (identity.source, identity.limit_train, identity.limit_val) == ("scenes", None, 20)
    assert identity.data.val_images == 20 and identity.data.train_images == 3000
    assert identity.data != whole.identity(plan_data(whole)).data
