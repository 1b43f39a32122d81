"""Strategies that train in groups, one after another: every figure as side by side."""

import shutil
from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure

from mixbench import create_strategies, strategy_spec
from mixbench.cli import main
from mixbench.comparison import accuracy, cost
from mixbench.comparison.accuracy import groups_of
from mixbench.comparison.cost import Cost, expected_cost, room_sentence
from mixbench.comparison.plan import Plan, plan_data
from mixbench.recipe import load_recipe
from mixbench.runs.directory import RunDirectory
from mixbench.runs.samples import read_images
from mixbench.runtime import Runtime
from mixbench.training import estimate
from mixbench.training.batches import Sizes
from mixbench.training.estimate import Room
from mixbench.training.learner import Learner
from mixbench.training.trial import Loading, Trial
from tests.support import blank, kills, ranks
from tests.support.faults import PLUGIN

SPECS = "cutmix,transmix,oacutmix"  # objects are loaded in the group of the last one alone
OPTIONS = [
    *("--embed-dim", "24", "--depth", "2", "--drop-path", "0.3", "--mode", "accuracy"),
    *("--batch-size", "16", "--micro-batch", "8", "--epochs", "3", "--warmup-epochs", "1"),
    *("--limit-train", "48", "--limit-val", "20", "--model-ema", "--headline", "ema"),
]
GIB = 2**30
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch):
    monkeypatch.setattr(Figure, "savefig", blank.savefig)


def go(out, *options, specs=SPECS):
    return main(["--strategies", specs, "--out", str(out), *OPTIONS, *options])


def everything(out):
    """All that a run says of its strategies, but times and dates."""
    directory, content = RunDirectory(out), {}
    for spec in SPECS.split(","):
        folder = directory.seed(spec, 0)
        log = [line.rpartition(",")[0] for line in folder.log.read_text().splitlines()]
        images = read_images(folder.images)
        weights = torch.load(folder.weights, weights_only=True)
        content[spec] = {
            "log": log,
            "lam": folder.lam.read_text(),
            "nll": images.nll.tolist(),
            "predicted": images.predicted.tolist(),
            "weights": weights["state_dict"],
            "average": weights["state_dict_ema"],
        }
        assert log[0].startswith("epoch,") and len(log) == 4
    return kills.figures(out), content


def assert_same(out, other):
    """Whether two runs agree in every bit."""
    (rows, content), (rows2, content2) = everything(out), everything(other)
    assert rows == rows2 and len(rows) == 3 and all(row["top1"] for row in rows)
    for spec in content:
        for name, value in content[spec].items():
            if name in ("weights", "average"):
                assert value.keys() == content2[spec][name].keys()
                assert all(torch.equal(value[key], content2[spec][name][key]) for key in value)
            else:
                assert value == content2[spec][name], (spec, name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of all three side by side."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", blank.savefig)
        assert go(out) == 0
    return out


