"""Puzzle-Mix (Kim et al., ICML 2020): each image shows where it is salient, or moves there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mixbench.mix import (
    MixContext,
    MixedBatch,
    MixStrategy,
    Needs,
    beta,
    blend,
    mirrored,
    parts_of_mix,
    randint,
    send,
    uniform,
)
from mixbench.registry import register_strategy
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor

BLOCKS = (2, 4, 8, 16)  # blocks along a side
LARGEST = 1e6  # weight of a term; others are lost beside a larger one, which overflows at last


def cell_size(height: int, width: int, neigh_size: int) -> int:
    """The side in pixels of the cells by which blocks of height x width are compared.

    neigh_size where it fits.
    """
    return math.gcd(height, width, min(height, width, neigh_size))


def block_numbers(height: int, width: int, neigh_size: int) -> list[int]:
    """The numbers of blocks along both sides that leave no pixel over in blocks, nor in cells.

    Cells are neigh_size pixels wide.
    Differs: the official code fails on numbers that leave cells over, such as 16 at 224 pixels with
    neigh_size 4. Where all do, cells are smaller. ValueError where no number of blocks fits.
    """
    numbers = [n for n in BLOCKS if height % n == 0 and width % n == 0]
    if not numbers:
        raise ValueError(
            f"puzzlemix cuts images into 2x2, 4x4, 8x8 or 16x16 equal blocks, which "
            f"{height}x{width} pixels do not allow: "
            f"both sides must be even, such as {height + height % 2}x{width + width % 2}"
        )
    sizes = {n: (height // n, width // n) for n in numbers}
    return [
        n for n, size in sizes.items() if cell_size(*size, neigh_size) == min(*size, neigh_size)
    ] or numbers


def compose_blocks(
    ours: Tensor, theirs: Tensor, mask: Tensor, saliency: Tensor, eps: float | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images (B, C, H, W) blended by the shares `mask` of blocks, and their mask, (B, 1, H, W).

    mask and the saliency of `ours` are (B, n, n). With eps each side's salient blocks move where
    they show, and the source of each block of both sides comes third, (2 * B, n * n) int64.
    """
    import torch

    from mixbench.puzzle.transport import move_blocks, transport

    sources = None
    if eps is not None:  # both sides at once: half the launches on a GPU
        sources = transport(
            torch.cat((mask, 1 - mask)), torch.cat((saliency, saliency.flip(0))), eps
        )
        our_source, their_source = sources.chunk(2)
        ours, theirs = move_blocks(ours, our_source), move_blocks(theirs, their_source)
    n, (height, width) = mask.shape[1], ours.shape[-2:]
    mask = mask.repeat_interleave(height // n, 1).repeat_interleave(width // n, 2)[:, None]
    return blend(ours, theirs, mask), mask, sources


def transported(sources: Tensor, mask: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """A's and B's parts of mixed maps whose blocks moved as the images' did, (B, C, H, W) each.

    sources and the mask (B, 1, H, W) are compose_blocks's.
    """
    from mixbench.puzzle.transport import move_blocks

    ours, theirs = sources.chunk(2)
    return parts_of_mix(move_blocks(maps, ours), move_blocks(maps.flip(0), theirs), mask)


@register_strategy("puzzlemix")
@dataclass(frozen=True)
class PuzzleMix(MixStrategy):
    """A mask of 2 to 4 levels on a grid of blocks hides least saliency, and blocks move under it.

    `alpha` of Beta(alpha, alpha) gives a prior of A's share, `eta` its weight; `beta` and `gamma`
    smooth the mask, `gamma` where the images agree; `neigh_size` averages pixels before they are
    compared. `clean_lam` is the weight of the loss on the unmixed batch. With probability `adv_p`
    each, drawn for A and for B, that side is perturbed by at most `adv_eps` / 255 along the sign of
    the gradient.

    Differs: the partner is the mirrored batch; the official code permutes. The saliency pass never
    reaches the parameters' gradients: with `clean_lam` the harness runs the unmixed batch once
    more, where the official code keeps the gradients of the saliency pass.
    """

    alpha: float = parameter(1.0, above=0)
    num_labels: int = parameter(3, at_least=2, at_most=4)
    beta: float = parameter(1.2, at_least=0, at_most=LARGEST)
    # gamma above 1 could make edges negative, and the mask's problem hard
    gamma: float = parameter(0.5, at_least=0, at_most=1)
    eta: float = parameter(0.2, at_least=0, at_most=LARGEST)
    neigh_size: int = parameter(2, at_least=1, at_most=2**16)
    transport: bool = parameter(True)
    transport_eps: float = parameter(0.8, at_least=0, at_most=LARGEST)
    clean_lam: float = parameter(0.0, at_least=0, at_most=LARGEST)
    adv_p: float = parameter(0.0, at_least=0, at_most=1)
    adv_eps: float = parameter(10.0, at_least=0, at_most=255)

    def __post_init__(self) -> None:
        check_parameters(self, PuzzleMix, "puzzlemix")

    @property
    def needs(self) -> Needs:
        return Needs(input_gradient=True)

    @property
    def clean_weight(self) -> float:
        return self.clean_lam

    @property
    def moves_pixels(self) -> bool:
        return self.transport or self.adv_p > 0

    def check_images(self, height: int, width: int, grid: tuple[int, int] | None) -> None:
        block_numbers(height, width, self.neigh_size)

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        from mixbench.puzzle.energy import block_saliency, mask_energy
        from mixbench.puzzle.mask import solve_mask

        if ctx.input_gradient is None:
            raise ValueError(
                "puzzlemix needs MixContext.input_gradient: make the context with "
                "mixbench.make_context"
            )
        height, width = images.shape[-2:]
        numbers = block_numbers(height, width, self.neigh_size)
        n = numbers[randint(ctx.rng, len(numbers))]
        share = beta(ctx.rng, self.alpha)
        ours, theirs = images, images.flip(0)
        perturbed = self.adv_p > 0 and [uniform(ctx.rng) < self.adv_p for _ in "AB"]
        if perturbed and any(perturbed):
            gradient, noisy = self._perturb(images, labels, ctx, ctx.input_gradient)
            ours = noisy if perturbed[0] else ours
            theirs = noisy.flip(0) if perturbed[1] else theirs
        else:
            gradient = ctx.input_gradient(images, labels)
        saliency = ctx.tensor_half(block_saliency)(gradient, n)
        cell = cell_size(height // n, width // n, self.neigh_size)
        terms = ctx.tensor_half(mask_energy)(
            saliency,
            images,
            ctx.std,
            send(share, images),
            num_labels=self.num_labels,
            beta=self.beta,
            gamma=self.gamma,
            eta=self.eta,
            cell=cell,
        )
        mask = 1 - solve_mask(*terms)[0].float() / (self.num_labels - 1)  # (B, n, n) share of A
        eps = self.transport_eps if self.transport else None
        mixed, mask, sources = ctx.tensor_half(compose_blocks)(ours, theirs, mask, saliency, eps)
        return MixedBatch(
            images=mixed,
            labels=labels,
            partner=mirrored(images),
            mask=mask,
            move=None if sources is None else partial(transported, sources, mask),
        )

    def _perturb(
        self,
        images: Tensor,
        labels: Tensor,
        ctx: MixContext,
        input_gradient: Callable[[Tensor, Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The gradient at a random start near `images`, and the images moved along its sign.

        Both (B, C, H, W).
        """
        import torch

        limit = self.adv_eps / 255  # of pixels in [0, 1]
        rng = torch.Generator(images.device).manual_seed(randint(ctx.rng, 2**63 - 1))
        pixels = images.float() * ctx.std + ctx.mean
        noise = torch.rand(pixels.shape, generator=rng, device=pixels.device) * (2 * limit) - limit
        noise = (pixels + noise).clamp(0, 1) - pixels
        gradient = input_gradient((images + noise / ctx.std).to(images.dtype), labels)
        noise = noise + (self.adv_eps + 2) / 255 * gradient.float().nan_to_num().sign()
        noise = noise.clamp(-limit, limit) * uniform(ctx.rng)
        return gradient, (((pixels + noise).clamp(0, 1) - ctx.mean) / ctx.std).to(images.dtype)
