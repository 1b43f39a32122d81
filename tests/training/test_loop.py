"""Side-by-side training: bit for bit the same in any company, robust to a strategy that fails."""

from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch

from mixbench import create_strategies, register_strategy
from mixbench.data.datasets import open_data
from mixbench.mix import Needs
from mixbench.recipe import load_recipe
from mixbench.runs.directory import RunDirectory
from mixbench.runtime import Failed, Runtime
from mixbench.strategies.cutmix import CutMix
from mixbench.training.batches import fits_in_memory
from mixbench.training.forward import Network
from mixbench.training.learner import in_turn
from mixbench.training.loop import train
from mixbench.training.objective import compose

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny():
    recipe = load_recipe(
        "quick",
        {
            "embed_dim": 24,
            "depth": 2,  # drop path leaves the first block alone
            "epochs": 2,
            "batch_size": 16,
            "micro_batch": 8,
            "drop_path": 0.2,
        },
    )
    return recipe, open_data(image_size=32, limit_train=50, limit_val=20)


def weights(learner):
    return torch.cat([p.detach().flatten() for p in learner.model.parameters()])


def run(tiny, text, **changes):
    recipe, data = tiny
    runtime = Runtime(device=CPU, seed=3)
    learners = train(create_strategies(text), replace(recipe, **changes), data, runtime)
    return {learner.spec: learner for learner in learners}


def untimed(learner):
    """The rows of a learner's log without the time taken."""
    return [replace(row, seconds=0.0) for row in learner.log]


def test_figures_do_not_depend_on_company_order_or_time(tiny):
    alone = run(tiny, "cutmix")
    for text in ("cutmix", "cutmix,transmix", "transmix,cutmix"):
        torch.manual_seed(len(text))
        again = run(tiny, text)
        assert torch.equal(weights(alone["cutmix"]), weights(again["cutmix"]))
        assert untimed(alone["cutmix"]) == untimed(again["cutmix"])


def test_each_strategy_is_first_after_the_loader_as_often(tiny):
    calls = []
    for name in ("former", "latter", "third"):

        def mix(self, images, labels, ctx, name=name):
            calls.append(name)
            return CutMix.mix(self, images, labels, ctx)

        register_strategy(name)(dataclass(frozen=True)(type(name, (CutMix,), {"mix": mix})))
    run(tiny, "former,latter,third", mix_prob=1.0, epochs=3)
    first = Counter(calls[::3])
    assert sum(first.values()) == 18 and set(first.values()) == {6}


def test_transmix_learns_other_labels(tiny):
    both = run(tiny, "cutmix,transmix", mix_prob=1.0)
    assert not torch.equal(weights(both["cutmix"]), weights(both["transmix"]))


def test_a_failing_strategy_leaves_the_others_alone(tiny, tmp_path):
    @register_strategy("raises")
    @dataclass(frozen=True)
    class Raises(CutMix):
        def mix(self, images, labels, ctx):
            raise RuntimeError("no such luck")

    @register_strategy("nolabel")
    @dataclass(frozen=True)
    class NoLabel(CutMix):
        def relabel(self, mixed, output):
            return mixed.lam * float("nan")

    alone, all_three = (
        run(tiny, "cutmix", mix_prob=1.0),
        run(tiny, "raises,cutmix,nolabel", mix_prob=1.0),
    )
    assert all_three["raises"].failure == Failed("failed: RuntimeError: no such luck")
    assert all_three["nolabel"].failure == Failed(
        "failed: BrokenRule: lam must lie in [0, 1], not nan to nan"
    )
    assert all_three["cutmix"].failure is None
    assert torch.equal(weights(alone["cutmix"]), weights(all_three["cutmix"]))


def test_loss_falls(tiny):
    learner = run(tiny, "none", epochs=12)["none"]
    assert learner.log[-1].train_loss < learner.log[0].train_loss - 0.1


def test_accumulation_is_the_mean_of_the_micro_batches(tiny):
    """Without mixing and drop path, the size of the micro-batch changes rounding alone."""
    whole, parts = (
        run(tiny, "none", micro_batch=m, drop_path=0.0, epochs=1)["none"] for m in (16, 4)
    )
    assert torch.allclose(weights(whole), weights(parts), atol=1e-5)


