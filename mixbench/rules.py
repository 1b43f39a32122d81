"""The rules of a strategy, each in one place: the kit and the training hold strategies to them.

A broken rule is a BrokenRule that says which. `shapes_*` look at what Python knows; `values_*` look
at numbers and make a GPU wait. torch is imported inside the functions, as in `mix`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mixbench.mix import MixContext, MixedBatch, MixStrategy, ModelOutput, Needs

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-4  # by which rounding may take a share out of [0, 1]


class BrokenRule(AssertionError):
    """A strategy does what the interface forbids; the message is the rule."""


def require(holds: bool | Tensor, rule: str) -> None:
    """BrokenRule with the rule's words where it does not hold."""
    if not bool(holds):
        raise BrokenRule(rule)


def _kind(value: object) -> str:
    return type(value).__name__


# What a strategy says of itself.


def built_part(part: object) -> None:
    """BrokenRule where what `build` gives is neither a module nor None."""
    from torch import nn

    require(
        part is None or isinstance(part, nn.Module),
        f"build must give a torch.nn.Module or None, not {_kind(part)}",
    )


def declared_needs(strategy: MixStrategy) -> Needs:
    """The strategy's needs; BrokenRule where they are no Needs or a field has another type."""
    needs = strategy.needs
    require(isinstance(needs, Needs), f"needs must be a Needs, not {_kind(needs)}")
    for name in ("attention", "network", "look"):
        value = getattr(needs, name)
        fits = value is None or (isinstance(value, str) and value != "")
        require(fits, f"needs.{name} must be a name or None, not {_kind(value)} {value!r:.40}")
    for name in ("input_gradient", "pixels", "tokens", "objects"):
        value = getattr(needs, name)
        require(isinstance(value, bool), f"needs.{name} must be true or false, not {value!r:.40}")
    return needs


def declared_clean_weight(strategy: MixStrategy) -> float:
    """The weight of the clean loss; BrokenRule where it is no finite number of 0 or more."""
    weight = strategy.clean_weight
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    require(
        number and 0 <= weight < math.inf,
        f"clean_weight must be a finite number of 0 or more, not {_kind(weight)} {weight!r:.40}",
    )
    return float(weight)


def declared_moves_pixels(strategy: MixStrategy) -> bool:
    """Whether it moves pixels; BrokenRule where it is neither true nor false."""
    moves = strategy.moves_pixels
    require(isinstance(moves, bool), f"moves_pixels must be true or false, not {moves!r:.40}")
    return moves


def field_values(strategy: MixStrategy) -> dict[str, Any]:
    """The values of a strategy's fields by name, with those of strategies in them."""
    values = {}
    for field in fields(strategy):  # type: ignore[arg-type]
        value = values[field.name] = getattr(strategy, field.name)
        if isinstance(value, MixStrategy):
            inner = field_values(value)
            values |= {f"{field.name}.{name}": part for name, part in inner.items()}
    return values


def parts_of(strategy: MixStrategy) -> list[MixStrategy]:
    """A strategy and all those in its fields, in order."""
    values = [strategy, *field_values(strategy).values()]
    return [value for value in values if isinstance(value, MixStrategy)]


def fields_stay(strategy: MixStrategy, before: dict[str, Any], method: str) -> None:
    """BrokenRule where a field has another value than `before`."""
    for name, value in field_values(strategy).items():
        stays = name in before and (value is before[name] or value == before[name])
        require(stays, f"{method} must not change the strategy's field {name}")


# What is lent to a strategy.


