"""Training several strategies side by side: one loader, one initial model, one step function that speed.py times too."""

from __future__ import annotations

import copy
import csv
import inspect
import logging
import math
import os
import time
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mixbench.attention import attention_tap
from mixbench.augment import RawBatch, augment, collate
from mixbench.data import (
    Data,
    MemorySource,
    UnreadableImage,
    eval_loader,
    loader_transform,
    train_loader,
)
from mixbench.distributed import World
from mixbench.files import replacing
from mixbench.mix import (
    MixedBatch,
    MixStrategy,
    ModelOutput,
    hashed_seed,
    make_context,
    soft_targets,
)
from mixbench.recipe import Recipe
from mixbench.registry import did_you_mean, strategy_spec

LOG_COLUMNS = ("epoch", "lr", "train_loss", "top1", "top5", "top1_ema", "seconds")
NEVER = 2**62
NOWHERE = 2**20  # the rank of a class whose score is not finite
LAMS = 2000  # images of an epoch whose lam is kept


def build_model(
    name: str, num_classes: int, seed: int, *, image_size: int, **parts: Any
) -> nn.Module:
    """A fresh timm model, the same for the same seed; `parts` that are None keep the model's own; ValueError for an unknown name."""
    import timm

    if not timm.is_model(name):
        raise ValueError(f"unknown model {name!r}: {did_you_mean(name, timm.list_models())}")
    kwargs = {key: value for key, value in parts.items() if value is not None}
    torch.manual_seed(hashed_seed("init", seed))
    try:
        return timm.create_model(name, num_classes=num_classes, img_size=image_size, **kwargs)
    except AssertionError as error:
        raise ValueError(
            f"{name} cannot be built with {kwargs} at {image_size} px: {error}"
        ) from None
    except TypeError:  # convolutional networks take any size and no img_size
        torch.manual_seed(hashed_seed("init", seed))
        try:
            return timm.create_model(name, num_classes=num_classes, **kwargs)
        except TypeError as error:
            raise ValueError(
                f"{name} does not take all of {', '.join(kwargs)} ({error}): set what it lacks to null"
            ) from None


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
    from timm.optim import create_optimizer_v2, get_optimizer_class

    kind = get_optimizer_class(recipe.opt.removeprefix("lookahead_"), bind_defaults=False)
    fused: dict[str, Any] = (
        {"fused": True}
        if recipe.opt_fused and "fused" in inspect.signature(kind).parameters
        else {}
    )
    return create_optimizer_v2(
        model,
        opt=recipe.opt,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        eps=recipe.opt_eps,
        betas=recipe.opt_betas,
        **fused,
    )


def build_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> Any:
    """timm's cosine schedule with warm-up, by epochs or, with sched_on_updates, by steps."""
    from timm.scheduler import CosineLRScheduler

    logging.getLogger("timm.scheduler.cosine_lr").setLevel(
        logging.ERROR
    )  # it warns of every run of one epoch
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
        strategy = Alternate(
            first=strategy, second=Mixup(recipe.mixup_alpha), switch_prob=recipe.switch_prob
        )
    if recipe.mix_prob < 1:
        strategy = Alternate(first=strategy, second=NoMix(), switch_prob=recipe.mix_prob)
    return strategy


class StepLoss(NamedTuple):
    """The loss () of one micro-batch, and A's share (B,) by area and in the label."""

    loss: Tensor
    area: Tensor
    lam: Tensor


@dataclass(frozen=True)
class Evaluation:
    """What a model says of N validation images, image by image, on the CPU."""

    rank: Tensor  # (N,) int64, classes that score above the true one; NOWHERE where the scores are not finite
    nll: Tensor  # (N,) float32, nats
    confidence: Tensor  # (N,) float32, probability of the predicted class

    def top(self, k: int) -> float:
        """The share of images whose class is among the k best, in percent."""
        return 100 * float((self.rank < k).double().mean())


