"""Training several strategies side by side: one loader, one initial model, one step function that speed.py times too."""
from __future__ import annotations

import copy
import csv
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixbench.attention import ClassAttention
from mixbench.data import Data, eval_loader, train_loader
from mixbench.mix import MixStrategy, ModelOutput, hashed_seed, make_context, soft_targets
from mixbench.recipe import Recipe
from mixbench.registry import create_strategy, did_you_mean, strategy_spec

LOG_COLUMNS = ("epoch", "lr", "train_loss", "top1", "top5", "top1_ema", "seconds")


def build_model(name: str, num_classes: int, seed: int, *, image_size: int, **parts: Any) -> nn.Module:
    """A fresh timm model, the same for the same seed; `parts` that are None keep the model's own; ValueError for an unknown name."""
    import timm

    if not timm.is_model(name):
        raise ValueError(f"unknown model {name!r}: {did_you_mean(name, timm.list_models())}")
    kwargs = {key: value for key, value in parts.items() if value is not None}
    torch.manual_seed(hashed_seed("init", seed))
    try:
        return timm.create_model(name, num_classes=num_classes, img_size=image_size, **kwargs)
    except TypeError:  # convolutional networks take any size and no img_size
        torch.manual_seed(hashed_seed("init", seed))
        try:
            return timm.create_model(name, num_classes=num_classes, **kwargs)
        except TypeError as error:
            raise ValueError(f"{name} does not take all of {', '.join(kwargs)} ({error}): set what it lacks to null") from None


def recipe_model(recipe: Recipe, num_classes: int, seed: int) -> nn.Module:
    """The recipe's model."""
    return build_model(
        recipe.model,
        num_classes,
        seed,
        image_size=recipe.image_size,
        patch_size=recipe.patch_size,
        embed_dim=recipe.embed_dim,
        depth=recipe.depth,
        num_heads=recipe.num_heads,
        drop_rate=recipe.drop_rate,
        drop_path_rate=recipe.drop_path,
    )


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's optimizer; biases, norms, position embedding and class tokens are without weight decay."""
    from timm.optim import create_optimizer_v2

    return create_optimizer_v2(
        model, opt=recipe.opt, lr=recipe.lr, weight_decay=recipe.weight_decay, eps=recipe.opt_eps, betas=recipe.opt_betas
    )


def build_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> Any:
    """timm's cosine schedule with warm-up, by epochs or, with sched_on_updates, by steps."""
    from timm.scheduler import CosineLRScheduler

    unit = steps_per_epoch if recipe.sched_on_updates else 1
    return CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * unit,
        lr_min=recipe.min_lr,
        warmup_t=round(recipe.warmup_epochs * unit),
        warmup_lr_init=recipe.warmup_lr,
        t_in_epochs=not recipe.sched_on_updates,
    )


def schedule(scheduler: Any, recipe: Recipe, epoch: int, step: int) -> None:
    """Set the learning rate of a step; both counts start at 0."""
    if recipe.sched_on_updates:
        scheduler.step_update(step)
    else:
        scheduler.step(max(epoch - recipe.lr_epoch_lag, 0))


def compose(strategy: MixStrategy, recipe: Recipe) -> MixStrategy:
    """The strategy as the recipe uses it: alternating with Mixup, on `mix_prob` of the batches; none and mixup stay themselves."""
    from mixbench.strategies.alternate import Alternate
    from mixbench.strategies.mixup import Mixup
    from mixbench.strategies.none import NoMix

    if isinstance(strategy, NoMix):
        return strategy
    if recipe.compose == "alternate" and not isinstance(strategy, (Mixup, Alternate)):
        strategy = Alternate(first=strategy, second=Mixup(recipe.mixup_alpha), switch_prob=recipe.switch_prob)
    if recipe.mix_prob < 1:
        strategy = Alternate(first=strategy, second=NoMix(), switch_prob=recipe.mix_prob)
    return strategy


