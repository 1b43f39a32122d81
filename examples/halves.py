"""A plug-in: the left half of A beside the right half of B. python bench.py --plugin examples/halves.py --strategies cutmix,halves"""

from dataclasses import dataclass

from mixbench import MixedBatch, MixStrategy, register_strategy


@register_strategy("halves")
@dataclass(frozen=True)
class Halves(MixStrategy):
    def mix(self, images, labels, ctx):
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
