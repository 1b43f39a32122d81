"""OA-CutMix (arXiv 2606.04820): labels by the objects that are visible, from their true masks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mixbench.mix import MixContext, MixedBatch, MixStrategy, ModelOutput, Needs
from mixbench.registry import register_strategy
from mixbench.strategies.cutmix import CutMix
from mixbench.strategies.label_rule import LabelRule
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor

TARGETS = ("share", "fraction")


class Memo(NamedTuple):
    """What the base hands to itself, and A's share of the labels."""

    base: Any
    lam: Tensor  # (B,)


def visible_share(mixed: MixedBatch, objects: Tensor) -> Tensor:
    """A's share of the object pixels that a mix leaves visible, (B,); NaN where it leaves none.

    objects (B, 1, H, W) say how much each pixel of an image counts, 0 beside its object.
    """
    import torch

    nothing = torch.zeros_like(objects)
    ours = mixed.compose(objects, nothing).sum((1, 2, 3))
    theirs = mixed.compose(nothing, objects).sum((1, 2, 3))
    return ours / (ours + theirs)


def wanted_share(mixed: MixedBatch, objects: Tensor, target: str) -> tuple[Tensor, Tensor]:
    """A's share by what is visible of both objects (B, 1, H, W), (B,), and whether both have one.

    'share' counts visible pixels, v_A / (v_A + v_B); 'fraction' divides each object's by all of its
    pixels before. NaN where both are hidden.
    """
    sizes = objects.sum((1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
    counted = objects / sizes.clamp(min=1) if target == "fraction" else objects
    known = sizes.flatten() > 0
    return visible_share(mixed, counted), known & known[mixed.partner]


def object_lam(mixed: MixedBatch, objects: Tensor, target: str = "share") -> Tensor:
    """A's share of the label by `wanted_share` of both objects (B, 1, H, W), (B,) float32.

    1/2 where both are hidden, the area where A or B has no object.
    """
    lam, known = wanted_share(mixed, objects, target)
    return lam.nan_to_num(0.5).where(known, mixed.lam)


@register_strategy("oacutmix")
@dataclass(frozen=True)
class OACutMix(LabelRule):
    """The pixels of `base`, and labels by the true masks of the objects that are still visible.

    target 'share' is A's share of the visible object pixels, the paper's absolute mode; 'fraction'
    compares what fraction of each object is visible, its relative mode. lam = weight * that +
    (1 - weight) * area. Both hidden: 1/2. An image without object pixels (not known, or cropped
    away) keeps its label by area, and so does its partner. Any base will do, also Mixup, whose
    objects are both visible by their shares, and those that move pixels. Where the base is itself
    a label rule its labels are not used; a rule over this one begins with the area, not with these.
    With 'share' and weight 1 the label error is 0: this is the reference for other label rules.
    Differs: the paper knows CutMix alone. In the released code 'fraction' gives A 0 where both are
    hidden, and takes an object without a mask for wholly visible.
    """

    base: MixStrategy = parameter(CutMix())
    target: str = parameter("share", choices=TARGETS)
    weight: float = parameter(1.0, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        check_parameters(self, OACutMix, "oacutmix")

    @property
    def needs(self) -> Needs:
        return Needs(objects=True) | self.base.needs

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        if ctx.objects is None:
            raise ValueError(
                "oacutmix needs MixContext.objects: hand the objects' masks to "
                "mixbench.make_context"
            )
        mixed = self.base.mix(images, labels, ctx)
        area = mixed.lam
        lam = area + self.weight * (object_lam(mixed, ctx.objects, self.target) - area)
        return replace(mixed, memo=Memo(mixed.memo, lam))

    def relabel(self, mixed: MixedBatch, output: ModelOutput) -> Tensor:
        return mixed.memo.lam

    def extra_loss(self, mixed: MixedBatch, output: ModelOutput) -> Tensor | None:
        return self.base.extra_loss(replace(mixed, memo=mixed.memo.base), output)
