"""A training step beside the same step made of timm's public pieces: CPU time of one thread.

python baselines/train_step.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, ModelEmaV3, dispatch_clip_grad
from torch import Tensor

from baselines.rounds import command_of, footer, in_turns, one_thread, ratios, write_page
from mixbench import create_strategies
from mixbench.evaluations.speed import median_interval
from mixbench.models.build import recipe_model
from mixbench.recipe import Recipe, load_recipe
from mixbench.runs.environment import device_name, today
from mixbench.runtime import Runtime
from mixbench.training.batches import Micro
from mixbench.training.learner import prepare

RESULTS = Path(__file__).parents[1] / "results"
CLASSES = 10
RECIPE = {
    "image_size": 64,
    "batch_size": 32,
    "micro_batch": 32,
    "mix_prob": 1.0,
    "smoothing": 0.1,
    "clip_grad": 1.0,
    "model_ema": True,
    "warmup_epochs": 1,
    "epochs": 1000,
}
STEPS = 1000  # an epoch: the schedule moves at each
CPU = torch.device("cpu")
Step = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Timed:
    """CPU milliseconds a step in each round, and what they are compared with."""

    name: str
    beside: str
    milliseconds: list[float]


def timms_step(recipe: Recipe, shares: tuple[float, float]) -> Step:
    """A step in the order of the loop of timm's train.py, with timm's Mixup of these two alphas."""
    model = recipe_model(recipe, CLASSES, 0).train()
    optimizer = create_optimizer_v2(
        model,
        opt="adamw",
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        eps=1e-8,
        fused=recipe.opt_fused,
    )
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=recipe.epochs,
        min_lr=recipe.min_lr,
        warmup_lr=recipe.warmup_lr,
        warmup_epochs=1,
        step_on_epochs=False,
        updates_per_epoch=STEPS,
    )
    assert scheduler is not None
    ema = ModelEmaV3(model, decay=recipe.model_ema_decay, use_warmup=True)
    mixup = Mixup(*shares, label_smoothing=recipe.smoothing, num_classes=CLASSES)
    loss_of, losses, updates = SoftTargetCrossEntropy(), AverageMeter(), 0

    def step(images: Tensor, labels: Tensor) -> None:
        nonlocal updates
        images, targets = mixup(images, labels)
        loss = loss_of(model(images), targets)
        loss.backward()
        dispatch_clip_grad(model.parameters(), value=recipe.clip_grad)
        optimizer.step()
        optimizer.zero_grad()
        updates += 1
        ema.update(model, step=updates)
        losses.update(loss.item(), len(images))
        scheduler.step_update(num_updates=updates)

    return step


def our_step(recipe: Recipe, strategy: str) -> Step:
    """The step that `mixbench.training` takes."""
    runtime = Runtime(device=CPU)
    [learner] = prepare(create_strategies(strategy), recipe, CLASSES, runtime, STEPS)
    assert learner.failure is None, learner.failure
    learner.network.__enter__()
    learner.begin(0)
    updates = 0

    def step(images: Tensor, labels: Tensor) -> None:
        nonlocal updates
        learner.accumulate(Micro(images=images, labels=labels, step=updates, group=len(images)))
        assert runtime.agree(learner), learner.failure
        learner.update(updates)
        updates += 1

    return step


def measure(recipe: Recipe, rounds: int, steps: int) -> list[Timed]:
    """Every step in turn and then in the other order, so many steps each round."""
    mixup, cutmix = "Mixup, timm", "CutMix, timm"
    beside = {
        mixup: mixup,
        "mixup, mixbench": mixup,
        "Mixup, timm again, the control": mixup,
        cutmix: cutmix,
        "cutmix, mixbench": cutmix,
        "transmix, mixbench": cutmix,
        "CutMix, timm again, the control": cutmix,
    }
    every = {
        name: our_step(recipe, name.split(",")[0])
        if name.endswith("mixbench")
        else timms_step(recipe, (0.8, 0.0) if name.startswith("Mixup") else (0.0, 1.0))
        for name in beside
    }
    rng = torch.Generator().manual_seed(0)
    side = recipe.image_size
    images = torch.randn(recipe.batch_size, 3, side, side, generator=rng)
    labels = torch.randint(CLASSES, (recipe.batch_size,), generator=rng)
    milliseconds: dict[str, list[float]] = {name: [] for name in every}
    for name, counts in in_turns(every, rounds, warm_ups=2):
        copies = [images.clone() for _ in range(steps)]  # timm mixes in place
        np.random.seed(0)  # timm draws from it
        started = time.process_time()
        for batch in copies:
            every[name](batch, labels)
        taken = 1000 * (time.process_time() - started) / steps
        if counts:
            milliseconds[name].append(taken)
    return [Timed(name, beside[name], values) for name, values in milliseconds.items()]


def page(timed: Sequence[Timed], recipe: Recipe, steps: int, command: str, date: str) -> str:
    """What was measured, as Markdown."""
    size = sum(each.numel() for each in recipe_model(recipe, CLASSES, 0).parameters()) / 1e6
    lines = [
        f"# A training step beside timm's, {date}",
        "",
        f"CPU time of one thread: a ViT of {size:.2f}M parameters, {recipe.image_size} px, "
        f"{recipe.batch_size} images that are in memory, fp32, fused AdamW, clipped",
        "gradients, EMA and a schedule by updates. timm's is the loop of its train.py, made of its "
        "public pieces (Mixup, SoftTargetCrossEntropy,",
        f"ModelEmaV3). {len(timed[0].milliseconds)} interleaved rounds of {steps} steps; the ratio "
        "is of each round, its median with the 95 % bootstrap",
        "interval of that median, and beside it the least and the most.",
        "",
        "| step | ms | of timm's time | least and most |",
        "| --- | --- | --- | --- |",
    ]
    by_name = {each.name: each.milliseconds for each in timed}
    for each in timed:
        every = ratios(each.milliseconds, by_name[each.beside])
        middle = median_interval(np.array(every))
        lines.append(
            f"| {each.name} | {statistics.median(each.milliseconds):.1f} | {middle.median:.3f} "
            f"[{middle.low:.3f}, {middle.high:.3f}] | {min(every):.3f}, {max(every):.3f} |"
        )
    return "\n".join([*lines, "", footer(f"`{command}`", device_name(CPU))]) + "\n"


def main(argv: Sequence[str] | None = None, results: Path = RESULTS) -> None:
    """Measure, print the page and write it into the folder `results`."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=60)
    add("--steps", type=int, default=4, help="steps of a round")
    options = parser.parse_args(argv)
    recipe = load_recipe("quick", RECIPE)
    with one_thread():
        timed = measure(recipe, options.rounds, options.steps)
        command = f"OMP_NUM_THREADS=1 {command_of('train_step', **vars(options))}"
        text = page(timed, recipe, options.steps, command, today())
    write_page(results, "train-step-cpu", text)


if __name__ == "__main__":
    main()
