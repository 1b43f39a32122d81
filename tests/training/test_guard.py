"""Whatever a strategy from outside does, its row says which rule it broke and the others go on."""

import functools
import os
import random
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pytest
import torch

from mixbench import MixStrategy, Needs, create_strategies, create_strategy, register_strategy
from mixbench.data.datasets import open_data
from mixbench.mix import MixContext, MixedBatch, ModelOutput, mirrored, step_rng
from mixbench.recipe import load_recipe
from mixbench.registry import BUILTIN
from mixbench.rules import BrokenRule
from mixbench.runtime import Runtime
from mixbench.settings import SETTINGS, settings
from mixbench.strategies.cutmix import CutMix
from mixbench.strategies.mixup import Mixup
from mixbench.training.guard import LOOKS, Guarded, guarded, outsiders
from mixbench.training.loop import train

CPU = torch.device("cpu")


class Odd(CutMix):
    """CutMix that also does something odd before it mixes, with its batch, and when it relabels."""

    def before(self, images, labels, ctx): ...

    def odd(self, mixed):
        return mixed

    def mix(self, images, labels, ctx):
        self.before(images, labels, ctx)
        return self.odd(CutMix.mix(self, images, labels, ctx))


def registered(name="odd", base=Odd, **methods):
    """A class with these methods, registered for the test."""
    return register_strategy(name)(dataclass(frozen=True)(type(name.title(), (base,), methods)))


@pytest.fixture(scope="module")
def tiny():
    fields = {"embed_dim": 24, "depth": 1, "epochs": 1, "batch_size": 16, "mix_prob": 1.0}
    return load_recipe("quick", fields), open_data(image_size=32, limit_train=40, limit_val=20)


def run(tiny, text, say=lambda line: None, **changes):
    recipe, data = tiny
    runtime = Runtime(device=CPU, seed=3, say=say)
    learners = train(create_strategies(text), replace(recipe, **changes), data, runtime)
    return {learner.spec: learner for learner in learners}


def weights(learner):
    return torch.cat([p.detach().flatten() for p in learner.model.parameters()])


@pytest.fixture(scope="module")
def alone(tiny):
    """What CutMix learns without company."""
    return weights(run(tiny, "cutmix")["cutmix"])


def part(**fields):
    """A method `odd` that gives the mixed batch other fields, each made from it."""
    return lambda self, mixed: replace(mixed, **{k: make(mixed) for k, make in fields.items()})


def mixing(function):
    return {"before": lambda self, images, labels, ctx: function(images, labels, ctx)}


def relabelling(function):
    return {"relabel": lambda self, mixed, output: function(mixed, output)}


def raising(error):
    def raise_it(*_):
        raise error

    return raise_it


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class NoException(BaseException): ...