@pytest.mark.parametrize(("size", "sizes"), [(1, "3 groups (1, 1, 1)"), (2, "2 groups (2, 1)")])
def test_groups_have_the_figures_of_all_side_by_side(size, sizes, whole, tmp_path, capsys):
    assert go(tmp_path / "run", "--side-by-side", str(size)) == 0
    assert f"seed 0  3 strategies train in {sizes}, one after another" in capsys.readouterr().out
    assert_same(tmp_path / "run", whole)
    assert not list((tmp_path / "run").glob("state*"))
    gallery = [
        sorted(p.name for p in (out / "gallery").iterdir()) for out in (tmp_path / "run", whole)
    ]
    assert gallery[0] == gallery[1]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run in groups of one that ended in the second epoch of the second strategy."""
    out, calls = tmp_path_factory.mktemp("killed") / "run", []
    accumulate = Learner.accumulate

    def stopping(learner, micro):
        calls.append(micro.group is not None and learner.spec)
        trained = [spec for spec in calls if spec]
        if trained.count("transmix") == before["transmix"] + 9:
            raise KeyboardInterrupt
        accumulate(learner, micro)

    with pytest.MonkeyPatch.context() as patch:
        before = {"transmix": 10**9}
        begun = accuracy.begun_before

        def after_the_trials(*arguments):
            before["transmix"] = calls.count("transmix")
            return begun(*arguments)

        patch.setattr(accuracy, "begun_before", after_the_trials)
        patch.setattr(Learner, "accumulate", stopping)
        assert go(out, "--side-by-side", "1") == 130
    finished = RunDirectory(out).results()
    assert [spec for spec, _ in finished] == ["cutmix"] and list(out.glob("state-seed0.pt"))
    return out


@pytest.mark.parametrize("size", [1, 3])
def test_what_was_killed_in_its_second_group_goes_on_to_the_same_figures(
    size, killed, whole, tmp_path, capsys
):
    """Also in other groups than before: who was in the middle of training goes first."""
    out = tmp_path / "run"
    shutil.copytree(killed, out)
    assert go(out, "--side-by-side", str(size), "--resume") == 0
    said = capsys.readouterr().out
    assert "resuming after epoch 1" in said and "epoch 1/3  cutmix" not in said
    assert "epoch 1/3  transmix" not in said and "2 groups (1, 1)" in said
    assert_same(out, whole)


def test_all_that_were_in_the_middle_may_go_on_one_by_one(whole, tmp_path, monkeypatch):
    out, calls = tmp_path / "run", []
    evaluate_epoch = accuracy.train.__globals__["evaluate_epoch"]

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        evaluate_epoch(*arguments)

    with monkeypatch.context() as patch:
        patch.setitem(accuracy.train.__globals__, "evaluate_epoch", stopping)
        assert go(out) == 130
    assert go(out, "--side-by-side", "1", "--resume") == 0
    assert_same(out, whole)


def test_a_strategy_that_fails_in_a_group_leaves_the_next_alone(tmp_path, capsys):
    plugin = tmp_path / "fails.py"
    plugin.write_text(
        PLUGIN
        + """
@register_strategy("fails")
@dataclass(frozen=True)
class Fails(CutMix):
    def mix(self, images, labels, ctx):
        raise RuntimeError("no luck")
"""
    )
    options = ("--plugin", str(plugin), "--side-by-side", "1", "--resume")
    assert go(tmp_path / "run", *options, specs="fails,none") == 1
    rows = kills.figures(tmp_path / "run")
    assert [row["status"] for row in rows] == ["failed: RuntimeError: no luck", "ok"]


def test_processes_agree_on_the_smallest_groups(tmp_path):
    """One says that two fit, the other that one does."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        PLUGIN
        + """
from mixbench.training.estimate import Room
Room.strategies = lambda room, micro_batch: 2 - int(os.environ["RANK"])
"""
    )
    argv = ["--strategies", "none,cutmix", "--out", str(tmp_path / "run"), *kills.TINY]
    argv += ["--micro-batch", "4", "--epochs", "1", "--mode", "accuracy"]
    ends = ranks.run(tmp_path, [[*argv, "--plugin", str(plugin)]] * 2)
    assert [end.status for end in ends] == [0, 0], ends
    assert "2 strategies train in 2 groups (1, 1), one after another" in ends[0].text
    assert [row["status"] for row in kills.figures(tmp_path / "run")] == ["ok", "ok"]


def test_those_in_the_middle_of_training_come_first():
    strategies = create_strategies("none,mixup,cutmix,transmix,gridmix")

    def specs(at_once, begun=()):
        return [
            [strategy_spec(s) for s in group] for group in groups_of(strategies, at_once, begun)
        ]

    assert specs(5) == [["none", "mixup", "cutmix", "transmix", "gridmix"]]
    assert specs(2) == [["none", "mixup"], ["cutmix", "transmix"], ["gridmix"]]
    assert specs(3, {"gridmix", "mixup"}) == [["mixup", "gridmix"], ["none", "cutmix", "transmix"]]
    assert specs(1, {"transmix"})[0] == ["transmix"]


# What is said, and counted.


def plan(tmp_path, **changes):
    fields = {
        "strategies": create_strategies("none,cutmix,transmix"),
        "recipe": load_recipe("quick", {"epochs": 2, "warmup_epochs": 0.0, "batch_size": 16}),
        "seeds": (0, 1),
        "out": tmp_path,
        "command": "python bench.py",
        "mode": "accuracy",
        "limit_train": 40,
        "limit_val": 10,
    }
    return Plan(**(fields | changes))


