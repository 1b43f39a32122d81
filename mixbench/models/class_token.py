"""What a model's class token looks at: which blocks it is in, and the grid of patches it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


class NoClassAttention(ValueError):
    """The model has no class token whose attention could weigh the labels."""


def class_attention_modules(model: Any) -> list[nn.Module]:
    """The attention modules in which a class token looks at the patches, first to last.

    NoClassAttention where none does.
    """
    if hasattr(model, "blocks_token_only"):  # CaiT
        return [block.attn for block in model.blocks_token_only]
    if hasattr(model, "cls_attn_blocks"):  # XCiT; its other blocks attend over channels
        return [block.attn for block in model.cls_attn_blocks]
    if hasattr(model, "cls_block"):  # CA-Swin
        return [model.cls_block.attn]
    if hasattr(model, "block4"):  # PVT; the class token joins at its last stage
        return [block.attn for block in model.block4]
    # an averaged head leaves the class token untrained; rope and position biases make attention
    # more than q and k
    if (
        getattr(model, "cls_token", None) is not None
        and getattr(model, "global_pool", "token") == "token"
        and all(getattr(model, name, None) is None for name in ("rope", "rel_pos_bias"))
    ):
        modules = [
            block.attn
            for block in getattr(model, "blocks", ())
            if hasattr(getattr(block, "attn", None), "qkv")
        ]
        if modules:
            return modules
    raise NoClassAttention(
        f"{model_name(model)} has no class token to take attention from: choose a model with one "
        "(deit_small_patch16_224, vit_*, cait_*, xcit_*, pvt_small, ca_swin_tiny), an attention "
        "provider such as transmix(attention=dino), or a strategy without attention (cutmix)"
    )


def model_name(model: nn.Module) -> str:
    """The name timm knows the model by, else its class."""
    return getattr(model, "default_cfg", {}).get("architecture") or type(model).__name__


def patch_embedding(model: Any) -> Any:
    """The module that makes patches of the images, PVT's first."""
    return model.patch_embed if hasattr(model, "patch_embed") else model.patch_embed1


def attention_grid(model: Any, height: int, width: int) -> tuple[int, int]:
    """The patches that the class token sees in images of this size, (rows, columns)."""
    if hasattr(model, "attention_grid"):  # PVT and CA-Swin: coarser than their first patches
        return model.attention_grid(height, width)
    embed = model.patch_embed
    patch = embed.patch_size
    if not isinstance(patch, tuple):  # XCiT has a number
        patch = patch, patch
    if getattr(embed, "dynamic_img_pad", False):
        return -(-height // patch[0]), -(-width // patch[1])
    return height // patch[0], width // patch[1]
