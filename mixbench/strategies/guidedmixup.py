"""GuidedMixup (Kang and Kim, 2023, arXiv 2306.16612): each pixel by the share of saliency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import MixContext, MixedBatch, MixStrategy, Needs, blend, mirrored
from mixbench.registry import register_strategy
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor

PAIRINGS = ("greedy", "mirror")


def greedy_cycle(distances: Tensor) -> Tensor:
    """The partner of each row in a cycle through all rows, (B,) int64, far apart by distances.

    The largest of the distances (B, B) is the first step; each further step goes to the farthest
    row not yet reached. Of equal distances the first in raster order. No device is waited for.
    """
    import torch

    rows = len(distances)
    if rows == 1:
        return mirrored(distances)
    left = distances.clone()
    left.fill_diagonal_(-torch.inf)
    at = left.flatten().argmax(0, keepdim=True)  # (1,), as every row of the cycle
    order = [at // rows, at % rows]
    left.index_fill_(1, order[0], -torch.inf)
    for _ in range(rows - 2):
        left.index_fill_(1, order[-1], -torch.inf)
        order.append(left.index_select(0, order[-1]).argmax(1))
    cycle = torch.cat(order)
    return torch.empty_like(cycle).scatter_(0, cycle, cycle.roll(-1))


def saliency_mask(of_a: Tensor, of_b: Tensor) -> Tensor:
    """A's share of both saliencies (B, H, W) in each pixel, 1/2 where neither has any, as a mask.

    It is (B, 1, H, W).
    """
    both = of_a + of_b
    return (of_a / both).where(both > 0, 0.5)[:, None]


def mix_by_saliency(images: Tensor, saliency: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Images blended by the `saliency_mask` of each row and its partner, and that mask."""
    mask = saliency_mask(saliency, saliency[partner])
    return blend(images, images[partner], mask), mask


@register_strategy("guidedmixup")
@dataclass(frozen=True)
class GuidedMixup(MixStrategy):
    """Every pixel is a blend by how salient it is in either image; the label is the mean share.

    Saliency is the spectral residual's and nothing is drawn. pairing 'greedy' makes partners of
    images whose saliencies lie far apart, so the partner is not the mirrored batch; 'mirror' takes
    that. The source mixes half of the batches: that is the recipe's `mix_prob`.
    Differs: OpenMixup makes the pairs of a batch that it has shuffled before.
    """

    pairing: str = parameter("greedy", choices=PAIRINGS)

    def __post_init__(self) -> None:
        check_parameters(self, GuidedMixup, "guidedmixup")

    @property
    def needs(self) -> Needs:
        return Needs(pixels=True)

    def check_images(self, height: int, width: int, grid: tuple[int, int] | None) -> None:
        from mixbench.services.spectral import check_size

        check_size(height, width)

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        import torch

        from mixbench.services.spectral import spectral_saliency

        if ctx.pixels is None:
            raise ValueError(
                "guidedmixup needs MixContext.pixels: make the context with mixbench.make_context"
            )
        # outside of what is compiled: complex numbers, and a loop over the batch
        saliency = spectral_saliency(ctx.pixels)
        if self.pairing == "mirror":
            partner = mirrored(images)
        else:
            flat = saliency.flatten(1)
            # not by a matrix product, which loses the digits of near images
            distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
            partner = greedy_cycle(distances)
        mixed, mask = ctx.tensor_half(mix_by_saliency)(images, saliency, partner)
        return MixedBatch(images=mixed, labels=labels, partner=partner, mask=mask)
