"""The context of a mix: the services that a strategy's `needs` name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from mixbench.data.normalisation import Normalisation
from mixbench.mix import MixContext, MixStrategy, step_rng
from mixbench.models.class_token import patch_grid
from mixbench.services.gradient import input_gradient
from mixbench.services.look import make_look


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
    gradient_amp: bool | None = None,
    compile: bool = False,
    net: Callable[[Tensor], Tensor] | None = None,
    objects: Tensor | None = None,
    part: nn.Module | None = None,
) -> MixContext:
    """The context that `strategy.mix` needs for this batch in anyone's own loop.

    images (B, C, H, W) are normalised by mean and std, each (C,) or (C, 1, 1); seed, step and shard
    name the draws; `amp` runs the model in bfloat16, but for the input gradient where gradient_amp
    says otherwise; `net` is as in input_gradient; `compile` compiles the deterministic part of the
    mix. objects (B, 1, H, W) are as in MixContext. part is what the strategy's `build` gave,
    `model.mixing` where it is None. ValueError where the strategy needs objects and has none.
    """
    normalisation = Normalisation.of(mean, std, images.device)
    needs = strategy.needs
    pixels = gradient = features = None
    if needs.pixels:
        pixels = normalisation.pixels(images)
    if needs.input_gradient:
        gradient = partial(
            input_gradient, model, amp=amp if gradient_amp is None else gradient_amp, net=net
        )
    wanted = (len(images), 1, *images.shape[-2:])
    if needs.objects and objects is not None and tuple(objects.shape) != wanted:
        raise ValueError(f"objects must be masks {wanted}, not {tuple(objects.shape)}")
    if needs.objects and objects is None:
        raise ValueError(
            "the strategy needs the objects' masks, (B, 1, H, W): hand them on as objects, or "
            "choose another strategy"
        )
    if needs.network:
        from mixbench.services.network import external_network

        network = external_network(needs.network, images.device)
        features = partial(network, normalisation=normalisation)
    return MixContext(
        rng=step_rng(seed, step, shard),
        mean=normalisation.mean,
        std=normalisation.std,
        pixels=pixels,
        input_gradient=gradient,
        features=features,
        grid=patch_grid(model, *images.shape[-2:]),
        look=make_look(model, needs.look, amp=amp, net=net) if needs.look else None,
        objects=objects if needs.objects else None,
        part=getattr(model, "mixing", None) if part is None else part,
        progress=progress,
        compile=compile,
    )