@pytest.fixture
def measured(monkeypatch):
    """Trials of two seconds a step, loading of one second an image, and 350 MB that are free."""
    trials = [
        Trial(spec=spec, step=2.0, weights=20, held=held)
        for spec, held in (("none", 80), ("cutmix", 80), ("transmix", 100))
    ]
    loading = Loading(train=1.0, val=0.0, first_train=1.0, first_val=0.0)
    monkeypatch.setattr(cost, "try_strategies", lambda strategies, *_: trials)
    monkeypatch.setattr(cost, "try_loading", lambda *_: loading)
    monkeypatch.setattr(cost, "image_bytes", lambda *_: 5)
    monkeypatch.setattr(estimate, "free_memory", lambda: 350)
    monkeypatch.setattr(cost, "resident_memory", lambda: 1000)


def test_time_and_memory_are_counted_by_group(measured, tmp_path, monkeypatch):
    """Two epochs of 32 images in two micro-batches of 16, twice: a second for each image, and two
    seconds a strategy and micro-batch. Of 350 bytes nine tenths are taken: (315 - 16 * 5) // 100.
    """
    three = plan(tmp_path)
    data = plan_data(three)
    asked = [
        expected_cost(replace(three, side_by_side=n), data, "abc", Runtime(device=CPU))
        for n in (None, 3, 1)
    ]
    assert [each.fits for each in asked] == [2, 2, 2]
    assert [each.groups for each in asked] == [(2, 1), (3,), (1, 1, 1)]
    computing = 2 * 2 * (3 * 2 * 2.0)
    assert [each.training for each in asked] == [
        computing + groups * 2 * 2 * 32 * 1.0 for groups in (2, 1, 3)
    ]
    assert [each.memory - 1000 - 80 for each in asked] == [160, 260, 100]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # they share the memory
    halved = expected_cost(three, data, "abc", Runtime(device=CPU))
    assert halved.room.free == 175 and halved.fits == 0 and halved.groups == (1, 1, 1)


@pytest.mark.parametrize(
    ("fits", "groups", "words"),
    [
        (20, (3,), "about 20 strategies fit side by side, at 1.5 GiB each and 2.0 GiB for a micro"),
        (1, (1, 1), "one strategy fits, at 1.5 GiB each and 2.0 GiB for a micro-batch; 2 strategies"
         " train in 2 groups (1, 1), one after another: each reads the images anew, and figures"),
        (0, (1,), "not even one strategy fits, at 1.5 GiB"),
    ],
)  # fmt: skip
def test_how_many_fit_is_said(fits, groups, words):
    room = Room(free=9 * GIB, held=3 * GIB // 2, image=GIB)
    said = room_sentence(
        Cost(room=room, images=2 * GIB, fits=fits, groups=groups, failures={}), CPU
    )
    assert said.startswith("9.0 GiB of memory are free: ") and words in said
    assert room_sentence(Cost(failures={}), CPU) is None


def test_a_dry_run_says_how_many_fit(tmp_path, monkeypatch, capsys):
    assert go(tmp_path / "run", "--dry-run", "--side-by-side", "2") == 0
    said = capsys.readouterr().out
    assert "of memory are free: about " in said and "train in 2 groups (2, 1)" in said
    monkeypatch.setattr(estimate, "free_memory", lambda: 0)
    assert go(tmp_path / "run", "--dry-run") == 0
    assert "not even one strategy fits" in capsys.readouterr().out


def test_what_fits_depends_on_the_micro_batch_that_is_taken(tmp_path, monkeypatch):
    three = plan(tmp_path)
    monkeypatch.setattr(accuracy, "agreed_sizes", lambda *_: Sizes(micro_batch=16, mix_group=16))
    room = Room(free=350, held=100, image=5)

    def at_once(plan, room):
        return accuracy._side_by_side(
            plan.strategies, plan, plan_data(plan), Runtime(device=CPU), room
        )

    assert at_once(three, room) == (Sizes(micro_batch=16, mix_group=16), 2)
    assert at_once(three, replace(room, image=50))[1] == 1
    assert at_once(replace(three, side_by_side=3), room)[1] == 3
    assert at_once(three, None)[1] == 3  # nobody knows
    assert at_once(replace(three, strategies=create_strategies("none")), room) == (None, 1)