BROKEN = {  # methods, and the sentence of the row
    "mask above 1": ({"odd": part(mask=lambda m: m.mask * 2)}, "mask must lie in [0, 1], not 0 to"),
    "mask nan": ({"odd": part(mask=lambda m: m.mask * torch.nan)}, "mask must lie in [0, 1]"),
    "mask dtype": ({"odd": part(mask=lambda m: m.mask.double())}, "mask must be float32"),
    "mask shape": ({"odd": part(mask=lambda m: m.mask[0])}, "mask must be (B or 1, 1, H or 1"),
    "mask no tensor": ({"odd": part(mask=lambda m: 0.5)}, "mask must be a tensor, not float"),
    "one image": ({"odd": part(images=lambda m: m.images[:1])}, "images must stay (16, 3, 32, 32)"),
    "dtype": ({"odd": part(images=lambda m: m.images.half())}, "images must stay torch.float32"),
    "device": ({"odd": part(images=lambda m: m.images.to("meta"))}, "images must be on cpu"),
    "nan": ({"odd": part(images=lambda m: m.images * torch.nan)}, "images must be finite"),
    "labels": ({"odd": part(labels=lambda m: m.labels.flip(0))}, "labels must stay those of A"),
    "no labels": ({"odd": part(labels=lambda m: m.labels[:3])}, "labels must stay (16,), not (3,)"),
    "partner": ({"odd": part(partner=lambda m: m.partner + 1)}, "partner must name rows"),
    "negative": ({"odd": part(partner=lambda m: m.partner - 16)}, "partner must name rows"),
    "float": ({"odd": part(partner=lambda m: m.partner.float())}, "partner must be int64"),
    "bools": ({"odd": part(partner=lambda m: m.partner > 3)}, "partner must be int64"),
    "few": (
        {"odd": part(partner=lambda m: m.partner[:2])},
        "partner must be (B,), (16,), not (2,)",
    ),
    "graph": (
        {"odd": part(images=lambda m: m.images.requires_grad_())},
        "images must carry no gradient",
    ),
    "memo": (
        {"odd": part(memo=lambda m: {"a": [m.mask.clone().requires_grad_()]})},
        "memo must carry no gradient",
    ),
    "no batch": (
        {"odd": lambda self, mixed: mixed.images},
        "mix must give a MixedBatch, not Tensor",
    ),
    "nothing": ({"odd": lambda self, mixed: None}, "mix must give a MixedBatch, not NoneType"),
    "images in place": (
        mixing(lambda images, labels, ctx: images.zero_()),
        "mix must not change the caller's images in place",
    ),
    "a view in place": (
        mixing(lambda images, labels, ctx: images[0].add_(1)),
        "mix must not change the caller's images in place",
    ),
    "labels in place": (
        mixing(lambda images, labels, ctx: labels.fill_(0)),
        "mix must not change the caller's labels in place",
    ),
    "normalisation in place": (
        mixing(lambda images, labels, ctx: ctx.mean.add_(1)),
        "mix must not change ctx.mean in place",
    ),
    "relabel in place": (
        relabelling(lambda mixed, output: (mixed.images.mul_(2), mixed.lam)[1]),
        "relabel must not change the mixed images in place",
    ),
    "logits in place": (
        relabelling(lambda mixed, output: (output.logits.detach().zero_(), mixed.lam)[1]),
        "relabel must not change output.logits in place",
    ),
    "lam above 1": (relabelling(lambda m, o: m.lam + 1), "lam must lie in [0, 1]"),
    "lam below 0": (relabelling(lambda m, o: m.lam - 1), "lam must lie in [0, 1]"),
    "lam nan": (relabelling(lambda m, o: m.lam * torch.nan), "lam must lie in [0, 1]"),
    "one lam": (relabelling(lambda m, o: m.lam[0]), "relabel must give (B,), (16,), not ()"),
    "lam column": (relabelling(lambda m, o: m.lam[:, None]), "must give (B,), (16,), not (16, 1)"),
    "lam number": (relabelling(lambda m, o: 0.5), "relabel must give a tensor (B,), not float"),
    "lam whole": (relabelling(lambda m, o: m.lam.long()), "lam must be of a floating-point dtype"),
    "lam graph": (
        relabelling(lambda m, o: m.lam + 0 * o.logits.mean()),
        "lam must carry no gradient",
    ),
    "sys.exit": (mixing(raising(SystemExit(3))), "mix must not end the program: SystemExit: 3"),
    "exit later": (relabelling(raising(SystemExit())), "relabel must not end the program"),
    "generator exit": (mixing(raising(GeneratorExit())), "mix must not end the program"),
    "base exception": (mixing(raising(NoException("x"))), "end the program: NoException: x"),
    "stop iteration": (relabelling(raising(StopIteration())), "must not raise StopIteration"),
    "recursion": (mixing(raising(RecursionError("deep"))), "failed: RecursionError: deep"),
    "memory": (mixing(raising(MemoryError())), "failed: MemoryError"),
    "unspeakable": (mixing(raising(Unspeakable())), "Unspeakable, which cannot be shown"),
    "long": (mixing(raising(ValueError("x" * 10**6))), "failed: ValueError: xxx"),
    "lines": (mixing(raising(ValueError("a\n\tb\r\nc"))), "failed: ValueError: a b c"),
    "itself": (
        {"before": lambda self, *_: object.__setattr__(self, "alpha", 2.0)},
        "mix must not change the strategy's field alpha",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_its_strategys_row_alone(tiny, alone, case):
    methods, sentence = BROKEN[case]
    registered(**methods)
    learners = run(tiny, "odd,cutmix")
    reason = learners["odd"].failure.reason
    assert sentence in reason and len(reason) < 400 and "\n" not in reason
    assert learners["cutmix"].failure is None
    assert torch.equal(weights(learners["cutmix"]), alone)
    shared = learners["cutmix"].objective.normalisation.mean
    assert shared.flatten().tolist() == pytest.approx(tiny[0].mean)


def test_ctrl_c_still_interrupts(tiny):
    registered(**mixing(raising(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        run(tiny, "odd,cutmix")


LEFT = []  # a context without a holder would undo itself


class Holder(torch.nn.Module):
    """A part that holds something."""

    def __init__(self, name, value):
        super().__init__()
        setattr(self, name, value)


BUILDS = {  # what build does and gives, and the sentence of the row
    "gradient mode": (
        lambda m: (torch.set_grad_enabled(False), None)[1],
        "build must leave gradient mode (True, not False) as it was",
    ),
    "dtype": (
        lambda m: torch.set_default_dtype(torch.float64),
        "build must leave torch's default dtype",
    ),
    "the model": (lambda m: Holder("student", m), "build must not keep the model in its part"),
    "no copy": (lambda m: Holder("secret", (x for x in ())), "a part that can be copied"),
    "lazy": (lambda m: torch.nn.LazyLinear(2), "whose parameters have sizes"),
    "a list": (lambda m: [torch.nn.Linear(1, 1)], "build must give a torch.nn.Module or None, not"),
    "sys.exit": (raising(SystemExit(3)), "build must not end the program: SystemExit: 3"),
}


@pytest.mark.parametrize("mix_prob", [1.0, 0.5], ids=["alone", "in turn with none"])
@pytest.mark.parametrize("case", BUILDS)
def test_a_build_that_breaks_a_rule_is_its_strategys_row_alone(tiny, case, mix_prob):
    make, sentence = BUILDS[case]
    alone = weights(run(tiny, "cutmix", mix_prob=mix_prob)["cutmix"])
    registered(build=lambda self, model, num_classes, image_size: make(model))
    before = [setting.read() for setting in SETTINGS]
    learners = run(tiny, "odd,cutmix", mix_prob=mix_prob, model_ema=True)
    assert sentence in learners["odd"].failure.reason
    assert learners["cutmix"].failure is None
    assert torch.equal(weights(learners["cutmix"]), alone)
    assert [setting.read() for setting in SETTINGS] == before


def leave_inference_mode(self, mixed):
    LEFT.append(torch.inference_mode())
    LEFT[-1].__enter__()
    return mixed


CHANGED = {
    "gradient mode": lambda *_: torch.set_grad_enabled(False),
    "torch's default dtype": lambda *_: torch.set_default_dtype(torch.float64),
    "torch's default device": lambda *_: torch.set_default_device("meta"),
    "autocast on cpu": lambda *_: torch.set_autocast_enabled("cpu", True),
    "torch's deterministic mode": lambda *_: torch.use_deterministic_algorithms(True),
    "anomaly detection": lambda *_: torch.autograd.set_detect_anomaly(True),
    "torch's number of threads": lambda *_: torch.set_num_threads(torch.get_num_threads() + 1),
    "the precision of float32": lambda *_: torch.set_float32_matmul_precision("medium"),
    "cudnn.benchmark": lambda *_: setattr(torch.backends.cudnn, "benchmark", True),
    "flash attention": lambda *_: torch.backends.cuda.enable_flash_sdp(False),
    "numpy's handling": lambda *_: np.seterr(all="raise"),
    "the working directory": lambda *_: os.chdir("/"),
}


@pytest.mark.parametrize("place", ["odd", "relabel"])
@pytest.mark.parametrize("name", CHANGED)
def test_a_setting_that_is_left_changed_is_put_back_and_named(tiny, alone, name, place):
    def change(self, *given):
        CHANGED[name]()
        return given[0].lam if place == "relabel" else given[0]

    registered(**{place: change})
    before = settings()
    learners = run(tiny, "odd,cutmix")
    assert settings() == before
    method = "mix" if place == "odd" else "relabel"
    assert f"BrokenRule: {method} must leave" in learners["odd"].failure.reason
    assert name in learners["odd"].failure.reason
    assert torch.equal(weights(learners["cutmix"]), alone)


def test_inference_mode_that_is_left_on_is_put_back(tiny, alone):
    registered(odd=leave_inference_mode)
    learners = run(tiny, "odd,cutmix")
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    assert "must leave inference mode" in learners["odd"].failure.reason
    assert torch.equal(weights(learners["cutmix"]), alone)


def test_a_setting_is_put_back_after_an_exception_too(tiny):
    def change(self, *_):
        torch.set_default_dtype(torch.float64)
        raise RuntimeError("in between")

    registered(before=change)
    before = settings()
    reason = run(tiny, "odd")["odd"].failure.reason
    assert settings() == before and reason == "failed: RuntimeError: in between"


def test_every_setting_can_be_read_and_written():
    for setting in SETTINGS:
        setting.write(setting.read())
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)


@pytest.mark.parametrize(
    ("draw", "whose"),
    [
        (lambda: torch.rand(1), "torch's"),
        (lambda: np.random.rand(), "numpy's"),
        (lambda: random.random(), "Python's"),
        (lambda: (torch.rand(1), random.random()), "torch's and Python's"),
    ],
)
def test_a_global_generator_is_warned_of_once_and_put_back(tiny, alone, draw, whose, monkeypatch):
    monkeypatch.setattr("mixbench.training.guard._warned", set())
    registered(before=lambda self, *_: draw() and None)
    lines, states = [], (np.random.get_state()[1].copy(), random.getstate())
    learners = run(tiny, "odd,cutmix", say=lines.append, epochs=2)
    [line] = [line for line in lines if "generator" in line]
    assert line.startswith(f"odd: mix draws from {whose} global generator")
    assert learners["odd"].failure is None
    assert np.array_equal(np.random.get_state()[1], states[0]) and random.getstate() == states[1]
    learners = run(tiny, "transmix(base=odd),cutmix", say=lines.append, mix_prob=0.9)
    learners = run(tiny, "odd,cutmix", say=lines.append)
    assert len([line for line in lines if "generator" in line]) == 1
    assert torch.equal(weights(learners["cutmix"]), alone)


def test_what_keeps_the_rules_trains_as_without_a_guard(tiny, alone):
    """A subclass that changes nothing has the figures of CutMix itself."""
    registered(base=CutMix)
    learner = run(tiny, "odd")["odd"]
    assert isinstance(learner.objective._strategy, Guarded) and learner.failure is None
    assert torch.equal(weights(learner), alone)


def test_inside_a_wrapper_it_is_from_outside_too(tiny, alone):
    registered(**BROKEN["images in place"][0])
    text = "transmix(base=odd),alternate(first=odd),cutmix"
    learners = run(tiny, text)
    for spec in text.split(",")[:2]:
        assert "caller's images in place" in learners[spec].failure.reason
    assert torch.equal(weights(learners["cutmix"]), alone)


def test_who_is_from_outside():
    registered(base=CutMix)
    outside = ["odd", "transmix(base=odd)", "alternate(second=transmix(base=odd))"]
    mine = create_strategy("odd")
    assert all(outsiders(create_strategy(text)) == [mine] for text in outside)
    assert not any(outsiders(create_strategy(name)) for name in BUILTIN)
    ours = create_strategy("transmix")
    assert guarded(ours) is ours

    class Passing(CutMix):
        pass

    Passing.__module__, Passing.__qualname__ = "mixbench.strategies.cutmix", "CutMix"
    assert outsiders(Passing()) == [Passing()]


def declaring(**members):
    return registered(base=CutMix, **members)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"needs": property(raising(RuntimeError("no file")))}, "RuntimeError: no file"),
        ({"needs": property(raising(SystemExit(2)))}, "SystemExit: 2"),
        ({"needs": {"attention": "last"}}, "needs must be a Needs, not dict"),
        ({"needs": Needs(attention=3)}, "attention must be a name or None, not int 3"),
        ({"needs": Needs(network="")}, "network must be a name or None"),
        ({"needs": Needs(pixels=1)}, "pixels must be true or false, not 1"),
        ({"clean_weight": float("nan")}, "clean_weight must be a finite number of 0 or more"),
        ({"clean_weight": -1.0}, "0 or more, not float -1.0"),
        ({"clean_weight": "much"}, "0 or more, not str 'much'"),
        ({"clean_weight": property(raising(KeyError("x")))}, "KeyError: 'x'"),
    ],
)
@pytest.mark.parametrize("text", ["odd", "transmix(base=odd)", "cutmix,odd"])
def test_what_a_strategy_says_of_itself_is_read_at_the_start(members, message, text):
    declaring(**members)
    with pytest.raises(ValueError) as error:
        create_strategies(text)
    assert message in str(error.value) and "odd" in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("member", ["needs", "clean_weight"])