def test_files_are_written_and_load_in_timm(tiny, tmp_path):
    import timm

    recipe, data = tiny
    recipe = replace(recipe, epochs=1, model_ema=True, headline="ema")
    runtime = Runtime(device=CPU, out=tmp_path)
    [learner] = train(create_strategies("cutmix"), recipe, data, runtime)
    folder = RunDirectory(tmp_path).seed("cutmix", 0)
    model = timm.create_model(
        recipe.model, img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=10
    )
    timm.models.load_checkpoint(model, str(folder.weights))
    for name, value in model.state_dict().items():
        assert torch.equal(value, learner.ema.module.state_dict()[name])
    content = torch.load(folder.weights, map_location="cpu", weights_only=True)
    assert content["classes"] == list(data.identity.classes) and len(content["classes"]) == 10
    assert folder.log.read_text().startswith("epoch,lr,train_loss,top1")
    assert learner.log[-1].top1_ema is not None


def test_compiled_learners_keep_their_own_attention(monkeypatch):
    """Each compiled forward pass sees its hooks, also the ninth: logits and attention as eager."""
    import functools

    import timm

    from mixbench.services.attention import ClassAttention

    backend = functools.partial(torch.compile, backend="eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", backend)
    images = torch.randn(2, 3, 32, 32)
    shape = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_classes=5)
    for number in range(9):
        torch.manual_seed(number)
        model = timm.create_model("vit_tiny_patch16_224", **shape)
        if number % 3 == 0:
            logits = Network(model, compile=True)(images).logits
            torch.testing.assert_close(logits, model(images))
            continue
        block = (1, 2)[number % 2]
        with ClassAttention(model, block) as tap:
            eager = tap(images)
        with Network(model, Needs(attention=str(block)), compile=True) as network:
            compiled = network(images)
        torch.testing.assert_close(compiled.logits, eager.logits)
        torch.testing.assert_close(compiled.attn, eager.attn)


def test_compose_is_the_recipe_of_deit():
    recipe = load_recipe("deit_small")
    cutmix, mixup, none = create_strategies("cutmix,mixup,none")
    mixed = compose(cutmix, recipe)
    assert (mixed.first, mixed.second.alpha, mixed.switch_prob) == (cutmix, 0.8, 0.5)
    assert compose(mixup, recipe) == mixup and compose(none, recipe) == none
    half = compose(cutmix, replace(recipe, compose="only", mix_prob=0.25))
    assert (half.first, half.switch_prob) == (cutmix, 0.25)


@pytest.mark.parametrize("val_interval", [1, 2])
def test_weights_that_the_last_step_ruins_are_not_ok(tiny, tmp_path, val_interval):
    """A step an epoch: with an interval of 2 the first epoch is not evaluated."""
    recipe, data = tiny
    recipe = replace(
        recipe, epochs=2, lr=1e38, min_lr=1e38, warmup_epochs=0.0, batch_size=32, micro_batch=32
    )
    runtime = Runtime(device=CPU, out=tmp_path, val_interval=val_interval)
    [learner] = train(create_strategies("none"), recipe, data, runtime)
    assert learner.failure == Failed("diverged at step 0") and learner.epochs == 1
    assert not RunDirectory(tmp_path).seed("none", 0).weights.exists()


