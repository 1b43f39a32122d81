"""Training several strategies side by side."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixbench.data.augment import RawBatch, augment
from mixbench.data.loaders import eval_loader, train_loader
from mixbench.data.memory import MemorySource
from mixbench.data.sources import Data
from mixbench.distributed import World
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe
from mixbench.runtime import explain
from mixbench.training.clock import Clock, Waiting
from mixbench.training.evaluate import Evaluation, evaluate, evaluate_all, readable
from mixbench.training.learner import LAMS, NEVER, Learner, prepare
from mixbench.training.objective import mixed_loss
from mixbench.training.optim import schedule
from mixbench.training.state import _keep, _restore, _save, _write_log


def resolve_micro_batch(
    recipe: Recipe,
    device: torch.device,
    fits: Callable[[int], bool] | None = None,
    processes: int = 1,
) -> int:
    """The micro-batch that divides each process's part of the recipe's batch.

    As given or its largest divisor that fits the part, at most 16 on a CPU, the largest that `fits` on a GPU; ValueError where
    the processes cannot share the batch.
    """
    share, rest = divmod(recipe.batch_size, processes)
    if rest:
        raise ValueError(
            f"batch_size {recipe.batch_size} cannot be shared by {processes} processes: choose a multiple of {processes}"
        )
    if isinstance(recipe.micro_batch, int):
        return math.gcd(share, recipe.micro_batch)
    sizes = [n for n in range(share, 0, -1) if share % n == 0]
    if device.type != "cuda":
        return next(n for n in sizes if n <= 16)
    assert fits is not None
    return next((n for n in sizes if fits(n)), 1)


def _batches(
    loader: Any, count: int, recipe: Recipe, mean: Tensor, std: Tensor, waiting: Waiting
) -> Iterator[tuple[Tensor, Tensor]]:
    device, started = mean.device, time.perf_counter()
    for images, labels in islice(readable(loader), count):
        waiting.add(time.perf_counter() - started)
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        yield (
            augment(images, mean, std, recipe.remode) if isinstance(images, RawBatch) else images,
            labels,
        )
        waiting.mark(device)
        started = time.perf_counter()


def train(
    strategies: list[MixStrategy],
    recipe: Recipe,
    data: Data,
    seed: int,
    device: torch.device,
    *,
    workers: int = 0,
    out: Path | None = None,
    resume: bool = False,
    world: World = World(),
    say: Callable[[str], None] = lambda line: None,
    tick: Callable[[int, int], None] = lambda done, steps: None,
    record: Callable[[str, dict[str, Any]], None] = lambda spec, row: None,
) -> list[Learner]:
    """Train every strategy on the same augmented batches; a strategy that fails says so in `status`, the others go on.

    With `out`, each strategy's log.csv grows by a row an epoch, the state of all is kept after each epoch, and their weights
    are written at the end; `resume` goes on from that state, to the same numbers. `tick` hears of each step, `record` of each
    strategy's row of the log.
    """
    num_classes = len(data.classes)
    steps = len(data.train.labels) // recipe.batch_size
    learners = prepare(strategies, recipe, num_classes, seed, device, max(steps, 1))
    mean, std = (
        torch.tensor(v, device=device).reshape(-1, 1, 1) for v in (recipe.mean, recipe.std)
    )
    state_file = None if out is None else out / f"state-seed{seed}.pt"
    begin, micro = (
        _restore(learners, recipe, state_file, world, say)
        if resume and state_file is not None
        else (0, None)
    )
    if micro is None:
        micro = resolve_micro_batch(
            recipe, device, lambda size: _fits(learners[0].model, recipe, size, device), world.size
        )
        micro = int(world.lowest(torch.tensor(micro, device=device)))
    loader = train_loader(data, recipe, seed, micro, workers, device, world)
    val = eval_loader(data, recipe, workers, device, world)
    parts = recipe.batch_size // (micro * world.size)
    before = {learner.spec: learner.seconds for learner in learners}
    waiting = Waiting()
    total = steps * recipe.total_epochs

    def accumulate(
        learner: Learner, images: Tensor, labels: Tensor, epoch: int, step: int, part: int
    ) -> None:
        if part == 0:
            schedule(learner.scheduler, recipe, epoch, step)
        result = mixed_loss(
            learner,
            learner.mixing,
            images,
            labels,
            num_classes=num_classes,
            smoothing=recipe.smoothing,
            amp=recipe.amp,
            gradient_amp=recipe.gradient_amp,
            seed=seed,
            step=step,
            shard=part * world.size + world.rank,
            mean=mean,
            std=std,
            progress=step / total,
        )
        (result.loss / parts).backward()
        loss = result.loss.detach()
        learner.bad_step = torch.minimum(
            learner.bad_step, torch.where(loss.isfinite(), NEVER, step)
        )
        learner.loss_sum += loss
        if len(learner.lams) * len(labels) < LAMS:
            learner.lams.append((result.area, result.lam.detach()))

    def flatten(learner: Learner) -> None:
        learner.flat = world.flat_gradients(learner.model)

    def update(learner: Learner, step: int) -> None:
        if recipe.clip_grad is not None:
            nn.utils.clip_grad_norm_(learner.model.parameters(), recipe.clip_grad)
        learner.optimizer.step()
        learner.optimizer.zero_grad(set_to_none=True)
        if learner.ema is not None:
            learner.ema.update(learner.model, step=step)

    def agree(learner: Learner) -> bool:
        learner.error = world.agree(learner.error)
        if learner.error is not None:
            learner.status = learner.error
            learner.optimizer.zero_grad(set_to_none=True)
            say(f"seed {seed}  {learner.spec}: {learner.status}")
        return learner.status == "ok"

    def attempt(learner: Learner, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(learner, *arguments)
        except (
            Exception
        ) as error:  # a plug-in may raise anything; its row says so and the others go on
            learner.error = explain(error)

    with ExitStack() as stack:
        for learner in learners:
            if learner.tap:
                stack.enter_context(learner.tap)
        for epoch in range(begin, recipe.total_epochs):
            alive = [learner for learner in learners if learner.status == "ok"]
            if not alive:
                break
            loader.batch_sampler.sampler.epoch = epoch  # type: ignore[union-attr]
            for learner in alive:
                learner.model.train()
                learner.loss_sum, learner.lams, learner.clocks = (
                    torch.zeros((), device=device),
                    [],
                    [],
                )
            began = time.perf_counter()
            for number, (images, labels) in enumerate(
                _batches(loader, steps * parts, recipe, mean, std, waiting)
            ):
                step, part = epoch * steps + number // parts, number % parts
                turn = (
                    step % len(alive)
                )  # the loader works hardest right after a batch: each shares the cores with it as often
                for learner in (*alive[turn:], *alive[:turn]):
                    if learner.status != "ok":
                        continue
                    clock = Clock(device)
                    if learner.error is None:
                        attempt(learner, accumulate, images, labels, epoch, step, part)
                    if part == parts - 1:
                        if learner.error is None:
                            attempt(learner, flatten)
                        if agree(learner):
                            world.average_gradients(learner.model, learner.flat)
                            attempt(learner, update, step)
                        learner.flat = None
                    clock("micro-batch")
                    learner.clocks.append(clock)
                if part == parts - 1:
                    tick(step + 1, total)
            waiting.total += time.perf_counter() - began
            alive = [learner for learner in alive if learner.status == "ok" and agree(learner)]
            models = [
                [learner.model, *([learner.ema.module] if learner.ema is not None else [])]
                for learner in alive
            ]
            found = iter(
                evaluate_all(
                    [model for own in models for model in own], val, device, recipe.amp, world
                )
            )
            for learner, own in zip(alive, models, strict=True):
                if learner.tap:
                    learner.tap.forget()
                _close_epoch(
                    learner, recipe, [next(found) for _ in own], epoch, step, steps * parts, world
                )
                if learner.status.startswith(("ok", "diverged")):
                    row = learner.log[-1]
                    if world.rank == 0 and out is not None:
                        _write_log(out, learner, seed)
                    record(learner.spec, row)
                    told = f"loss {row['train_loss']:.3f}  top-1 {row['top1']:.1f}"
                say(
                    f"seed {seed}  epoch {epoch + 1}/{recipe.total_epochs}  {learner.spec}  "
                    f"{told if learner.status == 'ok' else learner.status}"
                )
            if state_file is not None and world.rank == 0:
                _keep(learners, epoch + 1, micro, state_file)
    if waiting.total:
        say(
            f"seed {seed}  {waiting.sentence(recipe, isinstance(data.train, MemorySource), device)}"
        )
    for learner in learners:
        learner.loading_share = waiting.waited / waiting.total if waiting.total else None
        spent = learner.seconds - before[learner.spec] + waiting.waited
        if waiting.total and learner.status == "ok":
            learner.train_im_per_sec = (
                (recipe.total_epochs - begin) * steps * recipe.batch_size / spent
            )
        if (
            learner.status == "ok" and learner.evaluation is None and learner.log
        ):  # resumed after its last epoch
            model = learner.ema.module if recipe.headline == "ema" else learner.model
            learner.evaluation = evaluate(model, val, device, recipe.amp, world)
        if out is not None and learner.status == "ok" and world.rank == 0:
            _save(out, learner, recipe, seed)
    return learners


def _fits(model: nn.Module, recipe: Recipe, size: int, device: torch.device) -> bool:
    """Whether a forward and backward pass of a quarter more than `size` images fits on the device; the model stays as it is."""
    trial = copy.deepcopy(model).train()
    try:
        images = torch.zeros(
            -(-5 * size // 4), 3, recipe.image_size, recipe.image_size, device=device
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.amp):
            trial(images).float().sum().backward()
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        del trial
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _close_epoch(
    learner: Learner,
    recipe: Recipe,
    found: list[Evaluation | str],
    epoch: int,
    step: int,
    batches: int,
    world: World,
) -> None:
    """Take in what was found of the raw weights and of their EMA after an epoch that ended with `step`."""
    failed = [error for error in found if isinstance(error, str)]
    if failed:
        learner.status = failed[0]
        return
    raw, ema = [*found, None][:2]
    assert isinstance(raw, Evaluation) and not isinstance(ema, str)
    learner.evaluation = ema if recipe.headline == "ema" else raw  # the device has come to here
    learner.seconds += sum(sum(clock.seconds().values()) for clock in learner.clocks)
    bad = int(world.lowest(learner.bad_step))
    if bad == NEVER and not all(e.nll.isfinite().all() for e in found if isinstance(e, Evaluation)):
        bad = step  # the last update, which no loss has seen
    if bad != NEVER:
        learner.status = f"diverged at step {bad}"
    learner.log.append(
        {
            "epoch": epoch,
            "lr": learner.optimizer.param_groups[0]["lr"],
            "train_loss": float(world.total(learner.loss_sum)) / max(batches * world.size, 1),
            "top1": raw.top(1),
            "top5": raw.top(5),
            "top1_ema": ema.top(1) if ema is not None else None,
            "top5_ema": ema.top(5) if ema is not None else None,
            "seconds": learner.seconds,
        }
    )
