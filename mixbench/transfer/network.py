"""A ViT that gives a class for each pixel: timm's encoder without classifier, and a decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mixbench.mix import hashed_seed
from mixbench.models.build import build_model
from mixbench.models.checkpoints import fill
from mixbench.recipe import MODEL_PARTS, Recipe, check_multiple
from mixbench.transfer.candidates import Start
from mixbench.transfer.decoders import build_decoder
from mixbench.transfer.recipe import SegmentationRecipe


class SegmentationNetwork(nn.Module):
    """Logits (B, K, S, S) of crops (B, 3, S, S): the last tokens after the norm, then a decoder."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: Tensor) -> Tensor:
        encoder: Any = self.encoder
        [tokens] = encoder.forward_intermediates(
            images, indices=1, norm=True, intermediates_only=True
        )  # (B, dim, h, w)
        return nn.functional.interpolate(
            self.decoder(tokens), images.shape[-2:], mode="bilinear", align_corners=False
        )


def segmentation_network(
    start: Start, recipe: SegmentationRecipe, num_classes: int, seed: int
) -> SegmentationNetwork:
    """The network as its training begins.

    The decoder's initial weights, and random ones of the encoder, are the same for the same seed.
    ValueError where the model is no plain ViT, or the weights do not fit it.
    """
    encoder: Any = build_encoder(start.model, recipe, seed)
    if start.weights is not None:
        fill(encoder, start.weights, start.use_ema, 0)
    torch.manual_seed(hashed_seed("decoder", seed))
    decoder = build_decoder(recipe, encoder.embed_dim, num_classes)
    return SegmentationNetwork(encoder, decoder)


def build_encoder(model: Recipe, recipe: SegmentationRecipe, seed: int) -> nn.Module:
    """The recipe's model at the size of the crops and without a classifier."""
    from timm.models.vision_transformer import VisionTransformer

    parts = {name: getattr(model, name) for name in MODEL_PARTS}
    encoder: Any = build_model(
        model.model, 0, seed, image_size=recipe.crop_size, drop_path_rate=recipe.drop_path, **parts
    )
    if not isinstance(encoder, VisionTransformer):
        raise ValueError(
            f"seg takes a plain ViT such as deit_small_patch16_224, and {model.model} is none"
        )
    check_multiple("crop_size", recipe.crop_size, encoder.patch_embed.patch_size[0])
    return encoder