def test_what_fails_later_is_a_row(tiny, alone, member):
    """A file that `needs` looks for may be gone by then."""
    gone = []

    def read(self):
        if gone:
            raise RuntimeError("gone")
        return Needs() if member == "needs" else 0.0

    declaring(**{member: property(read)})
    strategies = create_strategies("odd,cutmix")
    gone.append(1)
    recipe, data = tiny
    broken, cutmix = train(strategies, recipe, data, Runtime(device=CPU, seed=3))
    assert broken.failure.reason == "failed: RuntimeError: gone" and broken.needs == Needs()
    assert torch.equal(weights(cutmix), alone)


def test_needs_are_read_once_in_training(tiny):
    calls = []

    def needs(self):
        calls.append(1)
        return Needs()

    declaring(needs=property(needs))
    [strategy] = create_strategies("odd")
    before = len(calls)
    recipe, data = tiny
    train([strategy], recipe, data, Runtime(device=CPU, seed=3))
    assert len(calls) - before <= 3  # of the learner, the composed strategy, and the guard


def context(device="cpu"):
    mean = torch.zeros(3, 1, 1, device=device)
    return MixContext(rng=step_rng(0, 0), mean=mean, std=mean + 1)


@register_strategy("given")
@dataclass(frozen=True)
class Given(MixStrategy):
    """Mixes and labels as told from outside."""

    def mix(self, images, labels, ctx):
        mask = images.new_full((1, 1, 1, 1), 0.5)
        return MixedBatch(images=images, labels=labels, partner=mirrored(images), mask=mask)


