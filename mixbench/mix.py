"""The vocabulary of mixing: A is the image and B its partner.

`mask` is A's share of each pixel, `lam` A's share of the label. torch is imported inside the
functions: a wrong strategy name or `--help` then answers without waiting for it.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Box = tuple[int, int, int, int]  # top, left, bottom, right; half-open


class ModelOutput(NamedTuple):
    """What a forward pass gives: logits and, where a strategy needs them, attention and tokens."""

    logits: Tensor  # (B, K)
    attn: Tensor | None = None  # (B, h, w) float32, without gradient
    tokens: Tensor | None = None  # (B, h, w, D) the patches before the head, with gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedBatch:
    """A mixed batch; one row of `mask`, the share of A in each pixel, may serve all images."""

    images: Tensor  # (B, C, H, W)
    labels: Tensor  # (B,) class of A
    partner: Tensor  # (B,) row of B in this batch
    mask: Tensor  # (B or 1, 1, H or 1, W or 1) float32
    memo: Any = None  # what a mix hands to its own relabel; the harness never looks
    # maps (B, C, H, W) in row order -> A's and B's parts of their mix; None where no pixel moves
    move: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def compose(self, a: Tensor, b: Tensor) -> Tensor:
        """Maps of the images through the mix, A's of `a` and B's of `b`, (B, C, H, W).

        Both are (B, C, H, W) in row order, such as object masks; of the images themselves it is
        the mixed images, in float32 at least.
        """
        move = self.move or self._stay
        return move(a)[0] + move(b)[1]

    def _stay(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """A's and B's parts of a mix in which every pixel stays where it was."""
        return parts_of_mix(maps, maps[self.partner], self.mask)

    @property
    def lam(self) -> Tensor:
        """A's share of the pixels of each image, (B,) float32."""
        return self.mask.float().mean((1, 2, 3)).expand(len(self.labels))


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The services a strategy asks for; whoever runs it builds one per distinct name."""

    attention: str | None = None  # 'last', a block number, a provider: fills ModelOutput.attn
    network: str | None = None  # an external network: MixContext.features
    input_gradient: bool = False
    pixels: bool = False
    look: str | None = None  # what MixContext.look gives: 'logits', 'class' or 'patches'
    tokens: bool = False  # fills ModelOutput.tokens
    objects: bool = False  # fills MixContext.objects

    def __or__(self, other: Needs) -> Needs:
        """The needs of both; ValueError where they name different attentions or networks.

        Every field of either is joined, also those of a subclass.
        """
        wider = type(other) if issubclass(type(other), type(self)) else type(self)
        joined: dict[str, Any] = {}
        for field in fields(wider):
            ours, theirs = (getattr(needs, field.name, field.default) for needs in (self, other))
            if ours and theirs and ours != theirs:
                raise ValueError(
                    f"one strategy cannot use two kinds of {field.name}, "
                    f"{ours!r} and {theirs!r}: choose one"
                )
            joined[field.name] = ours or theirs
        return wider(**joined)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixContext:
    """The services of one mix: random generator, normalisation, and what `needs` names."""

    rng: torch.Generator  # CPU, fresh for each shard of each step
    mean: Tensor  # (C, 1, 1)
    std: Tensor  # (C, 1, 1)
    pixels: Tensor | None = None  # (B, 3, H, W) uint8 RGB
    # images, labels -> (B, C, H, W), the raw gradient
    input_gradient: Callable[[Tensor, Tensor], Tensor] | None = None
    # images -> (B, C, h, w), features of the external network
    features: Callable[[Tensor], Tensor] | None = None
    grid: tuple[int, int] | None = None  # the model's patches, (rows, columns); None without any
    # images (n, C, H, W) -> the model's logits (n, K) of them and attention (n, h, w), no gradient
    look: Callable[[Tensor], ModelOutput] | None = None
    # (B, 1, H, W) float32, 1 on the object of each image; 0 elsewhere and where it is not known
    objects: Tensor | None = None
    part: nn.Module | None = None  # what the strategy's `build` gave
    progress: float = 0.0  # share of training done
    compile: bool = False

    def tensor_half(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The deterministic part of `mix`, a function of tensors, compiled if the recipe says so.

        What was drawn reaches `function` as tensors: a number would compile it anew each time.
        """
        return _compiled(function) if self.compile else function


