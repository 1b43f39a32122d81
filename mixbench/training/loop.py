"""Training several strategies side by side: one loader, one initial model, one step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice

from torch import Tensor

from mixbench.data.loaders import eval_loader
from mixbench.data.memory import MemorySource
from mixbench.data.sources import Data
from mixbench.mix import MixStrategy
from mixbench.models.start import start_model
from mixbench.recipe import Recipe
from mixbench.runtime import Failed, Runtime
from mixbench.training import state
from mixbench.training.batches import Batches, Sizes, agreed_sizes, check_groups
from mixbench.training.evaluate import evaluate, is_evaluated
from mixbench.training.learner import Learner, alive, due, in_turn, prepare


def train(
    strategies: Sequence[MixStrategy],
    recipe: Recipe,
    data: Data,
    runtime: Runtime,
    sizes: Sizes | None = None,
) -> list[Learner]:
    """Train every strategy on the same augmented batches; the learners, some of which have failed.

    Without sizes the batch is divided by what fits in memory, whatever the number of strategies.

    Where the runtime has a directory, each strategy's log.csv grows by a row an epoch, the state of
    all is kept after each epoch, and their weights are written at the end; with `resume` training
    goes on from that state, to the same numbers.
    """
    steps = len(data.train.labels) // recipe.batch_size
    initial = start_model(recipe, data.classes, runtime.seed)
    # before the learners take memory: figures depend on sizes, and not on company
    sizes = sizes or agreed_sizes(initial, recipe, runtime)
    learners = prepare(strategies, recipe, len(data.classes), runtime, max(steps, 1), initial)
    del initial
    subject = state.Subject.of(recipe, data)
    start = state.restore(learners, recipe, subject, runtime)
    begun = min((learner.epochs for learner in alive(learners)), default=recipe.total_epochs)
    before = {learner.spec: (learner.epochs, learner.seconds) for learner in learners}
    sizes = start.sizes or sizes
    check_groups(strategies, recipe, sizes)
    objects = any(learner.needs.objects for learner in learners)
    batches = Batches(data, recipe, sizes, runtime, objects)
    val = eval_loader(data.val, recipe, runtime.workers, runtime.device, runtime.world)
    with ExitStack() as stack:
        for learner in learners:
            stack.enter_context(learner.network)
        for epoch in range(begun, recipe.total_epochs):
            if not due(learners, epoch):
                continue  # those behind have failed
            train_epoch(learners, batches, epoch, runtime)
            evaluate_epoch(learners, batches, val, recipe, epoch, runtime)
            state.keep(learners, start, sizes, subject, runtime)
    waiting, trained = batches.waiting, (recipe.total_epochs - begun) * batches.steps
    if waiting.total:
        cached = isinstance(data.train, MemorySource)
        sentence = waiting.sentence(recipe, cached=cached, device=runtime.device)
        runtime.say(f"seed {runtime.seed}  {sentence}")
    for learner in learners:
        learner.loading_share = waiting.share
        learner.mix_group = sizes.mix_group
        epochs, seconds = before[learner.spec]
        if waiting.total and learner.failure is None and epochs == begun:
            seconds = learner.seconds - seconds + waiting.waited
            learner.train_im_per_sec = trained * recipe.batch_size / seconds
        _finish(learner, val, recipe, data, runtime)
    return learners


def train_epoch(
    learners: Sequence[Learner], batches: Batches, epoch: int, runtime: Runtime
) -> None:
    """One epoch: every learner takes each micro-batch, and changes its weights after a step's last.

    An exception ends its learner alone, and the failure of one process is everyone's before any
    exchange of gradients.
    """
    running = [learner.begin(epoch) for learner in due(learners, epoch)]
    for micro in batches.of(epoch):
        for learner in in_turn(running, micro.step):
            learner.accumulate(micro)
            if micro.last and runtime.agree(learner):
                learner.update(micro.step)


def evaluate_epoch(
    learners: Sequence[Learner],
    batches: Batches,
    val: Iterable[tuple[Tensor, Tensor]],
    recipe: Recipe,
    epoch: int,
    runtime: Runtime,
) -> None:
    """Evaluate every learner that is alive, where it is time to, write its log and say how it did.

    Processes go on with one network: the mean of their running statistics. Evaluation changes
    nothing that training goes on from.
    """
    running = [learner for learner in due(learners, epoch) if runtime.agree(learner)]
    models = [model for learner in running for model in learner.models]
    for model in models:
        runtime.world.average_statistics(model)
    evaluated = is_evaluated(epoch, recipe.total_epochs, runtime.val_interval)
    results = iter(evaluate(models, val, recipe.amp, runtime) if evaluated else [])
    last_step = (epoch + 1) * batches.steps - 1
    for learner in running:
        evaluations = list(islice(results, len(learner.models)))
        sentence = ""
        if learner.close(evaluations, last_step, batches.steps * batches.parts):
            row = learner.log[-1]
            state.write_log(learner, runtime)
            figures = {name: value for name, value in asdict(row).items() if value is not None}
            runtime.logger.log(learner.spec, runtime.seed, row.epoch, figures)
            sentence = f"loss {row.train_loss:.3f}"
            if row.top1 is not None:
                sentence += f"  top-1 {row.top1:.1f}"
        if learner.failure:
            sentence = learner.failure.reason
        runtime.say(
            f"seed {runtime.seed}  epoch {epoch + 1}/{recipe.total_epochs}  {learner.spec}  "
            f"{sentence}"
        )


def _finish(
    learner: Learner,
    val: Iterable[tuple[Tensor, Tensor]],
    recipe: Recipe,
    data: Data,
    runtime: Runtime,
) -> None:
    """Evaluate a learner that was resumed after its last epoch, and write its weights."""
    if learner.failure is None and learner.evaluation is None and learner.log:
        [result] = evaluate([learner.headline], val, recipe.amp, runtime)
        if isinstance(result, Failed):
            learner.stop(result)
        else:
            learner.evaluation = result
    if learner.failure is None:
        state.write_weights(learner, recipe, data.identity, runtime)
