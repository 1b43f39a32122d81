"""CA-Swin (section 4.5 of TransMix): Swin whose last block is a class-attention block of CaiT."""

from __future__ import annotations

from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.cait import LayerScaleBlockClassAttn
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor, nn


class ClassAttentionSwin(SwinTransformer):
    """Swin with a class token in place of its last block, which attends to the last map.

    The paper says nothing of the block's layer scale. CaiT's 1e-5 is made for 24 blocks and more:
    here the whole image passes through this one scale, which would starve the backbone of gradient,
    so `ca_layer_scale` is 1.
    """

    def __init__(self, ca_layer_scale: float = 1.0, global_pool: str = "token", **kwargs: Any):
        if global_pool != "token":
            raise ValueError(
                "CA-Swin classifies by its class token: "
                f"global_pool is 'token', not {global_pool!r}"
            )
        super().__init__(**kwargs)
        self.global_pool, self.num_prefix_tokens = global_pool, 1
        blocks: Any = self.layers[-1].blocks
        removed = blocks[-1]
        del blocks[-1]
        dim = self.num_features
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.cls_block = LayerScaleBlockClassAttn(
            dim,
            removed.attn.num_heads,
            mlp_ratio=4,
            qkv_bias=True,
            init_values=ca_layer_scale,
            drop_path=getattr(removed.drop_path1, "drop_prob", 0.0),
        )
        trunc_normal_(self.cls_token, std=0.02)
        for module in self.cls_block.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def no_weight_decay(self) -> set[str]:
        """The parameters that timm's optimizer does not decay, Swin's and the class token."""
        return SwinTransformer.no_weight_decay(self) | {"cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The layers of `layer_decay`: Swin's, and the block of the class token before the norm."""
        matcher = SwinTransformer.group_matcher(self, coarse)
        blocks = matcher["blocks"]
        if isinstance(blocks, str):
            blocks = [(blocks, None)]
        return matcher | {"blocks": [(r"^cls_", (99998,)), *blocks]}

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier in place; `global_pool` is timm's and says nothing here."""
        super().reset_classifier(num_classes)

    def attention_grid(self, height: int, width: int) -> tuple[int, int]:
        """Cells of the last map for images of this size, (rows, columns); merging rounds up."""
        embed: Any = self.patch_embed
        rows, cols = embed.dynamic_feat_size((height, width))
        for _ in range(self.num_layers - 1):
            rows, cols = (rows + 1) // 2, (cols + 1) // 2
        return rows, cols

    def forward_features(self, images: Tensor) -> Tensor:
        """Class token and last map after the norm, (B, 1 + h * w, D)."""
        tokens = self.layers(self.patch_embed(images)).flatten(1, 2)
        class_token = self.cls_block(tokens, self.cls_token.expand(len(tokens), -1, -1))
        return self.norm(torch.cat([class_token, tokens], 1))

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the class token, (B, K), or with pre_logits what they are made of, (B, D)."""
        features = self.head.drop(tokens[:, 0])
        return features if pre_logits else self.head.fc(features)


def _cfg() -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head.fc",
    }


default_cfgs = generate_default_cfgs({f"ca_swin_{size}": _cfg() for size in ("tiny", "small")})


def _create(
    variant: str, pretrained: bool, defaults: dict[str, Any], kwargs: dict[str, Any]
) -> ClassAttentionSwin:
    return build_model_with_cfg(
        ClassAttentionSwin,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        **(defaults | kwargs),
    )


@register_model
def ca_swin_tiny(pretrained: bool = False, **kwargs: Any) -> ClassAttentionSwin:
    """CA-Swin-T, 28.3 M parameters; drop path 0.2 as Swin-T's own recipe."""
    return _create(
        "ca_swin_tiny", pretrained, {"depths": (2, 2, 6, 2), "drop_path_rate": 0.2}, kwargs
    )


@register_model
def ca_swin_small(pretrained: bool = False, **kwargs: Any) -> ClassAttentionSwin:
    """CA-Swin-S, 49.6 M parameters; drop path 0.3 as Swin-S's own recipe."""
    return _create(
        "ca_swin_small", pretrained, {"depths": (2, 2, 18, 2), "drop_path_rate": 0.3}, kwargs
    )
