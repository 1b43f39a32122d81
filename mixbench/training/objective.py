"""What one step computes: mix, run the network, relabel, and the loss. What trains is timed too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mixbench.data.normalisation import Normalisation
from mixbench.mix import MixedBatch, MixStrategy, ModelOutput, hashed_seed, soft_targets
from mixbench.recipe import Recipe
from mixbench.runtime import silent_line
from mixbench.services.context import make_context
from mixbench.strategies.alternate import Alternate
from mixbench.strategies.mixup import Mixup
from mixbench.strategies.none import NoMix
from mixbench.training.batches import Micro
from mixbench.training.forward import Network, compiled_alone
from mixbench.training.guard import Guarded, guarded

Mark = Callable[[str], None]


class StepLoss(NamedTuple):
    """The loss () of a micro-batch, and A's share (B,) by area and in the label."""

    loss: Tensor
    area: Tensor
    lam: Tensor


def unmarked(part: str) -> None:
    """Nobody wants to know when a part of the step ends."""


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """The rows of all parts; of a single part itself, without a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _split(output: ModelOutput, count: int) -> list[ModelOutput]:
    """A model's output by mixing group, all of them alike in size."""
    if count == 1:
        return [output]
    nothing = [None] * count
    parts = [nothing if field is None else field.chunk(count) for field in output]
    return [ModelOutput(*fields) for fields in zip(*parts, strict=True)]


def compose(strategy: MixStrategy, recipe: Recipe) -> MixStrategy:
    """The strategy as the recipe uses it: taking turns with Mixup, on `mix_prob` of the batches.

    `none` stays itself, and so do `mixup` and `alternate` where the recipe alternates.
    """
    if isinstance(strategy, NoMix):
        return strategy
    if recipe.compose == "alternate" and not isinstance(strategy, (Mixup, Alternate)):
        second = Mixup(recipe.mixup_alpha)
        strategy = Alternate(first=strategy, second=second, switch_prob=recipe.switch_prob)
    if recipe.mix_prob < 1:
        strategy = Alternate(first=strategy, second=NoMix(), switch_prob=recipe.mix_prob)
    return strategy


def label_loss(
    strategy: MixStrategy,
    mixed: MixedBatch,
    output: ModelOutput,
    num_classes: int,
    smoothing: float,
) -> tuple[Tensor, Tensor]:
    """The soft-target cross-entropy () of a mixed batch, and A's share of each label (B,)."""
    from timm.loss import SoftTargetCrossEntropy

    lam = strategy.relabel(mixed, output)
    targets = soft_targets(mixed, lam, num_classes, smoothing)
    return SoftTargetCrossEntropy()(output.logits.float(), targets), lam


def _seed(seed: int, device: torch.device) -> None:
    """Seed what layers draw from on a device.

    On a CPU its generator alone: torch.manual_seed takes a hundred times as long, since it visits
    every other kind of device too.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@dataclass(frozen=True, eq=False, kw_only=True)
class Objective:
    """Classification with mixed images and labels, called with a network and a micro-batch."""

    strategy: MixStrategy
    num_classes: int
    smoothing: float
    normalisation: Normalisation
    seed: int
    amp: bool = False  # bfloat16 autocast
    gradient_amp: bool | None = None  # of the input gradient; as amp where None
    say: Callable[[str], None] = silent_line  # hears what a strategy from outside should not do

    def __call__(self, network: Network, micro: Micro, mark: Mark = unmarked) -> StepLoss:
        """The loss of one micro-batch; `mark` hears of 'mix' and 'forward' when they end."""
        groups = [self._mix(network, group) for group in micro.groups()]
        mark("mix")
        # drop path must not depend on who else takes part
        _seed(hashed_seed("forward", self.seed, micro.step, micro.shard), micro.images.device)
        output = self._run(network, _joined([mixed.images for mixed in groups]))
        strategy = self._strategy
        # what holds a strategy to the rules is Python, which a compiler would cut in pieces
        compiled = network.compiled and not isinstance(strategy, Guarded)
        label = self._compiled_label_loss if compiled else label_loss
        losses, lams = zip(
            *(
                label(strategy, mixed, part, self.num_classes, self.smoothing)
                for mixed, part in zip(groups, _split(output, len(groups)), strict=True)
            ),
            strict=True,
        )
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).mean()
        loss = self._with_extra_loss(loss, groups, output)
        if strategy.clean_weight:
            clean = self._run(network, micro.images)
            loss = loss + strategy.clean_weight * nn.functional.cross_entropy(
                clean.logits.float(), micro.labels, label_smoothing=self.smoothing
            )
        mark("forward")
        return StepLoss(loss, _joined([mixed.lam for mixed in groups]), _joined(lams))

    def _mix(self, network: Network, micro: Micro) -> MixedBatch:
        ctx = make_context(
            self._strategy,
            network.model,
            micro.images,
            seed=self.seed,
            step=micro.step,
            shard=micro.shard,
            mean=self.normalisation.mean,
            std=self.normalisation.std,
            progress=micro.progress,
            amp=self.amp,
            gradient_amp=self.gradient_amp,
            compile=network.compiled,
            net=network.logits if network.compiled else None,
            objects=micro.objects,
            part=network.part,
        )
        return self._strategy.mix(micro.images, micro.labels, ctx)

    def _with_extra_loss(
        self, loss: Tensor, groups: Sequence[MixedBatch], output: ModelOutput
    ) -> Tensor:
        """The loss and the mean of the groups' extra losses; a group without any counts as 0."""
        for mixed, part in zip(groups, _split(output, len(groups)), strict=True):
            with torch.autocast(mixed.images.device.type, torch.bfloat16, enabled=self.amp):
                extra = self._strategy.extra_loss(mixed, part)
            if extra is not None:
                loss = loss + extra.float() / len(groups)
        return loss

    def _run(self, network: Network, images: Tensor) -> ModelOutput:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.amp):
            return network(images)

    @cached_property
    def _strategy(self) -> MixStrategy:
        """The strategy as it runs: one from outside is held to the rules."""
        return guarded(self.strategy, self.say)

    @cached_property
    def _compiled_label_loss(self) -> Callable[..., tuple[Tensor, Tensor]]:
        return compiled_alone(label_loss)