def test_the_trial_for_the_micro_batch_leaves_no_trace():
    import timm

    model = timm.create_model("resnet10t", num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert fits_in_memory(model, load_recipe("quick"), 2, CPU)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.fixture
def loaded(monkeypatch):
    """The numbers of the scenes that are loaded."""
    import mixbench.data.scenes as data_module

    numbers = []
    load = data_module.SceneSource.load
    monkeypatch.setattr(
        data_module.SceneSource,
        "load",
        lambda self, index: numbers.append(index) or load(self, index),
    )
    return numbers


def test_validation_images_are_loaded_once_for_all(tiny, loaded):
    run(tiny, "none,cutmix,transmix", epochs=1, model_ema=True)
    assert len(loaded) == 48 + 20


def test_validation_images_are_loaded_where_they_are_evaluated(tiny, loaded):
    recipe, data = tiny
    runtime = Runtime(device=CPU, val_interval=2)
    train(create_strategies("none"), replace(recipe, epochs=5), data, runtime)
    assert len(loaded) == 5 * 48 + 3 * 20


def test_throughput_with_the_loader_counts_this_process_alone(tiny, tmp_path, monkeypatch):
    """An epoch is 48 images in 6 micro-batches of 2 s each, after 6 waits of 3 s: 48 / 30 = 1.6
    images a second, resumed or not.
    """
    recipe, data = tiny
    monkeypatch.setattr("mixbench.training.clock.Clock.seconds", lambda self: {"part": 2.0})
    monkeypatch.setattr(
        "mixbench.training.clock.Waiting.add",
        lambda self, seconds: setattr(self, "waited", self.waited + 3),
    )
    cutmix = create_strategies("cutmix")
    [whole] = train(cutmix, recipe, data, Runtime(device=CPU))

    def killed(done, steps):
        if done == 4:  # in the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cutmix, recipe, data, Runtime(device=CPU, out=tmp_path, tick=killed))
    resuming = Runtime(device=CPU, out=tmp_path, resume=True)
    [resumed] = train(cutmix, recipe, data, resuming)
    [again] = train(cutmix, recipe, data, resuming)
    for learner in (whole, resumed):
        assert learner.train_im_per_sec == 1.6 and learner.seconds == 24
        assert learner.loading_share > 0
    assert again.train_im_per_sec is again.loading_share is None  # nothing was left to train


def test_a_learner_that_failed_has_no_turn():
    class Named:
        def __init__(self, name, failure=None):
            self.name, self.failure = name, failure

    learners = [Named("a"), Named("b", Failed("no")), Named("c")]
    assert [learner.name for learner in in_turn(learners, 0)] == ["a", "c"]
    assert [learner.name for learner in in_turn(learners, 2)] == ["c", "a"]


def test_an_update_that_fails_in_the_last_step_is_not_ok(tiny, tmp_path, monkeypatch):
    recipe, data = tiny
    recipe = replace(recipe, epochs=1, clip_grad=1.0)
    calls = []

    def clip(parameters, norm):
        calls.append(norm)
        if len(calls) == 3:  # of 50 images in batches of 16
            raise RuntimeError("the last one")

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    runtime = Runtime(device=CPU, out=tmp_path)
    [learner] = train(create_strategies("none"), recipe, data, runtime)
    assert learner.failure == Failed("failed: RuntimeError: the last one") and learner.log == []
    assert not RunDirectory(tmp_path).seed("none", 0).weights.exists()


@pytest.mark.parametrize("place", ["relabel", "backward", "evaluation"])
def test_a_failure_anywhere_is_of_its_strategy_alone(tiny, place, monkeypatch):
    def refuse(gradient):
        raise RuntimeError("no backward")

    def relabel(self, mixed, output):
        if place == "relabel":
            raise RuntimeError("no relabel")
        output.logits.register_hook(refuse)
        return mixed.lam

    methods = {} if place == "evaluation" else {"relabel": relabel}
    register_strategy(f"fails_in_{place}")(
        dataclass(frozen=True)(type(f"FailsIn{place.title()}", (CutMix,), methods))
    )
    if place == "evaluation":
        from mixbench.training.evaluate import _scores

        calls = []

        def scores(logits, labels):
            calls.append(1)
            if len(calls) == 1:  # the first learner's
                raise RuntimeError("no evaluation")
            return _scores(logits, labels)

        monkeypatch.setattr("mixbench.training.evaluate._scores", scores)
    alone = run(tiny, "cutmix", mix_prob=1.0)
    if place == "evaluation":
        calls.clear()
    both = run(tiny, f"fails_in_{place},cutmix", mix_prob=1.0)
    assert f"no {place}" in both[f"fails_in_{place}"].failure.reason
    if place != "evaluation":
        assert torch.equal(weights(alone["cutmix"]), weights(both["cutmix"]))
    assert both["cutmix"].failure is None


def test_bfloat16_trains_other_figures_than_float32(tiny):
    """So the recipe's amp reaches the network; the loss differs by its rounding, not by more."""
    full, half = run(tiny, "none")["none"], run(tiny, "none", amp=True)["none"]
    assert full.log[0].train_loss != half.log[0].train_loss
    assert half.log[0].train_loss == pytest.approx(full.log[0].train_loss, rel=0.01)