class Clock:
    """When each part of a step ended: events on a CUDA device, without a wait; else the wall clock."""

    def __init__(self, device: torch.device):
        self._cuda, self._mps = device.type == "cuda", device.type == "mps"
        self._marks: list[tuple[str, Any]] = []
        self("start")

    def __call__(self, part: str) -> None:
        mark: Any = torch.cuda.Event(enable_timing=True) if self._cuda else time.perf_counter()
        if self._cuda:
            mark.record()
        elif self._mps:
            torch.mps.synchronize()
            mark = time.perf_counter()
        self._marks.append((part, mark))

    def seconds(self) -> dict[str, float]:
        """Seconds of each part; on a GPU once the device has come to the end."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return {
            name: before.elapsed_time(now) / 1000 if self._cuda else now - before
            for (_, before), (name, now) in pairs
        }


@dataclass
class Learner:
    """One strategy with its own copy of model, optimizer, schedule and EMA."""

    strategy: MixStrategy  # as the user named it
    mixing: MixStrategy  # as the recipe uses it
    model: nn.Module
    net: Callable[
        [Tensor], ModelOutput
    ]  # the model with its class attention, compiled where the recipe says so
    tap: Any = None  # class attention, see attention.py
    optimizer: Any = None
    scheduler: Any = None
    ema: Any = None
    compiled: bool = False
    plain: Callable[[Tensor], ModelOutput] | None = (
        None  # the compiled model for the input gradient; itself where None
    )
    label: Callable[..., tuple[Tensor, Tensor]] = field(default_factory=lambda: label_loss)
    bad_step: Any = None  # the first step that was not finite, on the device; NEVER while all are
    status: str = "ok"
    error: str | None = None  # of this process, until all processes know of it
    flat: Tensor | None = None  # its gradients in one vector, where processes average them
    loss_sum: Any = 0.0
    seconds: float = 0.0
    clocks: list[Clock] = field(default_factory=list)  # of the epoch's micro-batches
    loading_share: float | None = None  # of the training time of this process, waited for images
    train_im_per_sec: float | None = (
        None  # of the epochs trained in this process: its own time and the wait for images
    )
    lams: list[tuple[Tensor, Tensor]] = field(
        default_factory=list
    )  # of the last epoch: by area and in the label
    log: list[dict[str, Any]] = field(default_factory=list)
    evaluation: Evaluation | None = (
        None  # of the weights that are the headline, after the last epoch
    )

    @property
    def spec(self) -> str:
        return strategy_spec(self.strategy)

    @property
    def extra_params_m(self) -> float:
        """Millions of parameters that the strategy needs beside the model: an external network, an attention provider."""
        count = self.tap.extra_parameters if self.tap else 0
        if self.strategy.needs.network:
            from mixbench.saliency import network_parameters

            count += network_parameters(self.strategy.needs.network)
        return count / 1e6

    def outcome(self) -> dict[str, Any]:
        """How far it came."""
        return {"status": self.status, "seconds": self.seconds, "log": self.log}

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on, and the outcome so far."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
        } | self.outcome()

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        if "model" in state:  # else it failed in its first epoch
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["ema"])
        self.status, self.seconds, self.log = state["status"], state["seconds"], list(state["log"])


def forward_pass(model: nn.Module, tap: Any, compiled: bool) -> Callable[[Tensor], ModelOutput]:
    """images (B, C, H, W) -> ModelOutput, with attention where there is a tap."""
    call = tap or (lambda images: ModelOutput(model(images)))

    def run(images: Tensor) -> ModelOutput:
        return call(images)

    return _compiled_alone(run) if compiled else call


def _compiled_alone(function: Any) -> Any:
    """torch.compile with a cache of its own.

    It caches by code object and does not look at hooks: with one code for all, a model with a tap could run the code compiled for
    one without, and eight learners would exhaust the cache.
    """
    return torch.compile(
        types.FunctionType(
            function.__code__.replace(), function.__globals__, closure=function.__closure__
        )
    )


def compiled_parts(model: nn.Module, tap: Any, compiled: bool) -> dict[str, Any]:
    """The fields of a Learner that torch.compile concerns."""
    parts: dict[str, Any] = {"net": forward_pass(model, tap, compiled)}
    if compiled:
        parts |= {
            "compiled": True,
            "plain": forward_pass(model, None, True),
            "label": _compiled_alone(label_loss),
        }
    return parts


def label_loss(
    mixing: MixStrategy, mixed: MixedBatch, output: ModelOutput, num_classes: int, smoothing: float
) -> tuple[Tensor, Tensor]:
    """The soft-target cross-entropy () of a mixed batch, and A's share of each label (B,)."""
    from timm.loss import SoftTargetCrossEntropy

    lam = mixing.relabel(mixed, output)
    targets = soft_targets(mixed, lam, num_classes, smoothing)
    return SoftTargetCrossEntropy()(output.logits.float(), targets), lam


