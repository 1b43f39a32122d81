"""SMMix (Chen et al., ICCV 2023): B's most attended window covers A's least attended one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mixbench.mix import (
    MixContext,
    MixedBatch,
    MixStrategy,
    ModelOutput,
    Needs,
    box_mask,
    mirrored,
    parts_of_mix,
    randint,
    send,
)
from mixbench.registry import register_strategy
from mixbench.values import check_order, check_parameters, parameter

if TYPE_CHECKING:
    from torch import Tensor, nn

SIDE = 14  # the paper's grid, in whose cells `low` and `high` are counted


def window_size(drawn: int, grid: tuple[int, int]) -> tuple[int, int]:
    """The cells (rows, columns) of a window of `drawn` of 14 on a grid, at least one each way."""
    rows, columns = (min(max(round(drawn * cells / SIDE), 1), cells) for cells in grid)
    return rows, columns


def find_windows(attn: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The top left cells of A's window with the least attention and of B's with the most.

    Each is (B, 2) int64; attn (B, h, w) is in row order, and B is the mirrored batch. Of equal
    windows it is the first in raster order.
    """
    import torch

    # not by cumulative sums, whose rounding would make equal windows differ
    sums = torch.nn.functional.avg_pool2d(attn[:, None], size, stride=1)  # (B, 1, h', w')
    columns = sums.shape[-1]
    flat = sums.flatten(1)
    least, most = flat.argmin(1), flat.flip(0).argmax(1)
    place, source = (torch.stack([at // columns, at % columns], 1) for at in (least, most))
    return place, source


def shifted_partner(maps: Tensor, shift: Tensor) -> Tensor:
    """The partner of each of maps (B, C, H, W), its pixel at p + shift seen at p; shift (B, 2)."""
    import torch

    height, width = maps.shape[-2:]
    # outside of the window any pixel will do
    rows = (torch.arange(height, device=maps.device) + shift[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=maps.device) + shift[:, 1:]).clamp(0, width - 1)
    others = maps.flip(0).take_along_dim(rows[:, None, :, None], 2)
    return others.take_along_dim(columns[:, None, None, :], 3)


def move_windows(
    images: Tensor, place: Tensor, source: Tensor, size: Tensor
) -> tuple[Tensor, Tensor]:
    """The mix of images (B, C, H, W) and its mask (B, 1, H, W).

    B's window at `source` comes to lie at `place`; both are (B, 2) pixels of the top left corner,
    and `size` is (1, 2) pixels.
    """
    import torch

    mask = box_mask(torch.cat([place, place + size], 1), images)
    return images.where(mask == 1, shifted_partner(images, source - place)), mask


def moved(mask: Tensor, shift: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """A's and B's parts of maps (B, C, H, W) in the mix."""
    return parts_of_mix(maps, shifted_partner(maps, shift), mask)


def token_loss(head: nn.Module, tokens: Tensor, share: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy () of a head on the mean of the tokens that `share` (B, h, w) names.

    tokens (B, h, w, D); labels (B,) are of the image that these tokens come from.
    """
    import torch

    weights = share[..., None]
    mean = (weights * tokens).sum((1, 2)) / weights.sum((1, 2))
    return torch.nn.functional.cross_entropy(head(mean), labels.long())


def consistency_loss(looked: Tensor, mixed: MixedBatch, logits: Tensor) -> Tensor:
    """KL divergence () of the mixed images' prediction from that of both images before mixing.

    looked (B, K) are the logits of the unmixed images, which are mixed by area.
    """
    import torch

    lam = mixed.lam[:, None]
    target = lam * looked.float() + (1 - lam) * looked[mixed.partner].float()
    return torch.nn.functional.kl_div(
        logits.log_softmax(1), target.log_softmax(1), reduction="batchmean", log_target=True
    )


class Seen(NamedTuple):
    """What a mix leaves for its extra loss."""

    logits: Tensor  # (B, K) of the unmixed images, without gradient
    head: nn.Module
    grid: tuple[int, int]
    size: tuple[int, int]  # of the window, in cells


@register_strategy("smmix")
@dataclass(frozen=True)
class SMMix(MixStrategy):
    """The partner's window with the most attention replaces the image's with the least.

    One window size a batch, `low` to `high` of 14 cells, on the model's grid of patches. Attention
    is the model's own, of the unmixed images, averaged over heads and over the patches that look.
    The label is by area. Three losses are added: a second head on the mean of A's tokens and on
    that of B's, half of each, and the KL divergence of the prediction from that of both images.
    Label smoothing does not enter them, nor does a label rule. An image that is replaced as a whole
    has no tokens, and its half is left out. Source: the paper's description alone.
    Differs: the second head learns beside the first, and what both images were predicted to be is
    mixed as logits, where the paper names distributions. The partner is the mirrored batch.
    """

    moves_pixels = True  # B's, which `move` tells

    low: int = parameter(3, at_least=1, at_most=SIDE)
    high: int = parameter(10, at_least=1, at_most=SIDE)

    def __post_init__(self) -> None:
        check_parameters(self, SMMix, "smmix")
        check_order(self, "smmix", "low", "high", "the window's side")

    @property
    def needs(self) -> Needs:
        return Needs(look="patches", tokens=True)

    def check_images(self, height: int, width: int, grid: tuple[int, int] | None) -> None:
        if grid is not None and (height % grid[0] or width % grid[1]):
            raise ValueError(
                f"smmix moves whole patches, and images of {height}x{width} px are no multiple of "
                f"the model's grid of {grid[0]}x{grid[1]}: choose another image_size, or a "
                "strategy without patches (cutmix)"
            )

    def build(self, model: nn.Module, num_classes: int, image_size: int) -> nn.Module:
        import torch

        head = torch.nn.Linear(model.num_features, num_classes)  # type: ignore[arg-type]
        torch.nn.init.trunc_normal_(head.weight, std=0.02)  # as timm's own heads
        torch.nn.init.zeros_(head.bias)
        return head

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        if ctx.look is None or ctx.part is None:
            raise ValueError(
                "smmix needs MixContext.look and MixContext.part: set model.mixing = "
                "strategy.build(model, num_classes, image_size) before the optimizer is made, and "
                "make the context with mixbench.make_context"
            )
        drawn = self.low + randint(ctx.rng, self.high - self.low + 1)
        output = ctx.look(images)
        assert output.attn is not None  # 'patches' gives it
        grid = (output.attn.shape[1], output.attn.shape[2])
        height, width = images.shape[-2:]
        self.check_images(height, width, grid)
        size = window_size(drawn, grid)
        # outside of what is compiled, which would be anew for each size
        place, source = find_windows(output.attn, size)
        patch_h, patch_w = height // grid[0], width // grid[1]
        patch = send([[patch_h, patch_w]], images)
        pixels = send([[size[0] * patch_h, size[1] * patch_w]], images)
        place, source = place * patch, source * patch
        mixed, mask = ctx.tensor_half(move_windows)(images, place, source, pixels)
        return MixedBatch(
            images=mixed,
            labels=labels,
            partner=mirrored(images),
            mask=mask,
            memo=Seen(output.logits, ctx.part, grid, size),
            move=partial(moved, mask, source - place),
        )

    def extra_loss(self, mixed: MixedBatch, output: ModelOutput) -> Tensor:
        import torch

        seen: Seen = mixed.memo
        if output.tokens is None:
            raise ValueError(
                "smmix needs ModelOutput.tokens: run the model inside "
                "mixbench.services.tokens.tap_of(model, strategy.needs)"
            )
        height, width = mixed.images.shape[-2:]
        of_a = mixed.mask[:, 0, :: height // seen.grid[0], :: width // seen.grid[1]]  # (B, h, w)
        with torch.autocast(output.tokens.device.type, enabled=False):
            tokens = output.tokens.float()
            labels = mixed.labels
            loss = token_loss(seen.head, tokens, 1 - of_a, labels[mixed.partner]) / 2
            if seen.size != seen.grid:
                loss = loss + token_loss(seen.head, tokens, of_a, labels) / 2
            return loss + consistency_loss(seen.logits, mixed, output.logits.float())