def test_no_wait_for_a_gpu_after_the_first_steps(gpu):
    """A value that Python asked for would be an error."""
    images, labels = torch.randn(4, 3, 8, 8, device="cuda"), torch.arange(4, device="cuda")
    strategy = guarded(Given())
    with pytest.raises(Exception, match=r"DataDependent|_local_scalar_dense"):
        strategy.mix(images, labels, context("cuda"))
    strategy._looks = 0
    mixed = strategy.mix(images, labels, context("cuda"))
    strategy.relabel(mixed, ModelOutput(torch.randn(4, 5, device="cuda")))
    assert gpu.waits == []


@pytest.mark.parametrize(
    ("changes", "bad"),
    [
        ({}, []),
        ({"partner": torch.tensor([3, 2, 1, 4])}, [3]),
        ({"partner": torch.tensor([-1, 2, 1, 0])}, [0]),
        ({"mask": torch.tensor([0.5, 1.5, -0.1, torch.nan]).reshape(4, 1, 1, 1)}, [1, 2, 3]),
        ({"mask": torch.full((1, 1, 2, 1), 2.0)}, [0, 1, 2, 3]),
        ({"labels": torch.tensor([0, 1, 9, 3])}, [2]),
    ],
)
def test_without_a_look_a_broken_row_has_no_finite_label(changes, bad):
    """What runs on a GPU after the first steps: nothing breaks the device, and the loss tells."""
    from mixbench.training.guard import _without_a_look

    images, labels = torch.randn(4, 3, 2, 2), torch.arange(4)
    mixed = MixedBatch(
        images=images, labels=labels, partner=mirrored(images), mask=torch.full((1, 1, 1, 1), 0.5)
    )
    safe = _without_a_look(replace(mixed, **changes), labels)
    lam = guarded(Given()).relabel(safe, ModelOutput(torch.zeros(4, 5)))
    assert lam.isnan().nonzero().flatten().tolist() == bad
    assert torch.equal(safe.labels, labels)
    assert 0 <= int(safe.partner.min()) <= int(safe.partner.max()) < 4


