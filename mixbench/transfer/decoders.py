"""Tokens to classes: a linear layer, and Segmenter's mask transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mixbench.transfer.recipe import SegmentationRecipe

HEAD_DIM = 64  # of an attention head
STD = 0.02  # of weights as they are drawn


class LinearDecoder(nn.Module):
    """A linear layer on each token; logits (B, K, h, w) of tokens (B, dim, h, w)."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.head = nn.Linear(dim, num_classes)
        _draw(self)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(tokens.movedim(1, -1)).movedim(-1, 1)


class MaskTransformer(nn.Module):
    """Segmenter's decoder (arXiv 2105.05633, section 3.2): classes are tokens beside the patches'.

    A class's logit of a patch is the cosine of the two after the blocks, normalised over classes.
    Logits (B, K, h, w) of tokens (B, dim, h, w).
    """

    def __init__(self, dim: int, num_classes: int, depth: int, drop: float):
        from timm.models.vision_transformer import Block

        super().__init__()
        heads = max(dim // HEAD_DIM, 1)
        self.embed = nn.Linear(dim, dim)
        self.class_tokens = nn.Parameter(torch.empty(1, num_classes, dim))
        self.blocks = nn.Sequential(
            *(
                Block(dim, heads, qkv_bias=True, proj_drop=drop, attn_drop=drop)
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(dim)
        self.of_patches, self.of_classes = (nn.Parameter(torch.empty(dim, dim)) for _ in range(2))
        self.norm_classes = nn.LayerNorm(num_classes)
        _draw(self)
        nn.init.trunc_normal_(self.class_tokens, std=STD)
        for projection in (self.of_patches, self.of_classes):
            nn.init.normal_(projection, std=dim**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        grid = tokens.shape[-2:]
        patches = self.embed(tokens.flatten(2).mT)  # (B, p, dim)
        count = patches.shape[1]
        classes = self.class_tokens.expand(len(patches), -1, -1)  # (B, K, dim)
        mixed = self.norm(self.blocks(torch.cat([patches, classes], 1)))
        patches = nn.functional.normalize(mixed[:, :count] @ self.of_patches, dim=-1)
        classes = nn.functional.normalize(mixed[:, count:] @ self.of_classes, dim=-1)
        logits = self.norm_classes(patches @ classes.mT)  # (B, p, K)
        return logits.mT.unflatten(2, grid)


def _draw(module: nn.Module) -> None:
    """Draw the weights of linear layers; biases are 0."""
    for each in module.modules():
        if isinstance(each, nn.Linear):
            nn.init.trunc_normal_(each.weight, std=STD)
            if each.bias is not None:
                nn.init.zeros_(each.bias)


def build_decoder(recipe: SegmentationRecipe, dim: int, num_classes: int) -> nn.Module:
    """The recipe's decoder of tokens of `dim` numbers."""
    if recipe.decoder == "linear":
        return LinearDecoder(dim, num_classes)
    return MaskTransformer(dim, num_classes, recipe.decoder_depth, recipe.decoder_drop)