@dataclass
class Learner:
    """One strategy with its own copy of model, optimizer, schedule and EMA."""

    strategy: MixStrategy  # as the user named it
    mixing: MixStrategy  # as the recipe uses it
    model: nn.Module
    net: Callable[[Tensor], Tensor]  # the model, compiled where the recipe says so
    tap: ClassAttention | None = None
    optimizer: Any = None
    scheduler: Any = None
    ema: Any = None
    bad_step: Any = None  # the first step that was not finite, on the device; -1 while all are
    status: str = "ok"
    loss_sum: Any = 0.0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def spec(self) -> str:
        return strategy_spec(self.strategy)

    def forward(self, images: Tensor) -> ModelOutput:
        logits = self.net(images)
        return ModelOutput(logits, self.tap.mean() if self.tap else None)


def mixed_loss(
    learner: Learner,
    mixing: MixStrategy,
    images: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    smoothing: float,
    amp: bool,
    seed: int,
    step: int,
    shard: int = 0,
    mean: Tensor,
    std: Tensor,
    progress: float = 0.0,
) -> Tensor:
    """Mix, run the model, relabel: the soft-target cross-entropy of one micro-batch, (). What is timed is what trains."""
    from timm.loss import SoftTargetCrossEntropy

    ctx = make_context(
        mixing, learner.model, images, seed=seed, step=step, shard=shard, mean=mean, std=std, progress=progress
    )
    mixed = mixing.mix(images, labels, ctx)
    torch.manual_seed(hashed_seed("forward", seed, step, shard))  # drop path must not depend on who else takes part
    with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
        output = learner.forward(mixed.images)
    lam = mixing.relabel(mixed, output)
    targets = soft_targets(mixed, lam, num_classes, smoothing)
    loss = SoftTargetCrossEntropy()(output.logits.float(), targets)
    if mixing.clean_weight:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
            clean = learner.net(images)
        loss = loss + mixing.clean_weight * nn.functional.cross_entropy(
            clean.float(), labels, label_smoothing=smoothing
        )
    return loss


def resolve_micro_batch(recipe: Recipe, device: torch.device, fits: Callable[[int], bool] | None = None) -> int:
    """The micro-batch that divides the recipe's batch: as given, at most 16 on a CPU, the largest that `fits` on a GPU."""
    if isinstance(recipe.micro_batch, int):
        return recipe.micro_batch
    sizes = [n for n in range(recipe.batch_size, 0, -1) if recipe.batch_size % n == 0]
    if device.type == "cpu":
        return next(n for n in sizes if n <= 16)
    assert fits is not None
    return next((n for n in sizes if fits(n)), 1)


@torch.no_grad()
def evaluate(model: nn.Module, loader: Any, device: torch.device, amp: bool) -> tuple[float, float]:
    """Top-1 and top-5 in percent over a loader of images (B, C, H, W) and labels (B,)."""
    model.eval()
    hits, count = torch.zeros(2, dtype=torch.int64, device=device), 0
    for images, labels in loader:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            logits = model(images)
        ranked = logits.float().topk(min(5, logits.shape[-1])).indices == labels[:, None]  # (B, 5)
        hits += torch.stack([ranked[:, 0].sum(), ranked.sum()])
        count += len(labels)
    top1, top5 = (100 * hits.double() / count).tolist()
    return top1, top5


def prepare(
    strategies: list[MixStrategy], recipe: Recipe, num_classes: int, seed: int, device: torch.device, steps_per_epoch: int
) -> list[Learner]:
    """A learner for each strategy from one initial model; NoClassAttention where a strategy asks for attention in vain."""
    from timm.utils import ModelEmaV3

    initial = recipe_model(recipe, num_classes, seed)
    learners = []
    for strategy in strategies:
        model = copy.deepcopy(initial).to(device)
        mixing = compose(strategy, recipe)
        attention = mixing.needs.attention
        tap = ClassAttention(model, attention) if attention else None
        optimizer = build_optimizer(model, recipe)
        learners.append(
            Learner(
                strategy=strategy,
                mixing=mixing,
                model=model,
                net=torch.compile(model) if recipe.compile else model,
                tap=tap,
                optimizer=optimizer,
                scheduler=build_scheduler(optimizer, recipe, steps_per_epoch),
                ema=ModelEmaV3(model, decay=recipe.model_ema_decay, use_warmup=True) if recipe.model_ema else None,
                bad_step=torch.full((), -1, dtype=torch.int64, device=device),
            )
        )
    return learners