def test_numbers_are_looked_at_in_every_step_on_a_cpu(tiny, alone):
    calls = []

    def odd(self, mixed):
        calls.append(1)
        return replace(mixed, mask=mixed.mask + (len(calls) > LOOKS + 1))

    registered(odd=odd)
    learners = run(tiny, "odd,cutmix", epochs=3)
    assert "mask must lie in [0, 1]" in learners["odd"].failure.reason
    assert len(calls) == LOOKS + 2
    assert torch.equal(weights(run(tiny, "cutmix")["cutmix"]), alone)


def test_a_strategy_that_changes_itself_is_not_the_others(tiny):
    """It works on a copy: the one that names rows and files stays as it was."""

    def change(self, *_):
        self.sizes.append(1)

    @register_strategy("lists")
    @dataclass(frozen=True, eq=False)
    class Lists(Odd):
        sizes: list = field(default_factory=list)
        before = change

        def __eq__(self, other):
            return type(self) is type(other)

        def __hash__(self):
            return 1

    [strategy] = create_strategies("lists")
    recipe, data = tiny
    [learner] = train([strategy], recipe, data, Runtime(device=CPU))
    assert strategy.sizes == [] and learner.spec == "lists"


def test_labels_errors_pictures_and_speeds_hold_it_too(tiny):
    from mixbench.data.normalisation import Normalisation
    from mixbench.data.scenes import draw_scene
    from mixbench.evaluations.label_error import label_error
    from mixbench.evaluations.speed import measure
    from mixbench.report.gallery import Examples, Shown, furthest_mixes
    from mixbench.rules import BrokenRule
    from mixbench.training.forward import Network

    registered(**BROKEN["images in place"][0])
    [strategy] = create_strategies("odd")
    model = run(tiny, "none")["none"].model
    normalisation = Normalisation.of((0.5,) * 3, (0.2,) * 3)
    scenes = [draw_scene(0, index, 32) for index in range(4)]
    with pytest.raises(BrokenRule, match="in place"):
        label_error(strategy, Network(model), scenes, normalisation)
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    before = images.clone()
    shown = Shown(spec="odd", strategy=strategy, network=Network(model))
    with pytest.raises(BrokenRule, match="in place"):
        examples = Examples(images=images, labels=labels, objects=torch.zeros(4, 1, 32, 32))
        furthest_mixes([shown], examples, "abcd", normalisation)
    assert torch.equal(images, before)
    recipe = replace(tiny[0], speed_model="test_vit", speed_image_size=160, speed_batch_size=2)
    rows = {row.strategy: row for row in measure([strategy], recipe, 1, Runtime(device=CPU))}
    assert "in place" in rows["odd"].status and rows["cutmix"].status == "ok"


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (raising(SystemExit(3)), "move must not end the program: SystemExit: 3"),
        (lambda maps: (maps.add_(1), maps[:1]), r"move must give two maps \(4, 1, 8, 8\)"),
        (lambda maps: maps, r"move must give two maps \(4, 1, 8, 8\)"),
        (lambda maps: None, r"move must give two maps \(4, 1, 8, 8\)"),
    ],
)
def test_a_move_that_breaks_a_rule_is_held_when_it_is_used(move, message):
    strategy = registered(odd=part(move=lambda mixed: move))()
    mixed = guarded(strategy).mix(torch.randn(4, 3, 8, 8), torch.arange(4), context())
    maps = torch.zeros(4, 1, 8, 8)
    with pytest.raises(BrokenRule, match=message):
        mixed.compose(maps, maps)
    assert not maps.any()


