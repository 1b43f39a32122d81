"""What one step computes: mix, forward, relabel, loss."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from mixbench.mix import MixedBatch, MixStrategy, ModelOutput, hashed_seed, soft_targets
from mixbench.recipe import Recipe
from mixbench.services.context import make_context

if TYPE_CHECKING:
    from mixbench.training.learner import Learner


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