def unmarked(_part: str) -> None:
    """The default of `mixed_loss`: nobody wants to know when a part of the step ends."""


def mixed_loss(
    learner: Learner,
    mixing: MixStrategy,
    images: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    smoothing: float,
    amp: bool,
    gradient_amp: bool | None = None,
    seed: int,
    step: int,
    shard: int = 0,
    mean: Tensor,
    std: Tensor,
    progress: float = 0.0,
    mark: Callable[[str], None] = unmarked,
) -> StepLoss:
    """Mix, run the model, relabel: the soft-target cross-entropy of one micro-batch. What is timed is what trains.

    `mark` is called with the name of each part that ends here: 'mix' and 'forward'.
    """
    plain = learner.plain
    ctx = make_context(
        mixing,
        learner.model,
        images,
        seed=seed,
        step=step,
        shard=shard,
        mean=mean,
        std=std,
        progress=progress,
        amp=amp if gradient_amp is None else gradient_amp,
        compile=learner.compiled,
        net=plain and (lambda x: plain(x).logits),
    )
    mixed = mixing.mix(images, labels, ctx)
    mark("mix")
    torch.manual_seed(
        hashed_seed("forward", seed, step, shard)
    )  # drop path must not depend on who else takes part
    with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
        output = learner.net(mixed.images)
    loss, lam = learner.label(mixing, mixed, output, num_classes, smoothing)
    if mixing.clean_weight:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
            clean = learner.net(images)
        loss = loss + mixing.clean_weight * nn.functional.cross_entropy(
            clean.logits.float(), labels, label_smoothing=smoothing
        )
    mark("forward")
    return StepLoss(loss, mixed.lam, lam)


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


def evaluate(
    model: nn.Module, loader: Any, device: torch.device, amp: bool, world: World = World()
) -> Evaluation:  # noqa: B008
    """What `model` says of every validation image; RuntimeError where it cannot be run on them."""
    [found] = evaluate_all([model], loader, device, amp, world)
    if isinstance(found, str):
        raise RuntimeError(found)
    return found


@torch.no_grad()
def evaluate_all(
    models: list[nn.Module],
    loader: Any,
    device: torch.device,
    amp: bool,
    world: World = World(),  # noqa: B008
) -> list[Evaluation | str]:
    """What each model says of every validation image, or why it could not be run; the images are loaded once for all.

    Each process's loader gives the images rank, rank + size, ...
    """
    parts: list[list[Tensor]] = [[] for _ in models]
    errors: list[str | None] = [None] * len(models)
    for model in models:
        model.eval()
    for images, labels in readable(loader):
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        for number, model in enumerate(models):
            try:
                if errors[number] is None:
                    with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                        logits = model(images)
                    parts[number].append(_scores(logits.float(), labels))
            except Exception as error:  # it must not hurt the others
                errors[number] = explain(error)
    results: list[Evaluation | str] = []
    for part, own_error in zip(parts, errors, strict=True):
        failure = world.agree(own_error)
        found = torch.cat(part, 1) if part else torch.zeros(3, 0, device=device)
        results.append(_gathered(found, world) if failure is None else failure)
    return results


def _scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Rank of the true class, its negative log-likelihood and the predicted class's probability, (3, B); logits (B, K)."""
    own = logits.gather(1, labels[:, None])  # (B, 1)
    tied = (logits == own) & (torch.arange(logits.shape[1], device=logits.device) < labels[:, None])
    rank = ((logits > own) | tied).sum(1).where(logits.isfinite().all(1), NOWHERE)
    log_probability = logits.log_softmax(1)
    nll = -log_probability.gather(1, labels[:, None])[:, 0]
    return torch.stack([rank.float(), nll, log_probability.amax(1).exp()])


def _gathered(found: Tensor, world: World) -> Evaluation:
    """The scores (3, n) of this process and all others in the order of the data set."""
    if world.size > 1:
        count = world.total(torch.tensor(found.shape[1], device=found.device))
        whole = found.new_zeros(3, int(count))
        whole[:, world.rank :: world.size] = found
        found = world.total(whole)
    rank, nll, confidence = found.cpu()
    return Evaluation(rank.long(), nll, confidence)


