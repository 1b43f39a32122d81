"""One strategy with its own copy of everything that training changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mixbench.mix import MixStrategy, ModelOutput
from mixbench.recipe import Recipe
from mixbench.services.attention import attention_tap
from mixbench.spec import strategy_spec
from mixbench.training.clock import Clock
from mixbench.training.evaluate import Evaluation
from mixbench.training.objective import compiled_parts, compose, label_loss
from mixbench.training.optim import build_optimizer, build_scheduler, recipe_model

NEVER = 2**62


LAMS = 2000  # images of an epoch whose lam is kept


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
            from mixbench.services.network import network_parameters

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
