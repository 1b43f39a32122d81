"""The context of a mix: the services that a strategy's `needs` name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn
from mixbench.mix import MixContext, MixStrategy, step_rng, to_pixels
from mixbench.services.gradient import input_gradient


def make_context(
    strategy: MixStrategy,
    model: nn.Module,
    images: Tensor,
    *,
    seed: int,
    step: int,
    shard: int = 0,
    mean: Tensor | Sequence[float],
    std: Tensor | Sequence[float],
    progress: float = 0.0,
    amp: bool = False,
    compile: bool = False,
    net: Callable[[Tensor], Tensor] | None = None,
) -> MixContext:
    """The context that `strategy.mix` needs for this batch in anyone's own loop.

    images (B, C, H, W) normalised by mean and std, each (C,) or (C, 1, 1); seed, step and shard name the draws; `amp` takes the
    input gradient in bfloat16, `net` is as in input_gradient; `compile` compiles the tensor half of the mix.
    """
    import torch

    mean, std = (
        torch.as_tensor(v, dtype=torch.float32, device=images.device).reshape(-1, 1, 1)
        for v in (mean, std)
    )
    needs = strategy.needs
    features = None
    if needs.network:
        from mixbench.services.network import external_network

        network = external_network(needs.network, images.device)
        features = lambda x: network(x, mean, std)  # noqa: E731
    return MixContext(
        rng=step_rng(seed, step, shard),
        mean=mean,
        std=std,
        pixels=to_pixels(images, mean, std) if needs.pixels else None,
        input_gradient=(lambda x, y: input_gradient(model, x, y, amp, net))
        if needs.input_gradient
        else None,
        features=features,
        progress=progress,
        compile=compile,
    )