class MixStrategy(ABC):
    """One way of mixing; a subclass is a frozen dataclass of hyper-parameters and nothing else."""

    @property
    def clean_weight(self) -> float:
        """The weight of the loss on the unmixed batch, which the harness adds to each step's.

        A subclass may also write `clean_weight = 1.0` in its body.
        """
        return 0.0

    @property
    def moves_pixels(self) -> bool:
        """Whether an image's pixels may be seen elsewhere than they were, or changed.

        Then the images are not mask * A + (1 - mask) * B, and `MixedBatch.move` says where pixels
        went. A subclass may also write `moves_pixels = True` in its body.
        """
        return False

    @property
    def needs(self) -> Needs:
        """The services that `mix` and `relabel` use."""
        return Needs()

    def check_images(  # noqa: B027  a hook that most strategies leave alone
        self, height: int, width: int, grid: tuple[int, int] | None
    ) -> None:
        """Nothing; ValueError where images of this size, in pixels, cannot be mixed.

        `grid` is as in MixContext. It is asked for before training, of the strategy alone: those
        in its fields are asked themselves.
        """

    def build(self, model: nn.Module, num_classes: int, image_size: int) -> nn.Module | None:
        """Parameters and state of the strategy's own, which train with the model; None without any.

        They become `model.mixing`, and `mix` finds them in `ctx.part`. Global generators are free
        to draw from here. A strategy that holds others builds theirs too.
        """
        return None

    @abstractmethod
    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        """The mixed batch, before the forward pass; images (B, C, H, W) and labels (B,) stay."""

    def relabel(self, mixed: MixedBatch, output: ModelOutput) -> Tensor:
        """A's share of the label after the forward pass, (B,)."""
        return mixed.lam

    def extra_loss(self, mixed: MixedBatch, output: ModelOutput) -> Tensor | None:
        """A loss () that is added to that of the labels, with gradient; None without any."""
        return None


# Draws are Python numbers, made on the CPU, so that no device is ever waited for.


