"""RegMixup (Pinto et al., NeurIPS 2022, arXiv 2206.14502): Mixup beside the clean loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import MixContext, MixedBatch, MixStrategy
from mixbench.registry import register_strategy
from mixbench.strategies.mixup import Mixup
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor


@register_strategy("regmixup")
@dataclass(frozen=True)
class RegMixup(MixStrategy):
    """The loss of the unmixed batch, and Mixup's whose lam ~ Beta(alpha, alpha) is near one half.

    The released code takes alpha 10 on CIFAR-100 and 20 on CIFAR-10.
    Differs: the loss is the sum of both, where the released code averages the doubled batch, half
    of ours; and the two halves go through the network apart, which batch norm sees.
    """

    alpha: float = parameter(10.0, above=0)

    def __post_init__(self) -> None:
        check_parameters(self, RegMixup, "regmixup")

    @property
    def clean_weight(self) -> float:
        return 1.0

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        return Mixup(self.alpha).mix(images, labels, ctx)
