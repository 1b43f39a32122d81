"""One strategy with a copy of everything that training changes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor, nn

from mixbench.data.normalisation import Normalisation
from mixbench.mix import MixStrategy, Needs
from mixbench.models.build import recipe_model
from mixbench.recipe import Recipe
from mixbench.runs.rows import EpochRow
from mixbench.runtime import Failed, Runtime, explain
from mixbench.services.network import network_parameters
from mixbench.spec import strategy_spec
from mixbench.training.batches import Micro
from mixbench.training.clock import Clock
from mixbench.training.evaluate import Evaluation
from mixbench.training.forward import Network
from mixbench.training.guard import needs_of
from mixbench.training.objective import Objective, StepLoss, compose
from mixbench.training.optim import build_ema, build_optimizer, build_scheduler, schedule
from mixbench.training.parts import attach, build_part, inner_part, part_count

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler
    from timm.utils import ModelEmaV3

NEVER = 2**62  # the step at which a learner diverges that does not
LAMS = 2000  # images of an epoch whose shares are kept


@dataclass
class Epoch:
    """What a learner gathers in one epoch; sums stay on the device until its end."""

    number: int
    loss: Tensor  # () sum over the micro-batches
    bad_step: Tensor  # () int64, the first step whose loss was not finite; NEVER while all are
    area: list[Tensor] = field(default_factory=list)  # (B,) each, A's share of the pixels
    lam: list[Tensor] = field(default_factory=list)  # (B,) each, A's share of the label
    clocks: list[Clock] = field(default_factory=list)

    def add(self, step: int, result: StepLoss) -> None:
        """Take in one micro-batch."""
        loss = result.loss.detach()
        self.bad_step = torch.minimum(self.bad_step, torch.where(loss.isfinite(), NEVER, step))
        self.loss += loss
        if len(self.lam) * len(result.lam) < LAMS:
            self.area.append(result.area)
            self.lam.append(result.lam.detach())

    def seconds(self) -> float:
        """Seconds of the learner's steps; the device has come to their end."""
        return sum(sum(clock.seconds().values()) for clock in self.clocks)


class Outcome(TypedDict):
    """How far a learner came, as plain data that is read without running code."""

    failure: str | None
    seconds: float
    log: list[dict[str, Any]]  # EpochRow's fields


