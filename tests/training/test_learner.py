"""A learner survives whatever its strategy does, and goes on from its state."""

import pytest
import torch

from mixbench.runtime import Failed, Runtime
from mixbench.training.batches import Micro
from mixbench.training.evaluate import Evaluation
from mixbench.training.learner import LAMS, NEVER, alive

CPU = torch.device("cpu")


def micro(step=0, part=0, parts=1, count=8):
    rng = torch.Generator().manual_seed(step)
    images = torch.randn(count, 3, 32, 32, generator=rng)
    return Micro(images=images, labels=torch.arange(count) % 4, step=step, part=part, parts=parts)


def evaluation(rank=(0, 0, 1, 2), nll=0.5):
    count = len(rank)
    return Evaluation(
        rank=torch.tensor(rank),
        predicted=torch.tensor(rank),
        nll=torch.full((count,), nll),
        confidence=torch.full((count,), 0.9),
        brier=torch.full((count,), 0.02),
    )


def weights(learner):
    return torch.cat([p.detach().flatten() for p in learner.model.parameters()])


def train_steps(learner, steps):
    for step in steps:
        learner.accumulate(micro(step))
        learner.update(step)


def test_gradients_of_the_parts_are_the_whole_batchs(learner):
    """The mean over the micro-batches, by gradients: AdamW would forgive any factor."""
    whole, parts = learner("none").begin(0), learner("none").begin(0)
    batch = micro()
    whole.accumulate(batch)
    for part in range(2):
        half = slice(4 * part, 4 * part + 4)
        images, labels = batch.images[half], batch.labels[half]
        parts.accumulate(Micro(images=images, labels=labels, step=0, part=part, parts=2))
    for ours, theirs in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_an_epoch_begins_in_training_mode(learner):
    evaluated = learner("none")
    evaluated.model.eval()
    assert evaluated.begin(1).model.training and evaluated.epoch.number == 1


def test_what_a_strategy_raises_is_trouble_until_the_processes_agree(learner, monkeypatch):
    lines = []
    broken = learner("cutmix").begin(0)
    monkeypatch.setattr(type(broken.objective), "__call__", lambda *_: 1 / 0)
    broken.accumulate(micro())
    assert broken.trouble == Failed("failed: ZeroDivisionError: division by zero")
    assert broken.failure is None and alive([broken]) == [broken]
    assert not Runtime(device=CPU, seed=7, say=lines.append).agree(broken)
    assert broken.failure == broken.trouble and alive([broken]) == []
    assert lines == ["seed 7  cutmix: failed: ZeroDivisionError: division by zero"]


def test_a_learner_in_trouble_takes_no_further_part_of_the_step(learner, monkeypatch):
    calls, broken = [], learner("cutmix").begin(0)
    monkeypatch.setattr(type(broken.objective), "__call__", lambda *_: calls.append(1) / 0)
    for part in range(3):
        broken.accumulate(micro(part=part, parts=3))
    assert calls == [1]


def test_an_update_that_raises_is_trouble_too(learner, monkeypatch):
    broken = learner("none").begin(0)
    broken.accumulate(micro())

    def full():
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(broken.optimizer, "step", full)
    broken.update(0)
    assert broken.trouble == Failed("out of memory: lower --micro-batch, and --mix-group with it")


def test_stopping_lets_go_of_the_gradients(learner):
    stopped = learner("none").begin(0)
    stopped.accumulate(micro())
    stopped.stop(Failed("enough"))
    assert all(p.grad is None for p in stopped.model.parameters())


def test_an_epoch_ends_in_a_row(learner):
    trained = learner("none").begin(3)
    train_steps(trained, [0, 1])
    losses = float(trained.epoch.loss)
    assert trained.close([evaluation()], step=1, batches=2) and trained.failure is None
    [row] = trained.log
    assert (row.epoch, row.top1, row.top5, row.top1_ema) == (3, 50.0, 100.0, None)
    assert (row.val_nll, row.val_nll_ema) == (0.5, None)
    assert row.train_loss == losses / 2 and row.seconds == trained.seconds > 0
    assert trained.evaluation.top(1) == 50.0


def test_the_headline_is_the_averaged_weights_where_the_recipe_says_so(learner):
    averaged = learner("none", model_ema=True, headline="ema").begin(0)
    train_steps(averaged, [0])
    raw, ema = evaluation((0, 1)), evaluation((0, 0), nll=0.25)
    assert averaged.models == [averaged.model, averaged.ema.module]
    assert averaged.headline is averaged.ema.module
    averaged.close([raw, ema], step=0, batches=1)
    assert averaged.evaluation is ema
    assert (averaged.log[0].top1, averaged.log[0].top1_ema) == (50.0, 100.0)
    assert (averaged.log[0].val_nll, averaged.log[0].val_nll_ema) == (0.5, 0.25)


