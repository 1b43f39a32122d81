"""A strategy in anyone's own training loop: the loss of a batch that is mixed and labelled by it.

`mixed_loss` stands where `loss = criterion(model(images), labels)` stood, and `MixedCriterion` is
the same with what never changes held and the steps counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mixbench.data.normalisation import Normalisation
from mixbench.mix import MixStrategy, ModelOutput, soft_targets
from mixbench.models.class_token import (
    NoClassAttention,
    class_attention_of,
    is_compiled,
    model_name,
)
from mixbench.runtime import Logger as Logger  # what `compare(log=...)` takes
from mixbench.services.context import make_context
from mixbench.services.tokens import tap_of

Values = Tensor | Sequence[float]

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": F.cross_entropy,
    # The mean over images and classes, timm's BinaryCrossEntropy without a threshold.
    # Differs: DeiT III counts any share of a class above 0 as 1, which no strategy could relabel.
    "bce": F.binary_cross_entropy_with_logits,
}


def mixed_loss(
    strategy: MixStrategy,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    step: int,
    seed: int = 0,
    shard: int = 0,
    mean: Values,
    std: Values,
    smoothing: float = 0.0,
    loss: str = "ce",
    progress: float = 0.0,
    objects: Tensor | None = None,
) -> Tensor:
    """The loss () of a batch: mixed, run through the model once, and relabelled by the strategy.

    model is what your loop calls: wrapped, compiled, around a timm ViT, or Hugging Face's; it gives
    logits (B, K), or an object that holds them as `.logits`. images (B, C, H, W) are normalised by
    mean and std; labels are class numbers (B,). seed, step and shard name the draws, and processes
    differ in `shard`. loss is 'ce' or 'bce'; `progress` is the share of training done, `objects`
    (B, 1, H, W) are masks as in MixContext, for a strategy that asks for them. What a strategy's
    `build` gives is found at `model.mixing`, where you put it before the optimizer was made. Under
    autocast of any type the gradient by the images, where a strategy asks for it, is bfloat16's.
    ValueError for what does not fit.
    """
    _check_settings(strategy, loss, smoothing)
    _check_labels(images, labels, num_classes)
    bare = _unwrapped(model)
    ctx = make_context(
        strategy,
        bare,
        images,
        seed=seed,
        step=step,
        shard=shard,
        mean=mean,
        std=std,
        progress=progress,
        amp=torch.is_autocast_enabled(images.device.type),
        net=partial(_logits, bare, num_classes),
        objects=objects,
    )
    mixed = strategy.mix(images, labels, ctx)
    net, needs = partial(_logits, model, num_classes), strategy.needs
    watched = _attending(bare) if needs.attention or needs.tokens else bare
    # of the host: a provider's is compared with it, for which no step has to wait
    tap = tap_of(watched, needs, net, Normalisation.of(mean, std))
    # The clean pass too runs inside the tap: one compiled graph serves both.
    with tap or nullcontext():
        output = _whole(tap(mixed.images), model) if tap else ModelOutput(net(mixed.images))
        targets = soft_targets(mixed, strategy.relabel(mixed, output), num_classes, smoothing)
        total = LOSSES[loss](output.logits.float(), targets)
        extra = strategy.extra_loss(mixed, output)
        if extra is not None:
            total = total + extra.float()
        if strategy.clean_weight:  # Puzzle-Mix's loss on the unmixed batch
            clean = F.one_hot(labels.long(), num_classes) * (1 - smoothing)
            clean = clean + smoothing / num_classes
            total = total + strategy.clean_weight * LOSSES[loss](net(images).float(), clean)
    return total


class MixedCriterion(nn.Module):
    """mixed_loss with its settings held: `loss = criterion(model, images, labels)`.

    Each call is a step of its own. A loop that numbers its steps gives `step`, and calls of the
    same step are its micro-batches. Processes of torch.distributed draw differently. The count is
    in `state_dict`, so that a resumed loop goes on drawing where it stopped.
    """

    def __init__(
        self,
        strategy: MixStrategy,
        *,
        num_classes: int,
        mean: Values,
        std: Values,
        seed: int = 0,
        smoothing: float = 0.0,
        loss: str = "ce",
    ):
        super().__init__()
        _check_settings(strategy, loss, smoothing)
        if not bool((torch.as_tensor(std) > 0).all()):
            raise ValueError(f"std must be above 0 for each channel, not {std}")
        self.strategy, self.seed = strategy, seed
        self.num_classes, self.smoothing, self.loss = num_classes, smoothing, loss
        self.mean, self.std = mean, std
        self._step, self._micro = -1, 0  # of the last call

    def forward(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        step: int | None = None,
        progress: float = 0.0,
        objects: Tensor | None = None,
    ) -> Tensor:
        """The loss () of a batch; model, images and labels are as in mixed_loss."""
        self._micro = self._micro + 1 if step == self._step else 0
        self._step = self._step + 1 if step is None else step
        rank, size = (dist.get_rank(), dist.get_world_size()) if _many_processes() else (0, 1)
        return mixed_loss(
            self.strategy,
            model,
            images,
            labels,
            num_classes=self.num_classes,
            step=self._step,
            seed=self.seed,
            shard=self._micro * size + rank,
            mean=self.mean,
            std=self.std,
            smoothing=self.smoothing,
            loss=self.loss,
            progress=progress,
            objects=objects,
        )

    def get_extra_state(self) -> Tensor:
        """The count as a tensor, which every format of checkpoints takes, int64 (2,)."""
        return torch.tensor([self._step, self._micro])

    def set_extra_state(self, state: Tensor) -> None:
        """Go on counting from there."""
        self._step, self._micro = state.tolist()


def _many_processes() -> bool:
    return dist.is_available() and dist.is_initialized()


def _check_settings(strategy: Any, loss: str, smoothing: float) -> None:
    if not isinstance(strategy, MixStrategy):
        raise ValueError(
            f"strategy must be a MixStrategy, not {strategy!r:.80}: make it by "
            "create_strategy('transmix')"
        )
    if loss not in LOSSES:
        raise ValueError(f"loss must be 'ce' or 'bce', not {loss!r}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be 0 or more and below 1, not {smoothing}")


def _check_labels(images: Tensor, labels: Any, num_classes: int) -> None:
    if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.dtype.is_floating_point:
        what = (
            f"{labels.dtype} of shape {tuple(labels.shape)}"
            if isinstance(labels, Tensor)
            else type(labels).__name__
        )
        raise ValueError(
            f"labels must be class numbers of shape (B,), one for each image, not {what}: turn the "
            "loop's own mixing and one-hot labels off (timm: --mixup 0 --cutmix 0); images with "
            "several labels cannot be mixed by these strategies"
        )
    if len(labels) != len(images):
        raise ValueError(f"a batch of {len(images)} images came with {len(labels)} labels")
    if labels.is_cpu and len(labels):  # a GPU would be waited for
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"labels must be from 0 to {num_classes - 1} with num_classes={num_classes}, and "
                f"these are from {low} to {high}"
            )


def _logits(model: nn.Module, num_classes: int, images: Tensor) -> Tensor:
    """The logits (B, K) of a model, which gives them or holds them in its output."""
    output = model(images)
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"{model_name(_unwrapped(model))} must give logits (B, K), or an object that holds them"
            f" as .logits, not {type(output).__name__}: give a model whose forward returns them"
        )
    if logits.shape != (len(images), num_classes):
        raise ValueError(
            f"{model_name(_unwrapped(model))} must give logits of shape "
            f"{(len(images), num_classes)}, not {tuple(logits.shape)}: num_classes={num_classes} "
            "and the classes of its head must be equal"
        )
    return logits


def _unwrapped(model: Any) -> Any:
    """The module inside DistributedDataParallel, DataParallel and torch.compile's wrapper."""
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        elif is_compiled(model):
            model = model._orig_mod
        else:
            return model


def _attending(model: nn.Module) -> nn.Module:
    """The model or the part of it whose class token attends; the model where nothing does.

    NoClassAttention where several parts do.
    """
    parts: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}." if outer else "") for outer in parts)
        if not inside and class_attention_of(module):
            parts[path] = module
    if len(parts) > 1:
        raise NoClassAttention(
            f"{model_name(model)} holds several models with class attention "
            f"({', '.join(parts)}): keep all but the trained one outside it, or choose an "
            "attention provider such as transmix(attention=dino)"
        )
    return _unwrapped(*parts.values()) if parts else model


def _whole(output: ModelOutput, model: nn.Module) -> ModelOutput:
    """The output itself, where attention and tokens are of all images of the batch."""
    for seen in (output.attn, output.tokens):
        if seen is not None and len(seen) != len(output.logits):
            raise NoClassAttention(
                f"the attention of {len(seen)} images was seen in a batch of "
                f"{len(output.logits)}, as where {type(model).__name__} runs the batch in parts: "
                "use DistributedDataParallel in place of DataParallel, or a strategy without "
                "attention (cutmix)"
            )
    return output
