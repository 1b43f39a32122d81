"""Feature pyramids of classifiers: PVT and ResNets with an FPN, plain ViTs with a simple one."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm2d, PatchEmbed
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from mixbench.mix import hashed_seed
from mixbench.models.build import build_model
from mixbench.models.checkpoints import fill
from mixbench.models.pvt import PyramidVisionTransformer
from mixbench.recipe import MODEL_PARTS, Recipe
from mixbench.transfer.candidates import Start
from mixbench.transfer.recipe import DetectionRecipe

LEVELS = ("0", "1", "2", "3")  # and 'pool', of every other cell of the last
FINEST = 4  # pixels between the cells of the first map, as near as a patch's side allows


class Pyramid(nn.Module):
    """Maps {'0', '1', '2', '3', 'pool'} (B, out_channels, h, w) of images (B, 3, H, W).

    `strides` are the pixels between the cells of each map; `divisor` divides H and W.
    """

    strides: tuple[float, ...] = (4, 8, 16, 32, 64)
    divisor = 32

    def __init__(self, encoder: Any, neck: nn.Module, out_channels: int):
        super().__init__()
        self.encoder, self.neck, self.out_channels = encoder, neck, out_channels

    def encode(self, images: Tensor) -> Any:
        """What the neck takes."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.neck(self.encode(images))
        return maps