def _update(learner: Learner, recipe: Recipe, step: int) -> None:
    if recipe.clip_grad is not None:
        nn.utils.clip_grad_norm_(learner.model.parameters(), recipe.clip_grad)
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    if learner.ema is not None:
        learner.ema.update(learner.model, step=step)


def _batches(loader: Any, count: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in islice(loader, count):
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def train(
    strategies: list[MixStrategy],
    recipe: Recipe,
    data: Data,
    seed: int,
    device: torch.device,
    *,
    workers: int = 0,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Learner]:
    """Train every strategy on the same augmented batches; a strategy that fails says so in `status`, the others go on.

    With `out`, each strategy's log.csv grows by a row an epoch and its weights are written at the end.
    """
    num_classes = len(data.classes)
    steps = len(data.train.labels) // recipe.batch_size
    learners = prepare(strategies, recipe, num_classes, seed, device, max(steps, 1))
    mean, std = (torch.tensor(v, device=device).reshape(-1, 1, 1) for v in (recipe.mean, recipe.std))
    micro = resolve_micro_batch(recipe, device, lambda size: _fits(learners[0], recipe, num_classes, size, device))
    loader = train_loader(data, recipe, seed, micro, workers, device)
    val = eval_loader(data, recipe, workers, device)
    parts = recipe.batch_size // micro
    with ExitStack() as stack:
        for learner in learners:
            if learner.tap:
                stack.enter_context(learner.tap)
        for epoch in range(recipe.total_epochs):
            alive = [learner for learner in learners if learner.status == "ok"]
            if not alive:
                break
            loader.sampler.epoch = epoch  # type: ignore[attr-defined]
            for learner in alive:
                learner.model.train()
                learner.loss_sum = torch.zeros((), device=device)
            for number, (images, labels) in enumerate(_batches(loader, steps * parts, device)):
                step, shard = epoch * steps + number // parts, number % parts
                for learner in alive:
                    if learner.status != "ok":
                        continue
                    started = time.perf_counter()
                    try:
                        if shard == 0:
                            schedule(learner.scheduler, recipe, epoch, step)
                        loss = mixed_loss(
                            learner, learner.mixing, images, labels,
                            num_classes=num_classes, smoothing=recipe.smoothing, amp=recipe.amp,
                            seed=seed, step=step, shard=shard, mean=mean, std=std,
                            progress=step / (steps * recipe.total_epochs),
                        )  # fmt: skip
                        (loss / parts).backward()
                        loss = loss.detach()
                        first = (learner.bad_step < 0) & ~loss.isfinite()
                        learner.bad_step = torch.where(first, step, learner.bad_step)
                        learner.loss_sum += loss
                        if shard == parts - 1:
                            _update(learner, recipe, step)
                    except Exception as error:  # a plug-in may raise anything; its row says so and the others go on
                        _fail(learner, error)
                        say(f"seed {seed}  {learner.spec}: {learner.status}")
                    learner.seconds += time.perf_counter() - started
            for learner in alive:
                if learner.status == "ok":
                    _close_epoch(learner, recipe, val, device, epoch, steps * parts)
                    row = learner.log[-1]
                    _append_log(out, learner, seed, row)
                    told = f"loss {row['train_loss']:.3f}  top-1 {row['top1']:.1f}"
                    say(f"seed {seed}  epoch {epoch + 1}/{recipe.total_epochs}  {learner.spec}  "
                        f"{told if learner.status == 'ok' else learner.status}")
    for learner in learners:
        if out is not None and learner.status == "ok":
            _save(out, learner, recipe, seed)
    return learners


def _fits(learner: Learner, recipe: Recipe, num_classes: int, size: int, device: torch.device) -> bool:
    """Whether a forward and backward pass of `size` images fits on the device."""
    try:
        images = torch.zeros(size, 3, recipe.image_size, recipe.image_size, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.amp):
            learner.model(images).float().sum().backward()
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        learner.model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _fail(learner: Learner, error: Exception) -> None:
    learner.optimizer.zero_grad(set_to_none=True)
    if isinstance(error, torch.OutOfMemoryError):
        learner.status = "out of memory: lower --micro-batch"
    else:
        learner.status = f"failed: {type(error).__name__}: {' '.join(str(error).split())}"


def _close_epoch(learner: Learner, recipe: Recipe, val: Any, device: torch.device, epoch: int, batches: int) -> None:
    top1, top5 = evaluate(learner.model, val, device, recipe.amp)
    bad = int(learner.bad_step)
    if bad >= 0:
        learner.status = f"diverged at step {bad}"
    row = {
        "epoch": epoch,
        "lr": learner.optimizer.param_groups[0]["lr"],
        "train_loss": float(learner.loss_sum) / max(batches, 1),
        "top1": top1,
        "top5": top5,
        "top1_ema": None,
        "seconds": learner.seconds,
    }
    if learner.ema is not None:
        row["top1_ema"], row["top5_ema"] = evaluate(learner.ema.module, val, device, recipe.amp)
    learner.log.append(row)


def run_folder(out: Path, spec: str, seed: int) -> Path:
    """Where one strategy's files lie."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in spec.replace(" ", ""))
    return out / safe / f"seed{seed}"


def _append_log(out: Path | None, learner: Learner, seed: int, row: dict[str, Any]) -> None:
    if out is None:
        return
    path = run_folder(out, learner.spec, seed) / "log.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w" if row["epoch"] == 0 else "a", newline="") as file:
        writer = csv.DictWriter(file, LOG_COLUMNS, extrasaction="ignore")
        if row["epoch"] == 0:
            writer.writeheader()
        writer.writerow(row)


def _save(out: Path, learner: Learner, recipe: Recipe, seed: int) -> None:
    """Write the weights in a layout that timm.models.load_checkpoint reads, whole or not at all."""
    path = run_folder(out, learner.spec, seed) / "last.pt"
    state = {"state_dict": learner.model.state_dict(), "epoch": recipe.total_epochs, "strategy": learner.spec}
    if learner.ema is not None and recipe.headline == "ema":
        state["state_dict_ema"] = learner.ema.module.state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def estimate_seconds(
    strategies: list[MixStrategy], recipe: Recipe, data: Data, device: torch.device, *, micro_batches: int = 2
) -> float:
    """Seconds that training every strategy for one seed will take here, from a few timed micro-batches of the first one.

    Loading the images is not in it.
    """
    from mixbench.strategies.none import NoMix

    size = resolve_micro_batch(recipe, device, lambda n: n <= 128)
    [learner] = prepare([NoMix()], recipe, len(data.classes), 0, device, 1)
    images = torch.zeros(size, 3, recipe.image_size, recipe.image_size, device=device)
    labels = torch.zeros(size, dtype=torch.int64, device=device)
    times = []
    for step in range(micro_batches + 1):
        started = time.perf_counter()
        mixed_loss(
            learner, create_strategy("none"), images, labels, num_classes=len(data.classes), smoothing=0.1,
            amp=recipe.amp, seed=0, step=step, mean=torch.zeros(3, device=device), std=torch.ones(3, device=device),
        ).backward()  # fmt: skip
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    steps = len(data.train.labels) // recipe.batch_size * (recipe.batch_size // size)
    return min(times[1:]) * steps * recipe.total_epochs * len(strategies)