def test_a_model_that_cannot_be_evaluated_ends_without_a_row(learner):
    broken = learner("none").begin(0)
    train_steps(broken, [0])
    assert not broken.close([Failed("no forward")], step=0, batches=1)
    assert broken.failure == Failed("no forward") and broken.log == []


@pytest.mark.parametrize("seen", [[evaluation()], []], ids=["evaluated", "not evaluated"])
def test_the_first_step_that_is_not_finite_is_named(learner, seen):
    bad = learner("none").begin(0)
    train_steps(bad, [0])
    assert int(bad.epoch.bad_step) == NEVER
    with torch.no_grad():
        next(bad.model.parameters()).fill_(float("inf"))
    train_steps(bad, [1, 2])
    bad.close(seen, step=2, batches=3)
    assert bad.failure == Failed("diverged at step 1") and len(bad.log) == 1


def test_a_likelihood_that_is_not_finite_is_the_last_steps(learner):
    bad = learner("none").begin(0)
    train_steps(bad, [0])
    bad.close([evaluation(nll=float("nan"))], step=0, batches=1)
    assert bad.failure == Failed("diverged at step 0")


def test_an_epoch_without_evaluation_has_its_loss_alone(learner):
    trained = learner("none", model_ema=True, headline="ema").begin(0)
    train_steps(trained, [0, 1])
    losses = float(trained.epoch.loss)
    assert trained.close([], step=1, batches=2) and trained.failure is None
    [row] = trained.log
    assert (row.epoch, row.train_loss) == (0, losses / 2) and row.seconds > 0
    assert {row.top1, row.top5, row.top1_ema, row.top5_ema, row.val_nll, row.val_nll_ema} == {None}
    assert trained.evaluation is None
    resumed = learner("none", model_ema=True, headline="ema")
    resumed.load(trained.state())
    assert resumed.log == trained.log


def test_weights_that_no_loss_has_seen_are_looked_at_where_nothing_is_evaluated(learner):
    bad = learner("none").begin(0)
    train_steps(bad, [0, 1])
    with torch.no_grad():
        list(bad.model.parameters())[-1][-1] = float("inf")
    assert bad.close([], step=1, batches=2)
    assert bad.failure == Failed("diverged at step 1") and bad.log[0].top1 is None


def test_a_sample_of_the_shares_is_kept(learner):
    mixed = learner("cutmix", mix_prob=1.0).begin(0)
    for step in range(4):
        mixed.accumulate(micro(step, count=LAMS // 2))
    assert len(mixed.epoch.lam) == len(mixed.epoch.area) == 2
    assert torch.equal(mixed.epoch.lam[0], mixed.epoch.area[0])  # CutMix labels by area


@pytest.mark.parametrize("ema", [False, True])
def test_a_state_that_is_loaded_goes_on_to_the_same_weights(learner, ema):
    fields = {"model_ema": ema, "headline": "ema" if ema else "raw"}
    whole, half = learner("transmix", **fields), learner("transmix", **fields)
    rows = [evaluation()] * (2 if ema else 1)
    with whole.network, half.network:
        for epoch in range(2):
            whole.begin(epoch)
            train_steps(whole, [2 * epoch, 2 * epoch + 1])
            whole.close(rows, 2 * epoch + 1, 2)
        half.begin(0)
        train_steps(half, [0, 1])
        half.close(rows, 1, 2)
    resumed = learner("transmix", **fields)
    resumed.load(half.state())
    assert [row.train_loss for row in resumed.log] == [row.train_loss for row in whole.log[:1]]
    with resumed.network:
        resumed.begin(1)
        train_steps(resumed, [2, 3])
    assert torch.equal(weights(resumed), weights(whole))
    if ema:
        pairs = zip(resumed.ema.module.parameters(), whole.ema.module.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_state_without_the_validation_loss_is_loaded(learner):
    """As an older mixbench kept it."""
    older, resumed = learner("none").begin(0), learner("none")
    train_steps(older, [0])
    older.close([evaluation()], 0, 1)
    state = older.state()
    for name in ("val_nll", "val_nll_ema"):
        del state["log"][0][name]
    resumed.load(state)
    assert resumed.log[0].val_nll is None and resumed.log[0].top1 == 50.0


def test_the_state_of_one_that_failed_says_why(learner):
    failed = learner("none")
    failed.stop(Failed("diverged at step 3"))
    resumed = learner("none")
    resumed.load(failed.outcome())
    assert resumed.failure == Failed("diverged at step 3")


def test_extra_parameters_are_the_external_networks(learner):
    from mixbench.services.network import network_parameters
    from mixbench.training.learner import extra_params_m

    plain, attentive = learner("cutmix"), learner("attentivecutmix(network=efficientnet_lite0)")
    assert extra_params_m(plain.needs, plain.network) == 0
    count = extra_params_m(attentive.needs, attentive.network)
    assert count == network_parameters("efficientnet_lite0") / 1e6 and 3 < count < 5
