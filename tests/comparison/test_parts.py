"""The parts of a comparison that need no training."""

import pytest
import torch

from mixbench import create_strategies, strategy_spec
from mixbench.comparison import accuracy
from mixbench.comparison.cost import training_cost
from mixbench.comparison.plan import Plan, plan_data
from mixbench.comparison.results import Results
from mixbench.comparison.screen import Screen, duration
from mixbench.recipe import load_recipe
from mixbench.report.answer import answer_of
from mixbench.report.summary import compare_runs
from mixbench.runs.directory import RunDirectory
from mixbench.runtime import Runtime
from tests.support.rows import run_row, write_run


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
    object.__setattr__(data, "scene_area", None)
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
    assert capsys.readouterr().out == "seed 0  step 2/9  7.1 minutes left\n"
    Screen(speaks=False).say("not the first process")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("first", "later", "words"),
    [
        (1, 0.0, "step 5/9  4.0 minutes left"),  # 4 steps took 4 minutes, 4 are left
        (1, 2.0, "step 5/9  22.0 minutes left"),  # and 18 of two seeds to come
        (4, 0.5, "step 5/9  34.0 minutes left"),  # resumed: 1 step took 4 minutes
        (5, 2.0, "step 5/9"),  # nothing was measured yet
    ],
)
def test_the_time_left_is_of_the_whole_run(first, later, words, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    screen = Screen(speaks=True)
    with screen.counting("training", "step", later) as tick:
        if first < 5:
            tick(first, 9)
        now[0] = 240.0
        tick(5, 9)
    assert capsys.readouterr().out == f"{words}\n"


def test_the_seeds_to_come_count_by_what_is_missing_in_them(tmp_path, monkeypatch):
    """Of seed 1 one of two strategies is finished: half of seed 0's work is left of it."""
    heard = []

    def train(strategies, *_, later, **__):
        heard.append((len(strategies), later))
        return [run_row(strategy_spec(strategy)) for strategy in strategies]

    monkeypatch.setattr(accuracy, "_train_seed", train)
    monkeypatch.setattr(accuracy, "clear_state", lambda *_: None)
    three = plan(tmp_path, workers=0)
    RunDirectory(tmp_path).keep(run_row("cutmix", 1))
    runtime = Runtime(device=torch.device("cpu"))
    assert len(list(accuracy.train_seeds(three, None, "abc", runtime, None))) == 3
    assert heard == [(2, 1.5), (1, 2.0), (2, 0.0)]


def test_the_identity_is_of_recipe_data_and_limits(tmp_path):
    whole, limited = plan(tmp_path), plan(tmp_path, limit_val=20)
    identity = limited.identity(plan_data(limited))
    assert (identity.source, identity.limit_train, identity.limit_val) == ("scenes", None, 20)
    assert identity.data.val_images == 20 and identity.data.train_images == 3000
    assert identity.data != whole.identity(plan_data(whole)).data


def test_screen_markdown_and_page_are_of_the_same_rows(tmp_path, capsys):
    """Also of a strategy that an earlier command trained, since the correction counts it."""
    specs = ("cutmix", "transmix", "mixup")
    rows = [run_row(s, seed, 70.0 + i + seed * i) for seed in (0, 1) for i, s in enumerate(specs)]
    write_run(tmp_path, rows)
    results = Results(plan(tmp_path, resume=True), "abc", runs=rows[:2] + rows[3:5])
    results.begin(
        Runtime(device=torch.device("cpu"), out=tmp_path, say=lambda line: None), ("ant", "bee")
    )
    results.write()
    capsys.readouterr()
    screen = Screen(speaks=True)
    results.show(Runtime(device=torch.device("cpu"), out=tmp_path, say=screen.say), screen)
    tables = results.tables()
    sentence = answer_of(tables, compare_runs(tables.runs)).sentence
    assert sentence.startswith("2 seeds are too few to tell transmix and mixup from cutmix")
    places = RunDirectory(tmp_path)
    assert sentence in places.markdown.read_text() and sentence in places.report.read_text()
    assert sentence in " ".join(capsys.readouterr().out.split())