def readable(loader: Any) -> Iterator[Any]:
    """The batches of a loader; an unreadable image is told in one sentence, where a worker process sends its traceback too."""
    try:
        yield from loader
    except UnreadableImage as error:
        raise UnreadableImage(
            str(error).strip().splitlines()[-1].partition("UnreadableImage: ")[2] or str(error)
        ) from None


def prepare(
    strategies: list[MixStrategy],
    recipe: Recipe,
    num_classes: int,
    seed: int,
    device: torch.device,
    steps_per_epoch: int,
) -> list[Learner]:
    """A learner for each strategy from one initial model; NoClassAttention where a strategy asks for attention in vain."""
    from timm.utils import ModelEmaV3

    initial = recipe_model(recipe, num_classes, seed)
    learners = []
    for strategy in strategies:
        model = copy.deepcopy(initial).to(device)
        mixing = compose(strategy, recipe)
        attention = mixing.needs.attention
        tap = attention_tap(model, attention) if attention else None
        optimizer = build_optimizer(model, recipe)
        learners.append(
            Learner(
                strategy=strategy,
                mixing=mixing,
                model=model,
                **compiled_parts(model, tap, recipe.compile),
                tap=tap,
                optimizer=optimizer,
                scheduler=build_scheduler(optimizer, recipe, steps_per_epoch),
                ema=ModelEmaV3(model, decay=recipe.model_ema_decay, use_warmup=True)
                if recipe.model_ema
                else None,
                bad_step=torch.full((), NEVER, device=device),
            )
        )
    return learners


@dataclass
class Waiting:
    """How long training ran, and how much of it was waiting for images while the device had nothing to do."""

    waited: float = 0.0
    total: float = 0.0
    busy: Any = None  # on a GPU, an event after what it was last given: a wait that it works through costs nothing

    def mark(self, device: torch.device) -> None:
        if device.type == "cuda":
            self.busy = torch.cuda.Event()
            self.busy.record()

    def add(self, seconds: float) -> None:
        if self.busy is None or self.busy.query():
            self.waited += seconds

    def sentence(self, recipe: Recipe, cached: bool, device: torch.device) -> str:
        """What a reader should know and could do about it."""
        share = 100 * self.waited / max(self.total, 1e-9)
        ways = "more --workers" + ("" if cached else ", --cache ram")
        if recipe.augment_on == "loader" and device.type == "cuda":
            ways += ", --augment-on device"
        return f"waiting for images: {share:.0f} % of the time" + (
            f": {ways} would help" if share >= 20 else ""
        )


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
    world: World = World(),  # noqa: B008
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


def explain(error: Exception) -> str:
    """What a strategy's row says of `error`."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory: lower --micro-batch"
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())}"


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


def run_folder(out: Path, spec: str, seed: int) -> Path:
    """Where one strategy's files lie."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in spec.replace(" ", ""))
    return out / safe / f"seed{seed}"


def _write_log(out: Path, learner: Learner, seed: int) -> None:
    """Write the log anew from memory: a run that was killed may have written rows that a resumed one writes again."""
    path = run_folder(out, learner.spec, seed) / "log.csv"
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, LOG_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(learner.log)


def _save(out: Path, learner: Learner, recipe: Recipe, seed: int) -> None:
    """Write the weights in a layout that timm.models.load_checkpoint reads."""
    from mixbench.models.checkpoints import model_record

    state = {
        "state_dict": learner.model.state_dict(),
        "epoch": recipe.total_epochs,
        "strategy": learner.spec,
    }
    state |= model_record(
        recipe.model,
        img_size=recipe.image_size,
        patch_size=recipe.patch_size,
        embed_dim=recipe.embed_dim,
        depth=recipe.depth,
        num_heads=recipe.num_heads,
    )
    if learner.ema is not None and recipe.headline == "ema":
        state["state_dict_ema"] = learner.ema.module.state_dict()
    with replacing(run_folder(out, learner.spec, seed) / "last.pt") as partial:
        torch.save(state, partial)


def _keep(learners: list[Learner], epochs: int, micro: int, path: Path) -> None:
    """Keep the state of all after `epochs` epochs in micro-batches of `micro`, and the state before it as a second file.

    A strategy that failed keeps the weights of its last good epoch.
    """
    kept: dict[str, Any] = {}
    if any(learner.status != "ok" for learner in learners) and path.is_file():
        kept = torch.load(path, weights_only=True, map_location="cpu")["learners"]
    states = {
        x.spec: x.state() if x.status == "ok" else kept.get(x.spec, {}) | x.outcome()
        for x in learners
    }
    with replacing(path) as partial:
        torch.save(
            {
                "epochs": epochs,
                "micro_batch": micro,
                "threads": torch.get_num_threads(),
                "learners": states,
            },
            partial,
        )
        if path.is_file():
            os.replace(path, _previous(path))


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}-previous.pt")