@dataclass(frozen=True, eq=False)
class Lent:
    """Tensors that a strategy must not change, by name, and the version that each of them had."""

    tensors: dict[str, Tensor]
    versions: dict[str, int]

    @classmethod
    def of(cls, **tensors: Tensor | None) -> Lent:
        """The tensors as they are now; those that are None are left out."""
        there = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return cls(there, {name: _version(tensor) for name, tensor in there.items()})

    def stays(self, method: str) -> None:
        """BrokenRule where one was changed in place."""
        for name, tensor in self.tensors.items():
            unchanged = _version(tensor) == self.versions[name]
            require(unchanged, f"{method} must not change {name} in place: change a copy")


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; 0 in inference mode, which does not count."""
    return 0 if tensor.is_inference() else tensor._version


def lent_to_mix(images: Tensor, labels: Tensor, ctx: MixContext) -> Lent:
    """What `mix` gets."""
    return Lent.of(
        **{"the caller's images": images, "the caller's labels": labels},
        **{"ctx.mean": ctx.mean, "ctx.std": ctx.std, "ctx.pixels": ctx.pixels},
        **{"ctx.objects": ctx.objects},
    )


def lent_after_forward(mixed: MixedBatch, output: ModelOutput) -> Lent:
    """What `relabel` and `extra_loss` get."""
    parts = {name: getattr(mixed, name) for name in ("images", "labels", "partner", "mask")}
    return Lent.of(
        **{f"the mixed {name}": tensor for name, tensor in parts.items()},
        **{f"output.{name}": tensor for name, tensor in output._asdict().items()},
    )


# The rules of a mixed batch.


def mixed_is_a_batch(mixed: MixedBatch) -> None:
    """`mix` gives a MixedBatch of tensors."""
    import torch

    require(isinstance(mixed, MixedBatch), f"mix must give a MixedBatch, not {_kind(mixed)}")
    for name in ("images", "labels", "partner", "mask"):
        value = getattr(mixed, name)
        require(isinstance(value, torch.Tensor), f"{name} must be a tensor, not {_kind(value)}")
    known = mixed.move is None or callable(mixed.move)
    require(known, f"move must be a function of maps or None, not {_kind(mixed.move)}")


def images_keep_shape(mixed: MixedBatch, images: Tensor) -> None:
    """As many images as there were, of the same size."""
    shape, expected = tuple(mixed.images.shape), tuple(images.shape)
    require(shape == expected, f"images must stay {expected}, not {shape}")


def images_keep_dtype(mixed: MixedBatch, images: Tensor) -> None:
    """A strategy that works in float32 goes back to the images' own dtype."""
    dtype = mixed.images.dtype
    require(dtype == images.dtype, f"images must stay {images.dtype}, not {dtype}")


def tensors_stay_on_the_device(mixed: MixedBatch, images: Tensor) -> None:
    """All tensors of the mixed batch are where the images are."""
    for name in ("images", "labels", "partner", "mask"):
        device = getattr(mixed, name).device
        require(device == images.device, f"{name} must be on {images.device}, not {device}")


def labels_keep_shape(mixed: MixedBatch, labels: Tensor) -> None:
    """One class for each image."""
    shape, expected = tuple(mixed.labels.shape), tuple(labels.shape)
    require(shape == expected, f"labels must stay {expected}, not {shape}")
    dtype = mixed.labels.dtype
    require(dtype == labels.dtype, f"labels must stay {labels.dtype}, not {dtype}")


def partner_is_of_whole_numbers(mixed: MixedBatch, labels: Tensor) -> None:
    """One row for each image."""
    import torch

    partner, expected = mixed.partner, tuple(labels.shape)
    require(
        tuple(partner.shape) == expected,
        f"partner must be (B,), {expected}, not {tuple(partner.shape)}",
    )
    whole = partner.dtype in (torch.int64, torch.int32)  # uint8 and bool would pick by mask
    require(whole, f"partner must be int64, not {partner.dtype}")


def mask_fits_images(mixed: MixedBatch, images: Tensor) -> None:
    """A row for all images, or one for each; likewise in height and width."""
    batch, _, height, width = images.shape
    shape = tuple(mixed.mask.shape)
    fits = len(shape) == 4 and all(
        side in (1, full) for side, full in zip(shape, (batch, 1, height, width), strict=True)
    )
    require(fits, f"mask must be (B or 1, 1, H or 1, W or 1), not {shape}")


def mask_is_float32(mixed: MixedBatch) -> None:
    """Shares of less than 2 ** -8 are lost in half precision."""
    import torch

    dtype = mixed.mask.dtype
    require(dtype == torch.float32, f"mask must be float32, not {dtype}")


def mixed_has_no_gradient(mixed: MixedBatch, part: bool = False) -> None:
    """What a mix computed is constant for the network's loss, and its graph is let go of.

    But a `part`, the strategy's own parameters, learns through the images.
    """
    parts = {"mask": mixed.mask} if part else {"images": mixed.images, "mask": mixed.mask}
    for name, tensor in [*parts.items(), *(("memo", part) for part in _tensors(mixed.memo))]:
        require(not tensor.requires_grad, f"{name} must carry no gradient: use .detach()")


def _tensors(memo: Any) -> list[Tensor]:
    """The tensors of a memo, also in lists, tuples and dictionaries."""
    import torch

    if isinstance(memo, torch.Tensor):
        return [memo]
    if isinstance(memo, dict):
        memo = list(memo.values())
    if not isinstance(memo, (list, tuple)):
        return []
    return [tensor for part in memo for tensor in _tensors(part)]


