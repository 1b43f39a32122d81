"""PVT v1 (Wang et al., ICCV 2021) with the official parameter names.

For any image size, and as a feature pyramid.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath, Mlp, to_2tuple, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

STRIDES = (4, 2, 2, 2)
# the norms of patch embedding and spatial reduction keep torch's 1e-5
BlockNorm = partial(nn.LayerNorm, eps=1e-6)


class SpatialReductionAttention(nn.Module):
    """Self-attention whose keys and values come from a map `sr_ratio` times smaller on a side."""

    def __init__(self, dim: int, num_heads: int, sr_ratio: int):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, sr_ratio, sr_ratio)
            self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """tokens (B, N, C) -> (B, N, C); grid is (rows, columns) of the N tokens, if reduced."""
        source = tokens
        if self.sr_ratio > 1:
            maps = tokens.transpose(1, 2).unflatten(2, grid)  # (B, C, h, w)
            source = self.norm(self.sr(maps).flatten(2).transpose(1, 2))
        q = self.q(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, N, d)
        k, v = (
            self.kv(source).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block with spatial-reduction attention."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, sr_ratio: int, drop_path: float):
        super().__init__()
        self.norm1 = BlockNorm(dim)
        self.attn = SpatialReductionAttention(dim, num_heads, sr_ratio)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = BlockNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """tokens (B, N, C) -> (B, N, C); grid is (rows, columns) of the patches among them."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), grid))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class PatchEmbed(nn.Module):
    """Patches of a map as normalised tokens; what does not fill a patch is cut off."""

    def __init__(self, img_size: tuple[int, int], patch_size: int, in_chans: int, embed_dim: int):
        super().__init__()
        self.img_size, self.patch_size = img_size, (patch_size, patch_size)
        self.grid_size = (img_size[0] // patch_size, img_size[1] // patch_size)
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, maps: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """maps (B, C, H, W) -> tokens (B, h * w, D) and their grid (h, w)."""
        maps = self.proj(maps)
        return self.norm(maps.flatten(2).transpose(1, 2)), (maps.shape[-2], maps.shape[-1])


class PyramidVisionTransformer(nn.Module):
    """Four stages at strides 4, 8, 16 and 32; a class token joins in the last one.

    `img_size` sizes the position embeddings; images of another size get them resampled, bilinearly.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        embed_dims: tuple[int, ...] = (64, 128, 320, 512),
        depths: tuple[int, ...] = (3, 4, 6, 3),
        num_heads: tuple[int, ...] = (1, 2, 5, 8),
        mlp_ratios: tuple[float, ...] = (8, 8, 4, 4),
        sr_ratios: tuple[int, ...] = (8, 4, 2, 1),
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        if global_pool != "token":
            raise ValueError(
                f"PVT v1 classifies by its class token: global_pool is 'token', not {global_pool!r}"
            )
        size = to_2tuple(img_size)
        if min(size) < 32:
            raise ValueError(
                f"PVT's strides multiply to 32: img_size must be 32 or more, not {img_size}"
            )
        self.num_classes, self.in_chans, self.global_pool = num_classes, in_chans, global_pool
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dims[-1]
        self.num_prefix_tokens = 1
        # grows with depth
        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        channels = in_chans
        for stage, (dim, stride) in enumerate(zip(embed_dims, STRIDES, strict=True), 1):
            embed = PatchEmbed(size, stride, channels, dim)
            size, channels = embed.grid_size, dim
            at = stage - 1
            blocks = [
                Block(dim, num_heads[at], mlp_ratios[at], sr_ratios[at], rates.pop(0))
                for _ in range(depths[at])
            ]
            position = nn.Parameter(torch.zeros(1, size[0] * size[1] + (stage == 4), dim))
            self.add_module(f"patch_embed{stage}", embed)
            self.register_parameter(f"pos_embed{stage}", position)
            self.add_module(f"block{stage}", nn.ModuleList(blocks))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dim))
        self.norm = BlockNorm(self.embed_dim)
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module = nn.Identity()
        if num_classes > 0:
            self.head = nn.Linear(self.embed_dim, num_classes)
        for name, parameter in self.named_parameters():
            if name in self.no_weight_decay():
                trunc_normal_(parameter, std=0.02)
        self.apply(_init_linear)

    def no_weight_decay(self) -> set[str]:
        """The parameters that timm's optimizer does not decay.

        Differs: PVT's own code decays its position embeddings; DeiT's recipe, which the paper
        follows, does not.
        """
        return {"pos_embed1", "pos_embed2", "pos_embed3", "pos_embed4", "cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The layers of `layer_decay`, as timm takes them: each block, with its stage's embedding.

        Differs: PVT's own code has no such layers.
        """
        embeddings = (r"^(?:patch|pos)_embed(\d)", None if coarse else (0,))
        blocks = (r"^block(\d)" if coarse else r"^block(\d)\.(\d+)", None)
        return {
            "stem": r"^cls_token|^patch_embed1|^pos_embed1",
            "blocks": [embeddings, blocks, (r"^norm", (99999,))],
        }

    def get_classifier(self) -> nn.Module:
        """The layer that makes the logits, the identity without classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier in place; `global_pool` is timm's and says nothing here."""
        self.num_classes = num_classes
        weight = self.cls_token
        head: nn.Module = nn.Identity()
        if num_classes > 0:
            head = nn.Linear(self.embed_dim, num_classes, device=weight.device, dtype=weight.dtype)
        self.head = head.apply(_init_linear)

    def attention_grid(self, height: int, width: int) -> tuple[int, int]:
        """Patches of stage 4 for images of this size, (rows, columns)."""
        return height // 32, width // 32

    def _position(self, stage: int, grid: tuple[int, int]) -> Tensor:
        """The position embedding of a stage (1 to 4) for this grid, (1, h * w, D).

        It has a row more where the class token joins. Differs: a stage's grid is compared with its
        own; the official code compares every stage's with the first and fails at 448 px, where
        stage 2 has as many patches as stage 1 has at 224.
        """
        embedding: Tensor = getattr(self, f"pos_embed{stage}")
        made_for = getattr(self, f"patch_embed{stage}").grid_size
        if grid == made_for:
            return embedding
        class_tokens = embedding.shape[1] - made_for[0] * made_for[1]
        prefix, patches = embedding[:, :class_tokens], embedding[:, class_tokens:]
        return torch.cat([prefix, resample(patches, made_for, grid)], 1)

    def _tokens(
        self, stage: int, maps: Tensor, class_token: bool = False
    ) -> tuple[Tensor, tuple[int, int]]:
        """The tokens after one stage, (B, N, D), and the grid of its patches."""
        tokens, grid = getattr(self, f"patch_embed{stage}")(maps)
        position = self._position(stage, grid)
        if class_token:
            tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        tokens = tokens + position[:, position.shape[1] - tokens.shape[1] :]
        for block in getattr(self, f"block{stage}"):
            tokens = block(tokens, grid)
        return tokens, grid

    def forward_pyramid(self, images: Tensor) -> list[Tensor]:
        """Maps (B, D, h, w) at strides 4, 8, 16 and 32, without class token and last norm.

        Source: PVT's detection backbone.
        """
        maps, pyramid = images, []
        for stage in range(1, 5):
            tokens, grid = self._tokens(stage, maps)
            maps = tokens.transpose(1, 2).unflatten(2, grid)
            pyramid.append(maps)
        return pyramid

    def forward_features(self, images: Tensor) -> Tensor:
        """The last stage's tokens after the norm, the class token first, (B, 1 + h * w, D)."""
        maps = images
        for stage in range(1, 4):
            tokens, grid = self._tokens(stage, maps)
            maps = tokens.transpose(1, 2).unflatten(2, grid)
        return self.norm(self._tokens(4, maps, class_token=True)[0])

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the class token, (B, K), or with pre_logits what they are made of, (B, D)."""
        features = self.head_drop(tokens[:, 0])
        return features if pre_logits else self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> logits (B, K)."""
        return self.forward_head(self.forward_features(images))


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def resample(patches: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A position embedding (1, h * w, D) of the grid `old` on `new`, (1, new h * w, D).

    Bilinear, as in PVT's own code.
    """
    maps = patches.transpose(1, 2).unflatten(2, old)
    return F.interpolate(maps, size=new, mode="bilinear").flatten(2).transpose(1, 2)


def checkpoint_filter_fn(
    state: dict[str, Tensor], model: PyramidVisionTransformer
) -> dict[str, Tensor]:
    """A state dict with its position embeddings on the model's grids.

    What cannot be resampled stays as it is.
    """
    state = dict(state)
    for stage in range(1, 5):
        name, new = f"pos_embed{stage}", getattr(model, f"patch_embed{stage}").grid_size
        embedding = state.get(name)
        if embedding is None or embedding.shape == getattr(model, name).shape:
            continue
        prefix = int(stage == 4)
        side = round((embedding.shape[1] - prefix) ** 0.5)
        if side * side == embedding.shape[1] - prefix:
            patches = resample(embedding[:, prefix:], (side, side), new)
            state[name] = torch.cat([embedding[:, :prefix], patches], 1)
    return state


def _cfg() -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "fixed_input_size": False,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed1.proj",
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs(
    {f"pvt_{size}": _cfg() for size in ("tiny", "small", "medium", "large")}
)


def _create(
    variant: str, pretrained: bool, depths: tuple[int, ...], kwargs: dict[str, Any]
) -> PyramidVisionTransformer:
    return build_model_with_cfg(
        PyramidVisionTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        **({"depths": depths} | kwargs),
    )


@register_model
def pvt_tiny(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Tiny, 13.2 M parameters."""
    return _create("pvt_tiny", pretrained, (2, 2, 2, 2), kwargs)


@register_model
def pvt_small(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Small, 24.5 M parameters."""
    return _create("pvt_small", pretrained, (3, 4, 6, 3), kwargs)


@register_model
def pvt_medium(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Medium, 44.2 M parameters."""
    return _create("pvt_medium", pretrained, (3, 4, 18, 3), kwargs)


@register_model
def pvt_large(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Large, 61.4 M parameters."""
    return _create("pvt_large", pretrained, (3, 8, 27, 3), kwargs)