def test_mixup_stays_without_copies(tiny):
    """Built-in strategies get the caller's own tensors: no copy, no check, no cost."""
    images, labels = torch.randn(2, 3, 4, 4), torch.arange(2)
    assert guarded(Mixup()).mix(images, labels, context()).labels is labels
    assert [field.name for field in fields(Mixup)] == ["alpha"]


def test_with_compile_it_runs_as_it_is(tiny, monkeypatch):
    """The network and the mix are compiled; what holds the strategy to the rules is not."""
    backend = functools.partial(torch.compile, backend="eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", backend)
    torch._dynamo.reset()
    registered(base=CutMix)
    compiled = run(tiny, "odd,transmix(base=odd)", compile=True)
    eager = run(tiny, "odd,transmix(base=odd)")
    for spec, learner in compiled.items():
        assert learner.failure is None
        torch.testing.assert_close(weights(learner), weights(eager[spec]))


def test_mixing_groups_are_held_one_by_one(tiny, alone):
    registered(**BROKEN["lam above 1"][0])
    learners = run(tiny, "odd,cutmix", mix_group=4, micro_batch=8)
    assert "lam must lie in [0, 1]" in learners["odd"].failure.reason
    registered("same", base=CutMix)
    learners = run(tiny, "same,cutmix", mix_group=4, micro_batch=8)
    assert torch.equal(weights(learners["same"]), weights(learners["cutmix"]))
