"""timm's public pieces, in a loop of the test's own, beside mixbench for 25 steps.

The loop is that of timm's train.py: Mixup mixes a batch, the loss is the soft-target
cross-entropy, gradients accumulate, the EMA is told of the updates done, and the schedule is moved
after each epoch or, by updates, after each update.
"""

import copy

import pytest
import torch
from torch import nn

from mixbench import create_strategies
from mixbench.data.datasets import open_data
from mixbench.mix import step_rng
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime
from mixbench.strategies import cutmix
from mixbench.training.batches import Batches, agreed_sizes
from mixbench.training.learner import prepare
from mixbench.training.loop import train_epoch

STEPS, EPOCHS, CLASSES = 25, 5, 10
RECIPE = {
    "embed_dim": 24,
    "depth": 2,
    "epochs": EPOCHS,
    "warmup_epochs": 2.0,
    "batch_size": 16,
    "micro_batch": 8,
    "mix_prob": 1.0,
    "smoothing": 0.1,
    "weight_decay": 0.5,  # loud: 25 updates show little of 0.03
    "clip_grad": 1.0,
    "model_ema": True,
    "headline": "ema",
    "opt_fused": False,
}


class Recorded:
    """What a learner's loop saw: every micro-batch with the box or the share that was drawn."""

    def __init__(self, monkeypatch):
        self.boxes = []
        real = cutmix.cut_box

        def spy(*arguments):
            self.boxes.append(real(*arguments))
            return self.boxes[-1]

        monkeypatch.setattr(cutmix, "cut_box", spy)


def timms_mixup(kind):
    from timm.data import Mixup

    shares = {"cutmix": (0.0, 1.0), "mixup": (0.8, 0.0)}[kind]
    return Mixup(*shares, label_smoothing=0.1, num_classes=CLASSES)


def mixed_by_timm(mixup, images, labels, lam, box, monkeypatch):
    """timm's mixed images and targets for a share and, of CutMix, a box that were drawn before."""
    module = __import__("timm.data.mixup", fromlist=["mixup"])
    if box is not None:
        top, left, bottom, right = box
        area = images.shape[-1] * images.shape[-2]
        lam = 1 - (bottom - top) * (right - left) / area
        monkeypatch.setattr(
            module, "cutmix_bbox_and_lam", lambda *_, **__: ((top, bottom, left, right), lam)
        )
    monkeypatch.setattr(mixup, "_params_per_batch", lambda: (lam, box is not None))
    return mixup(images.clone(), labels)


@pytest.mark.parametrize("by_updates", [False, True])
@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_loss_and_average_are_timms(kind, by_updates, monkeypatch):
    from timm.loss import SoftTargetCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import ModelEmaV3

    recipe = load_recipe("quick", RECIPE | {"sched_on_updates": by_updates})
    data = open_data(image_size=32, limit_train=STEPS // EPOCHS * 16, limit_val=10)
    runtime = Runtime(device=torch.device("cpu"), seed=3)
    [ours] = prepare(create_strategies(kind), recipe, CLASSES, runtime, STEPS // EPOCHS)

    model = copy.deepcopy(ours.model).train()
    optimizer = create_optimizer_v2(
        model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay, eps=1e-8
    )
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=EPOCHS,
        cooldown_epochs=0,
        min_lr=recipe.min_lr,
        warmup_lr=recipe.warmup_lr,
        warmup_epochs=2,
        step_on_epochs=not by_updates,
        updates_per_epoch=STEPS // EPOCHS,
    )
    ema = ModelEmaV3(model, decay=recipe.model_ema_decay, use_warmup=True)
    mixup, loss_of, updates = timms_mixup(kind), SoftTargetCrossEntropy(), 0

    drawn = Recorded(monkeypatch)
    sizes = agreed_sizes(ours.model, recipe, runtime)
    for epoch in range(EPOCHS):
        drawn.boxes.clear()
        train_epoch([ours], Batches(data, recipe, sizes, runtime), epoch, runtime)
        boxes, losses = iter(list(drawn.boxes)), []
        for micro in Batches(data, recipe, sizes, runtime).of(epoch):
            if kind == "cutmix":
                lam, box = None, next(boxes)
            else:
                rng = step_rng(runtime.seed, micro.step, micro.shard)
                lam, box = _share(rng), None
            images, targets = mixed_by_timm(
                mixup, micro.images, micro.labels, lam, box, monkeypatch
            )
            loss = loss_of(model(images), targets)
            losses.append(loss.item())
            (loss / micro.parts).backward()
            if micro.last:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                updates += 1
                optimizer.zero_grad()
                ema.update(model, step=updates)
                scheduler.step_update(num_updates=updates)
        scheduler.step(epoch + 1)
        assert float(ours.epoch.loss) / len(losses) == pytest.approx(
            sum(losses) / len(losses), abs=1e-5
        )
    assert updates == STEPS and ours.failure is None and ours.trouble is None
    for theirs, mine in ((model, ours.model), (ema.module, ours.ema.module)):
        for name, value in theirs.state_dict().items():
            assert torch.allclose(mine.state_dict()[name], value, atol=1e-5), name


def _share(rng):
    """A's share as mixup(alpha=0.8) draws it: the draw itself is no subject of this test."""
    from mixbench.mix import beta

    return beta(rng, 0.8)
