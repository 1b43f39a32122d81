"""TokenMix (Liu et al., ECCV 2022, arXiv 2207.08409): a patchwork of rectangles of tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixbench.mix import MixContext, MixedBatch, MixStrategy, mirrored, randint, send, uniform
from mixbench.registry import register_strategy
from mixbench.strategies.attentivecutmix import enlarge
from mixbench.values import check_parameters, parameter

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CELL = 16  # pixels, where the model has no patches
TRIES = 10  # rectangles that may be drawn in vain, one after another
FLATTEST = 0.3  # height / width of a rectangle; the tallest is its inverse


def token_grid(
    height: int, width: int, grid: tuple[int, int] | None, patch: int
) -> tuple[int, int]:
    """The rows and columns of tokens: the model's own, or cells of `patch` pixels, the last cut."""
    if grid is not None and not patch:
        return grid
    side = patch or CELL
    return math.ceil(height / side), math.ceil(width / side)


def wanted_tokens(tokens: int, share: float | str) -> int:
    """How many of the tokens the partner is to have.

    'released' is what the released code takes whatever it drew, 112 of 196.
    """
    return tokens // 2 + tokens // 14 if isinstance(share, str) else round(share * tokens)


def draw_tokens(rng: torch.Generator, rows: int, cols: int, wanted: int) -> list[list[int]]:
    """1 for A's tokens and 0 for the partner's, rows x cols: at most `wanted` are the partner's.

    Rectangles are drawn until so many are taken, or ten in a row did not fit.
    """
    cells = [[1] * cols for _ in range(rows)]
    missing, failed = wanted, 0
    while missing and failed < TRIES:
        size = 1 + (missing - 1) * uniform(rng)
        aspect = math.exp(math.log(FLATTEST) * (1 - 2 * uniform(rng)))
        high, wide = round(math.sqrt(size * aspect)), round(math.sqrt(size / aspect))
        failed += 1
        if not (1 <= high < rows and 1 <= wide < cols):
            continue
        top, left = randint(rng, rows - high + 1), randint(rng, cols - wide + 1)
        new = sum(sum(row[left : left + wide]) for row in cells[top : top + high])
        if 0 < new <= missing:
            for row in cells[top : top + high]:
                row[left : left + wide] = [0] * wide
            missing, failed = missing - new, 0
    return cells


def keep_tokens(images: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens (1, h, w) of each image on the mirrored batch, (B, C, H, W), and the mask."""
    mask = enlarge(cells.float(), *images.shape[-2:])
    return images.where(mask.bool(), images.flip(0)), mask


@register_strategy("tokenmix")
@dataclass(frozen=True)
class TokenMix(MixStrategy):
    """The partner has several rectangles of tokens, the same for the whole batch.

    A token is a patch of the model, or a cell of about `patch` pixels, 16 where the model has no
    patches: the grid has as many cells as it takes, all of one size but for rounding.
    `share` of the tokens are to be the partner's; rarely a few less are, where the last ones did
    not fit. The label is by the pixels. The source mixes half of the batches: that is the recipe's
    `compose` or `mix_prob`.
    Differs: 'released' is 8 / 14 of the tokens, which the released code takes whatever lam it drew.
    The paper labels by what an external classifier sees in the tokens; that is left out, since it
    needs a classifier of the data's own classes.
    """

    share: float | str = parameter("released", above=0.0, below=1.0, choices=("released",))
    patch: int = parameter(0, at_least=0, at_most=2**16)

    def __post_init__(self) -> None:
        check_parameters(self, TokenMix, "tokenmix")

    def check_images(self, height: int, width: int, grid: tuple[int, int] | None) -> None:
        rows, cols = token_grid(height, width, grid, self.patch)
        if min(rows, cols) < 2:
            raise ValueError(
                f"tokenmix needs 2 x 2 tokens or more, not {rows} x {cols} of {height} x {width} "
                "px: choose larger images or a smaller patch"
            )
        tokens = rows * cols
        wanted = wanted_tokens(tokens, self.share)
        if not 0 < wanted < tokens:
            raise ValueError(
                f"tokenmix share must leave both images a token, and {self.share} of {tokens} is "
                f"{wanted}: choose a share nearer to 0.5 or a smaller patch"
            )

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        height, width = images.shape[-2:]
        self.check_images(height, width, ctx.grid)
        rows, cols = token_grid(height, width, ctx.grid, self.patch)
        cells = draw_tokens(ctx.rng, rows, cols, wanted_tokens(rows * cols, self.share))
        tokens = send(cells, images)[None]
        mixed, mask = ctx.tensor_half(keep_tokens)(images, tokens)
        return MixedBatch(images=mixed, labels=labels, partner=mirrored(images), mask=mask)