def _intact(path: Path) -> bool:
    """Whether every part of the file has the checksum it was written with."""
    try:
        with zipfile.ZipFile(path) as parts:
            return parts.testzip() is None
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return False


def _restore(
    learners: list[Learner], recipe: Recipe, path: Path, world: World, say: Callable[[str], None]
) -> tuple[int, int | None]:
    """Go on from the state in `path`, or from the one before where it is damaged: epochs done and micro-batch, 0 and None without.

    The micro-batch is None where as many processes cannot share the batch by it.
    """
    for candidate in (path, _previous(path)):
        if not candidate.is_file():
            continue
        if not _intact(candidate):
            say(f"{candidate} is damaged: going on from the state before it")
            continue
        state = torch.load(candidate, weights_only=True, map_location="cpu")
        names = [learner.spec for learner in learners]
        if not set(names) <= set(state["learners"]):  # of some the figures may be written already
            raise ValueError(
                f"{candidate} is of {', '.join(state['learners'])}, not of {', '.join(names)}: resume with the same --strategies"
            )
        if state["threads"] != torch.get_num_threads():
            say(
                f"{candidate} was made with {state['threads']} threads, not {torch.get_num_threads()}: figures will differ by rounding"
            )
        for learner in learners:
            learner.load(state["learners"][learner.spec])
        say(f"resuming after epoch {state['epochs']}")
        fits = recipe.batch_size % (state["micro_batch"] * world.size) == 0
        return state["epochs"], state["micro_batch"] if fits else None
    return 0, None


def clear_state(out: Path, seed: int) -> None:
    """Remove the state of a seed whose figures are written."""
    path = out / f"state-seed{seed}.pt"
    for file in (path, _previous(path)):
        file.unlink(missing_ok=True)


def estimate_seconds(
    strategies: list[MixStrategy],
    recipe: Recipe,
    data: Data,
    device: torch.device,
    workers: int = 0,
    world: World = World(),  # noqa: B008
) -> float:
    """Seconds that training every strategy for one seed will take here, loading included, from a few measured micro-batches.

    A strategy that cannot run counts nothing: training will say why.
    """
    micro = resolve_micro_batch(recipe, device, lambda n: n <= 128, world.size)
    steps = len(data.train.labels) // recipe.batch_size
    count = steps * (recipe.batch_size // (micro * world.size)) * recipe.total_epochs
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(micro, 3, recipe.image_size, recipe.image_size, generator=rng).to(device)
    labels = torch.zeros(micro, dtype=torch.int64, device=device)
    mean, std = (
        torch.tensor(v, device=device).reshape(-1, 1, 1) for v in (recipe.mean, recipe.std)
    )
    training = 0.0
    for strategy in strategies:
        [learner] = prepare([strategy], recipe, len(data.classes), 0, device, steps)
        times = []
        with ExitStack() as stack:
            if learner.tap:
                stack.enter_context(learner.tap)
            for step in range(3):
                clock = Clock(device)
                try:
                    mixed_loss(
                        learner,
                        strategy,
                        images,
                        labels,
                        num_classes=len(data.classes),
                        smoothing=recipe.smoothing,
                        amp=recipe.amp,
                        gradient_amp=recipe.gradient_amp,
                        seed=0,
                        step=step,
                        mean=mean,
                        std=std,
                    ).loss.backward()
                except Exception:
                    break
                clock("step")
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times.append(clock.seconds()["step"])
        training += min(times[1:], default=0.0)
    transform, samples = loader_transform(recipe), min(micro, 32)
    started = time.perf_counter()
    loaded = [(transform(data.train.load(index)), 0) for index in range(samples)]
    loading = (time.perf_counter() - started) / samples * micro / max(workers, 1)
    if recipe.augment_on == "device":
        raw, _ = collate(loaded)
        started = time.perf_counter()
        augment(raw.to(device), mean, std, recipe.remode).sum().item()
        training += (time.perf_counter() - started) / samples * micro
    # worker processes load while the step runs
    return count * (max(loading, training) if workers else loading + training)
