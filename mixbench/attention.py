"""Class attention: the class token's row of one block, rebuilt from its queries and keys while fused attention stays on."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mixbench.mix import ModelOutput

if TYPE_CHECKING:
    from torch import Tensor, nn


class NoClassAttention(ValueError):
    """The model has no class token whose attention could weigh the labels."""


def class_attention_modules(model: Any) -> list[nn.Module]:
    """The attention modules in which a class token looks at the patches, first to last; NoClassAttention where none does."""
    if hasattr(model, "blocks_token_only"):  # CaiT
        return [block.attn for block in model.blocks_token_only]
    if hasattr(model, "cls_attn_blocks"):  # XCiT; its other blocks attend over channels
        return [block.attn for block in model.cls_attn_blocks]
    blocks = getattr(model, "blocks", ())
    # an averaged head leaves the class token untrained
    if getattr(model, "cls_token", None) is not None and getattr(model, "global_pool", "token") == "token":
        modules = [block.attn for block in blocks if hasattr(getattr(block, "attn", None), "qkv")]
        if modules:
            return modules
    raise NoClassAttention(
        f"{model_name(model)} has no class token to take attention from: choose a model with one "
        "(deit_small_patch16_224, vit_*, cait_*, xcit_*) or a strategy without attention (cutmix)"
    )


def model_name(model: nn.Module) -> str:
    """The name timm knows the model by, else its class."""
    return getattr(model, "default_cfg", {}).get("architecture") or type(model).__name__


class ClassAttention:
    """Record a block's class attention during forward passes: `with ClassAttention(model) as tap: output = tap(images)`.

    block is 'last' or a number from 1. NoClassAttention where the model has no class token, ValueError for another block.
    """

    def __init__(self, model: nn.Module, block: int | str = "last"):
        self.model: Any = model
        modules = class_attention_modules(model)
        text = str(block)
        if text != "last" and not (text.isdecimal() and 1 <= int(text) <= len(modules)):
            raise ValueError(f"attention of {model_name(model)} is 'last' or a block from 1 to {len(modules)}, not {block!r}")
        self._attn: Any = modules[-1 if text == "last" else int(text) - 1]
        self._size: tuple[int, int] | None = None
        self._query: Tensor | None = None
        self._rows: Tensor | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> ClassAttention:
        attn, embed = self._attn, self.model.patch_embed
        self._handles = [embed.register_forward_pre_hook(self._see_size)]
        if hasattr(attn, "qkv"):
            self._handles.append(attn.qkv.register_forward_hook(self._see_qkv))
        else:
            self._handles.append(attn.q.register_forward_hook(self._see_query))
            self._handles.append(attn.k.register_forward_hook(self._see_key))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __call__(self, images: Tensor) -> ModelOutput:
        """Run the model on images (B, C, H, W): logits (B, K) and attn (B, h, w) float32 without gradient."""
        logits = self.model(images)
        return ModelOutput(logits, self.mean())

    def _see_size(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._size = (inputs[0].shape[-2], inputs[0].shape[-1])

    def _see_qkv(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        q, k, _ = output.detach().unflatten(-1, (3, self._attn.num_heads, -1)).unbind(2)  # (B, N, heads, d) each
        self._see(q[:, :1], k)

    def _see_query(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._query = output.detach().unflatten(-1, (self._attn.num_heads, -1))[:, None]  # (B, 1, heads, d)

    def _see_key(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        assert self._query is not None
        self._see(self._query, output.detach().unflatten(-1, (self._attn.num_heads, -1)))

    @torch.no_grad()
    def _see(self, q: Tensor, k: Tensor) -> None:
        """Keep softmax(q k^T * scale) of the class token, (B, heads, N); q (B, 1, heads, d), k (B, N, heads, d)."""
        with torch.autocast(q.device.type, enabled=False):  # float16 saturates here
            q, k = q.float(), k.float()
            if hasattr(self._attn, "q_norm"):
                q, k = self._attn.q_norm(q), self._attn.k_norm(k)
            scores = torch.einsum("bqhd,bnhd->bhn", q * self._attn.scale, k)
            self._rows = scores.softmax(-1)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of the last forward pass, (rows, columns)."""
        assert self._size is not None, "no forward pass was seen"
        embed: Any = self.model.patch_embed
        patch = embed.patch_size if isinstance(embed.patch_size, tuple) else (embed.patch_size,) * 2  # XCiT has a number
        sides = zip(self._size, patch, strict=True)
        if getattr(embed, "dynamic_img_pad", False):
            rows, cols = (-(-side // step) for side, step in sides)
        else:
            rows, cols = (side // step for side, step in sides)
        return rows, cols

    def per_head(self) -> Tensor:
        """Attention to the patches of each head, (B, heads, h, w) float32; its sum is 1 less what prefix tokens take."""
        assert self._rows is not None, "no forward pass was seen"
        rows, cols = self.grid
        prefix = self._rows.shape[-1] - rows * cols
        if prefix != getattr(self.model, "num_prefix_tokens", 1):
            raise NoClassAttention(f"{model_name(self.model)} dropped or merged patches: its attention has no {rows}x{cols} grid")
        return self._rows[:, :, prefix:].unflatten(-1, (rows, cols))

    def mean(self) -> Tensor:
        """Attention to the patches with heads averaged, (B, h, w) float32."""
        return self.per_head().mean(1)
