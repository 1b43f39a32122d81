"""A plug-in: the left half of A beside the right half of B.

python bench.py --plugin examples/halves.py --strategies cutmix,halves
"""

from dataclasses import dataclass

from torch import Tensor

from mixbench import MixContext, MixedBatch, MixStrategy, register_strategy


@register_strategy("halves")
@dataclass(frozen=True)
class Halves(MixStrategy):
    """The left half of A beside the right half of B, for all images alike."""

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        width = images.shape[-1]
        mask = ctx.mean.new_zeros(1, 1, 1, width)
        mask[..., : width // 2] = 1
        partner = labels.new_tensor(range(len(labels))).flip(0)
        return MixedBatch(
            images=images.where(mask == 1, images.flip(0)),
            labels=labels,
            partner=partner,
            mask=mask,
        )