class State(Outcome, total=False):
    """All that a learner's next epoch depends on; without weights where its first epoch failed."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None


class Learner:
    """One strategy with its copy of model, optimizer, schedule and EMA.

    It survives its failures: whatever a strategy or a model raises becomes `trouble` in this
    process and, once all processes know of it, `failure`; the others go on.
    """

    def __init__(
        self,
        strategy: MixStrategy,
        needs: Needs,
        network: Network,
        objective: Objective,
        recipe: Recipe,
        runtime: Runtime,
        steps_per_epoch: int,
    ):
        self.strategy = strategy  # as the user named it; the objective's is as the recipe uses it
        self.spec = strategy_spec(strategy)  # read once: it names rows and files
        self.needs = needs
        self.network = network
        self.objective = objective
        self.optimizer = build_optimizer(network.model, recipe)
        self.scheduler: Scheduler = build_scheduler(self.optimizer, recipe, steps_per_epoch)
        self.ema: ModelEmaV3 | None = build_ema(network.model, recipe)
        self.failure: Failed | None = None
        self.trouble: Failed | None = None
        self.seconds = 0.0  # of its steps, over all epochs
        self.log: list[EpochRow] = []
        self.evaluation: Evaluation | None = None  # of the headline's weights, last epoch
        self.train_im_per_sec: float | None = None  # of the epochs that this process trained
        self.loading_share: float | None = None
        self.mix_group: int | None = None  # images that shared one draw of the mixing
        self._recipe, self._runtime = recipe, runtime
        self._gradients: Tensor | None = None  # in one vector, where processes average them
        self.epoch = self._new_epoch(0)

    def _new_epoch(self, number: int) -> Epoch:
        device = self._runtime.device
        return Epoch(
            number,
            loss=torch.zeros((), device=device),
            bad_step=torch.full((), NEVER, device=device),
        )

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return len(self.log)

    @property
    def model(self) -> nn.Module:
        """The raw weights."""
        return self.network.model

    def network_alone(self) -> Network:
        """The network of the strategy itself, without those that it takes turns with."""
        part = inner_part(self.objective.strategy, self.strategy, self.network.part)
        return Network(self.model, self.needs, self.network.normalisation, part=part)

    @property
    def models(self) -> list[nn.Module]:
        """What is evaluated: the raw weights and, where there are any, the averaged ones."""
        return [self.model] if self.ema is None else [self.model, self.ema.module]

    @property
    def headline(self) -> nn.Module:
        """The weights that the recipe reports.

        Differs: of the last epoch; TransMix's released code reports the best epoch of the EMA.
        """
        if self._recipe.headline == "ema" and self.ema is not None:
            return self.ema.module
        return self.model

    # The steps of the loop.

    def begin(self, epoch: int) -> Learner:
        """Make ready for an epoch; the learner itself."""
        self.model.train()
        self.epoch = self._new_epoch(epoch)
        return self

    def accumulate(self, micro: Micro) -> None:
        """Mix, forward, relabel, loss and backward; with the last part, gradients are gathered."""
        if self.trouble is not None:
            return
        clock = Clock(self._runtime.device)
        try:
            if micro.first:
                schedule(self.scheduler, self._recipe, self.epoch.number, micro.step)
            result = self.objective(self.network, micro)
            (result.loss / micro.parts).backward()
            self.epoch.add(micro.step, result)
            if micro.last:
                self._gradients = self._runtime.world.flat_gradients(self.model)
        except Exception as error:  # a plug-in may raise anything: its row says so
            self.trouble = explain(error)
        clock("accumulate")
        self.epoch.clocks.append(clock)

    def update(self, step: int) -> None:
        """Average the gradients over the processes and change the weights.

        The clock of the step's last micro-batch goes on: waiting for other processes counts.
        """
        self._runtime.world.average_gradients(self.model, self._gradients)
        self._gradients = None
        try:
            if self._recipe.clip_grad is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self._recipe.clip_grad)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if self.ema is not None:
                # timm's train.py counts the updates that are done, this one included
                self.ema.update(self.model, step=step + 1)
        except Exception as error:
            self.trouble = explain(error)
        self.epoch.clocks[-1]("update")

    def stop(self, failure: Failed) -> None:
        """Take no further part."""
        self.failure = failure
        self._gradients = None
        self.optimizer.zero_grad(set_to_none=True)

    def close(self, evaluations: Sequence[Evaluation | Failed], step: int, batches: int) -> bool:
        """Take in what was seen of `models` after an epoch that ended with `step`; a row is made.

        batches is the epoch's number of micro-batches in this process. Without evaluations the row
        has no figures of validation. False where a model could not be run, and there is no row.
        """
        self.network.forget()
        usable = []
        for result in evaluations:
            if isinstance(result, Failed):
                self.failure = result
                return False
            usable.append(result)
        raw = usable[0] if usable else None
        ema = usable[1] if len(usable) > 1 else None
        self.evaluation = ema if self._recipe.headline == "ema" else raw
        self.seconds += self.epoch.seconds()
        world = self._runtime.world
        bad_step = self._bad_step(usable, step)
        if bad_step != NEVER:
            self.failure = Failed(f"diverged at step {bad_step}")
        self.log.append(
            EpochRow(
                epoch=self.epoch.number,
                lr=max(group["lr"] for group in self.optimizer.param_groups),  # the classifier's
                train_loss=float(world.total(self.epoch.loss)) / max(batches * world.size, 1),
                top1=None if raw is None else raw.top(1),
                top5=None if raw is None else raw.top(5),
                top1_ema=None if ema is None else ema.top(1),
                top5_ema=None if ema is None else ema.top(5),
                val_nll=None if raw is None else raw.mean_nll,
                val_nll_ema=None if ema is None else ema.mean_nll,
                seconds=self.seconds,
            )
        )
        return True

    def _bad_step(self, evaluations: Sequence[Evaluation], step: int) -> int:
        """The first step of an epoch, which ended with `step`, that was not finite; or NEVER.

        No loss has seen the last update: the likelihoods say whether it was or, where nothing was
        evaluated, the weights, so that a state never holds weights that are not finite.
        """
        bad_step = self.epoch.bad_step
        if not evaluations:
            parameters = list(self.model.parameters())
            finite = torch.stack([each.isfinite().all() for each in parameters]).all()
            bad_step = torch.minimum(bad_step, torch.where(finite, NEVER, step))
        first = int(self._runtime.world.lowest(bad_step))
        if first == NEVER and not all(each.finite for each in evaluations):
            return step
        return first

    # What is kept on disk.

    def outcome(self) -> Outcome:
        """How far it came."""
        return Outcome(
            failure=self.failure.reason if self.failure else None,
            seconds=self.seconds,
            log=[asdict(row) for row in self.log],
        )

    def state(self) -> State:
        """All that the next epoch depends on, and the outcome so far."""
        return State(
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            ema=self.ema.module.state_dict() if self.ema is not None else None,
            **self.outcome(),
        )

    def load(self, state: State) -> None:
        """Go on from `state`."""
        if "model" in state:  # else it failed in its first epoch
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["ema"])
        self.failure = Failed(state["failure"]) if state["failure"] else None
        self.seconds = state["seconds"]
        self.log = [EpochRow(**row) for row in state["log"]]


def alive(learners: Iterable[Learner]) -> list[Learner]:
    """The learners that have not failed."""
    return [learner for learner in learners if learner.failure is None]


def due(learners: Iterable[Learner], epoch: int) -> list[Learner]:
    """The learners that have an epoch before them; after a resume some may be ahead of others."""
    return [learner for learner in alive(learners) if learner.epochs <= epoch]


def in_turn(learners: Sequence[Learner], step: int) -> Iterator[Learner]:
    """The learners that have not failed, each first after the loader as often.

    The loader works hardest right after a batch, and whoever comes then shares the cores with it.
    """
    first = step % len(learners)
    for learner in (*learners[first:], *learners[:first]):
        if learner.failure is None:
            yield learner


def extra_params_m(needs: Needs, network: Network) -> float:
    """Millions of parameters that a strategy needs beside the model.

    They are an external network's, an attention provider's, and those it builds.
    """
    count = network.extra_parameters + part_count(network.model)
    if needs.network:
        count += network_parameters(needs.network)
    return count / 1e6


def prepare(
    strategies: Sequence[MixStrategy],
    recipe: Recipe,
    num_classes: int,
    runtime: Runtime,
    steps_per_epoch: int,
    initial: nn.Module | None = None,
) -> list[Learner]:
    """A learner for each strategy, all with a copy of `initial`.

    That is the recipe's model with weights drawn from the runtime's seed where it is None.
    NoClassAttention where a strategy asks for attention in vain.
    """
    if initial is None:
        initial = recipe_model(recipe, num_classes, runtime.seed)
    normalisation = Normalisation.of(recipe.mean, recipe.std, runtime.device)
    learners = []
    for strategy in strategies:
        needs, failure = needs_of(strategy)
        model = copy.deepcopy(initial).to(runtime.device)
        composed = strategy if failure else compose(strategy, recipe)
        part = None
        if failure is None:
            try:
                part = build_part(composed, model, num_classes, recipe.image_size, runtime.seed)
                attach(model, part)
            except Exception as error:  # a plug-in may raise anything
                failure = explain(error)
        network = Network(model, needs, normalisation, part=part, compile=recipe.compile)
        objective = Objective(
            strategy=composed,
            num_classes=num_classes,
            smoothing=recipe.smoothing,
            normalisation=normalisation,
            seed=runtime.seed,
            amp=recipe.amp,
            gradient_amp=recipe.gradient_amp,
            say=runtime.say,
        )
        learner = Learner(strategy, needs, network, objective, recipe, runtime, steps_per_epoch)
        learner.failure = failure
        learners.append(learner)
    return learners