def shapes_of_mixed(mixed: MixedBatch, images: Tensor, labels: Tensor, part: bool = False) -> None:
    """Hold a mixed batch to every rule that needs no look at numbers; part: it has one."""
    mixed_is_a_batch(mixed)
    images_keep_shape(mixed, images)
    images_keep_dtype(mixed, images)
    labels_keep_shape(mixed, labels)
    partner_is_of_whole_numbers(mixed, labels)
    mask_fits_images(mixed, images)
    mask_is_float32(mixed)
    tensors_stay_on_the_device(mixed, images)
    mixed_has_no_gradient(mixed, part)


def images_are_finite(mixed: MixedBatch, images: Tensor) -> None:
    """A mix of finite images is finite."""
    if _all_finite(images):
        require(_all_finite(mixed.images), "images must be finite where the batch is")


def _all_finite(images: Tensor) -> bool:
    """Whether all are; a sum that is finite says so many times faster than a look at each."""
    return bool(images.sum().isfinite()) or bool(images.isfinite().all())


def labels_are_those_of_a(mixed: MixedBatch, labels: Tensor) -> None:
    """B's labels follow from `partner`."""
    require(mixed.labels.equal(labels), "labels must stay those of A")


def partner_names_rows(mixed: MixedBatch) -> None:
    """From 0; Python's negative rows are none."""
    partner = mixed.partner
    inside = (partner >= 0).all() & (partner < len(mixed.labels)).all()
    require(inside, "partner must name rows of the batch")


def mask_in_unit_interval(mixed: MixedBatch) -> None:
    """NaN is outside too."""
    low, high = mixed.mask.amin(), mixed.mask.amax()
    inside = (low >= 0) & (high <= 1)
    if not bool(inside):
        raise BrokenRule(f"mask must lie in [0, 1], not {float(low):g} to {float(high):g}")


def values_of_mixed(mixed: MixedBatch, images: Tensor, labels: Tensor) -> None:
    """Hold a mixed batch to every rule about its numbers."""
    images_are_finite(mixed, images)
    labels_are_those_of_a(mixed, labels)
    partner_names_rows(mixed)
    mask_in_unit_interval(mixed)


# The rules of a relabel.


def lam_fits_labels(lam: Tensor, mixed: MixedBatch) -> None:
    """A number for each image, on their device."""
    import torch

    require(isinstance(lam, torch.Tensor), f"relabel must give a tensor (B,), not {_kind(lam)}")
    shape, expected = tuple(lam.shape), tuple(mixed.labels.shape)
    require(shape == expected, f"relabel must give (B,), {expected}, not {shape}")
    require(lam.is_floating_point(), f"lam must be of a floating-point dtype, not {lam.dtype}")
    device = mixed.labels.device
    require(lam.device == device, f"lam must be on {device}, not {lam.device}")


def lam_has_no_gradient(lam: Tensor) -> None:
    """The label is a constant of the loss."""
    require(not lam.requires_grad, "lam must carry no gradient: use .detach()")


def shapes_of_lam(lam: Tensor, mixed: MixedBatch) -> None:
    """Hold A's shares to every rule that needs no look at numbers."""
    lam_fits_labels(lam, mixed)
    lam_has_no_gradient(lam)


def shape_of_extra_loss(loss: Any, mixed: MixedBatch) -> None:
    """A number on the images' device, or None."""
    import torch

    if loss is None:
        return
    kind = isinstance(loss, torch.Tensor) and loss.is_floating_point()
    require(kind, f"extra_loss must give a tensor () or None, not {_kind(loss)}")
    shape = tuple(loss.shape)
    require(shape == (), f"extra_loss must give one number, (), not {shape}")
    device = mixed.images.device
    require(loss.device == device, f"extra_loss must be on {device}, not {loss.device}")


def share_is_sound(lam: Tensor) -> Tensor:
    """Whether each of A's shares lies in [0, 1], up to rounding; NaN does not, (B,) bool."""
    return (lam >= -TOLERANCE) & (lam <= 1 + TOLERANCE)


def lam_in_unit_interval(lam: Tensor) -> None:
    """NaN is outside too."""
    if not bool(share_is_sound(lam).all()):
        low, high = float(lam.min()), float(lam.max())
        raise BrokenRule(f"lam must lie in [0, 1], not {low:g} to {high:g}")