def hashed_seed(*parts: int | str) -> int:
    """A 63-bit seed hashed from `parts`, so that neighbouring parts give unrelated streams."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def step_rng(seed: int, step: int, shard: int = 0) -> torch.Generator:
    """The CPU generator of one shard of one step; shard = micro_batch * world_size + rank."""
    import torch

    return torch.Generator().manual_seed(hashed_seed("mix", seed, step, shard))


def uniform(rng: torch.Generator) -> float:
    """A draw from [0, 1)."""
    import torch

    return float(torch.rand((), generator=rng, dtype=torch.float64))


def randint(rng: torch.Generator, high: int) -> int:
    """A draw from 0 .. high - 1."""
    import torch

    return int(torch.randint(high, (), generator=rng))


def beta(rng: torch.Generator, alpha: float) -> float:
    """A draw from Beta(alpha, alpha), in [0, 1]."""
    import numpy as np

    # torch's own Beta takes no generator; numpy's is seeded by one draw of ours, and gives 0 where
    # the sum of its two gammas is infinite.
    alpha = min(alpha, 1e300)
    return float(np.random.default_rng(randint(rng, 2**63 - 1)).beta(alpha, alpha))


def cut_box(height: int, width: int, lam: float, center: tuple[int, int]) -> Box:
    """CutMix's box around `center` (y, x), clipped to the image: top, left, bottom, right.

    It reaches cut // 2 pixels to both sides, cut = side * sqrt(1 - lam). Source: CutMix's own code,
    torchvision, timm up to 1.0.29; timm 1.0.31 adds one pixel to odd cuts.
    """
    share = math.sqrt(1 - lam)
    half_h, half_w = int(height * share) // 2, int(width * share) // 2
    y, x = center
    return max(y - half_h, 0), max(x - half_w, 0), min(y + half_h, height), min(x + half_w, width)


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    import torch

    return torch.compile(function, dynamic=False)


def mirrored(images: Tensor) -> Tensor:
    """The partner of each row, (B,): the batch read backwards.

    The middle row of an odd batch is its own partner.
    """
    import torch

    return torch.arange(len(images) - 1, -1, -1, device=images.device)


def blend(images: Tensor, others: Tensor, mask: Tensor) -> Tensor:
    """mask * images + (1 - mask) * others in the dtype of `images`, (B, C, H, W).

    Where the mask is 0 or 1 the pixel is copied, so an inf never reaches the partner.
    """
    import torch

    mixed = (mask * images + (1 - mask) * others).to(images.dtype)
    return torch.where(mask == 1, images, torch.where(mask == 0, others, mixed))


def parts_of_mix(images: Tensor, others: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """mask * images and (1 - mask) * others, the two parts of their `blend`, (B, C, H, W) each.

    Where a share is 0 the part is 0, whatever the pixel; both are float32 at least.
    """
    return (mask * images).where(mask != 0, 0), ((1 - mask) * others).where(mask != 1, 0)


def send(draws: Sequence[Sequence[int]] | float | Tensor, images: Tensor) -> Tensor:
    """`draws` as a tensor on the device of `images`, without a wait.

    Numbers are int64, or () float64; a tensor of the CPU keeps its dtype.
    """
    import torch

    if isinstance(draws, torch.Tensor):
        sent = draws
    else:
        sent = torch.tensor(draws, dtype=torch.float64 if isinstance(draws, float) else torch.int64)
    if images.is_cuda:
        sent = sent.pin_memory()  # an unpinned copy would wait for the device
    return sent.to(images.device, non_blocking=True)


def box_mask(boxes: Sequence[Box] | Tensor, images: Tensor) -> Tensor:
    """1 outside and 0 inside the box of each row, (len(boxes), 1, H, W) float32.

    On the device of `images`.
    """
    import torch

    height, width = images.shape[-2:]
    edges = boxes if isinstance(boxes, torch.Tensor) else send(boxes, images)
    top, left, bottom, right = edges[:, :, None].unbind(1)  # (n, 1) each
    rows = torch.arange(height, device=images.device)
    cols = torch.arange(width, device=images.device)
    in_rows, in_cols = (rows >= top) & (rows < bottom), (cols >= left) & (cols < right)
    inside = in_rows[:, :, None] & in_cols[:, None, :]  # (n, H, W)
    return (~inside).float()[:, None]


def paste_boxes(images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """A copy of `images` with each row's box from the mirrored batch, (B, C, H, W), and its mask.

    The mask is `box_mask`'s; boxes (B, 4) int64 on the device of `images`, or (1, 4) for all rows.
    """
    import torch

    mask = box_mask(boxes, images)
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.where(mask.bool(), images, images.flip(0)), mask
    mixed = images.clone()  # slices touch the boxes alone: about the cost of the copy itself
    if len(boxes) == 1:
        top, left, bottom, right = boxes[0].tolist()
        mixed[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].flip(0)
    else:
        for row, (top, left, bottom, right) in enumerate(boxes.tolist()):
            mixed[row, :, top:bottom, left:right] = images[-1 - row, :, top:bottom, left:right]
    return mixed, mask


def soft_targets(
    mixed: MixedBatch, lam: Tensor, num_classes: int, smoothing: float = 0.0
) -> Tensor:
    """Dense targets lam * y_A + (1 - lam) * y_B, smoothed by smoothing / K, (B, K) float32.

    lam is (B,); ValueError where it is not. Source: timm's mixup_target.
    """
    if lam.shape != mixed.labels.shape:
        raise ValueError(
            f"lam must be one number for each label, {tuple(mixed.labels.shape)}, "
            f"not {tuple(lam.shape)}"
        )
    lam = lam.float()[:, None] * (1 - smoothing)
    targets = lam.new_full((len(lam), num_classes), smoothing / num_classes)
    labels = mixed.labels.long()
    targets.scatter_add_(1, labels[:, None], lam)
    return targets.scatter_add_(1, labels[mixed.partner][:, None], (1 - smoothing) - lam)