class PVTPyramid(Pyramid):
    """The maps of PVT's four stages, without a norm, and an FPN."""

    def encode(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (B, D, h, w) by level, at strides 4, 8, 16 and 32."""
        return dict(zip(LEVELS, self.encoder.forward_pyramid(images), strict=True))


class ResNetPyramid(Pyramid):
    """The maps of a ResNet's four layers and an FPN."""

    def encode(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (B, D, h, w) by level, at strides 4, 8, 16 and 32."""
        maps = self.encoder.forward_intermediates(
            images, indices=[1, 2, 3, 4], intermediates_only=True
        )
        return dict(zip(LEVELS, maps, strict=True))


class ViTPyramid(Pyramid):
    """The last tokens of a plain ViT, without the norm after them, and a simple pyramid.

    Position embeddings are resampled to an image's grid by timm. Differs: ViTDet leaves the class
    token out and has windows of attention; here every block is as it was trained.
    """

    def __init__(self, encoder: Any, neck: nn.Module, out_channels: int):
        super().__init__(encoder, neck, out_channels)
        patch = encoder.patch_embed.patch_size[0]
        doublings = doublings_of(patch)
        self.strides = tuple(patch / 2 ** (doublings - level) for level in range(5))
        self.divisor = patch * 2 ** max(3 - doublings, 0)  # so that halves of maps come out even

    def encode(self, images: Tensor) -> Tensor:
        """The last map, (B, D, H / patch, W / patch)."""
        [tokens] = self.encoder.forward_intermediates(images, indices=1, intermediates_only=True)
        return torch.as_tensor(tokens)


def doublings_of(patch: int) -> int:
    """How often the map of patches is doubled for the first level: 2 for sides 16 and 14, 1 for 8.

    The first stride is then within a factor of 1.42 of FINEST, or the patch's side if less.
    """
    return max(round(math.log2(patch / FINEST)), 0)


class SimplePyramid(nn.Module):
    """Four maps from one, each enlarged by deconvolutions or reduced by max-pooling, and 'pool'.

    Source: ViTDet (arXiv 2203.16527), for patches of 16 px: times 4, 2, 1 and 1/2.
    """

    def __init__(self, dim: int, out_channels: int, doublings: int):
        super().__init__()
        self.levels = nn.ModuleList(
            _level(dim, out_channels, doublings - level) for level in range(len(LEVELS))
        )
        self.extra = LastLevelMaxPool()

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """tokens (B, D, h, w) -> maps (B, out_channels, ., .) by level."""
        maps = [level(tokens) for level in self.levels]
        maps, names = self.extra(maps, maps, list(LEVELS))
        return dict(zip(names, maps, strict=True))


def _level(dim: int, out_channels: int, doublings: int) -> nn.Sequential:
    """Layers that make a map 2 ** doublings times as large, of `out_channels`."""
    layers: list[nn.Module] = []
    for number in range(doublings):
        if number:
            layers += [LayerNorm2d(dim), nn.GELU()]
        layers.append(nn.ConvTranspose2d(dim, dim // 2, 2, 2))
        dim //= 2
    if doublings < 0:
        layers.append(nn.MaxPool2d(2**-doublings))
    layers += [nn.Conv2d(dim, out_channels, 1, bias=False), LayerNorm2d(out_channels)]
    layers.append(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False))
    return nn.Sequential(*layers, LayerNorm2d(out_channels))


def build_pyramid(start: Start, recipe: DetectionRecipe, seed: int) -> Pyramid:
    """The pyramid as its training begins, of the start's weights.

    The neck's initial weights, and random ones of the encoder, are the same for the same seed.
    ValueError where the model has no pyramid, or the weights do not fit it.
    """
    encoder: Any = _build_encoder(start.model, recipe, seed)
    if start.weights is not None:
        fill(encoder, start.weights, start.use_ema, 0)
    torch.manual_seed(hashed_seed("neck", seed))
    if isinstance(encoder, PyramidVisionTransformer):
        drop_class_token(encoder)
        channels = [encoder.get_parameter(f"pos_embed{stage}").shape[-1] for stage in range(1, 5)]
        return PVTPyramid(encoder, _fpn(channels, recipe), recipe.fpn_channels)
    if isinstance(encoder, ResNet):
        layers: Any = encoder.feature_info[1:]  # the stem comes first
        channels = [each["num_chs"] for each in layers]
        if start.weights is not None:
            encoder = freeze_stem(encoder)
        return ResNetPyramid(encoder, _fpn(channels, recipe), recipe.fpn_channels)
    assert isinstance(encoder, VisionTransformer)
    drop_norm(encoder)
    doublings = doublings_of(encoder.patch_embed.patch_size[0])
    neck = SimplePyramid(encoder.embed_dim, recipe.fpn_channels, doublings)
    return ViTPyramid(encoder, neck, recipe.fpn_channels)


def _fpn(channels: list[int], recipe: DetectionRecipe) -> nn.Module:
    return FeaturePyramidNetwork(channels, recipe.fpn_channels, LastLevelMaxPool())


def _build_encoder(model: Recipe, recipe: DetectionRecipe, seed: int) -> nn.Module:
    """The recipe's model at its own image size and without a classifier, for images of any size."""
    build = partial(
        build_model,
        model.model,
        0,
        seed,
        image_size=model.image_size,
        drop_path_rate=recipe.drop_path,
        **{name: getattr(model, name) for name in MODEL_PARTS},
    )
    encoder = build()
    if isinstance(encoder, VisionTransformer) and isinstance(encoder.patch_embed, PatchEmbed):
        return build(dynamic_img_size=True)
    if not isinstance(encoder, (PyramidVisionTransformer, ResNet)):
        raise ValueError(
            "det takes PVT, a plain ViT such as deit_small_patch16_224, or a ResNet such as "
            f"resnet50, and {model.model} is none"
        )
    return encoder


def drop_class_token(encoder: Any) -> None:
    """Take from a PVT what its pyramid has no use for: class token, its position, last norm."""
    encoder.pos_embed4 = nn.Parameter(encoder.pos_embed4.detach()[:, 1:].clone())
    encoder.cls_token = None
    encoder.norm = nn.Identity()
    encoder.num_prefix_tokens = 0


def drop_norm(encoder: Any) -> None:
    """Take from a ViT what comes after its last block."""
    for name in ("norm", "fc_norm", "head", "head_dist"):
        if hasattr(encoder, name):
            setattr(encoder, name, nn.Identity())
    encoder.attn_pool = None


def freeze_stem(encoder: Any) -> nn.Module:
    """A trained ResNet whose batch norms, stem and first layer stay as they are.

    As torchvision and mmdet do it; random weights are trained as a whole, as by torchvision.
    """
    frozen: Any = freeze_batch_norm_2d(encoder)
    for part in (frozen.conv1, frozen.layer1):
        part.requires_grad_(False)
    return frozen
