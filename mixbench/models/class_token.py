"""What a model's class token looks at: which blocks it is in, and the grid of patches it sees."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from torch import nn


# tlalign is made of rollout, and takes no other attention
FOR_TLALIGN = ", and mixpro or transmix in place of tlalign"


class NoClassAttention(ValueError):
    """The model has no class token whose attention could weigh the labels."""


def class_attention_modules(model: Any) -> list[nn.Module]:
    """The attention modules in which a class token looks at the patches, first to last.

    They are of classes whose attention is known to be softmax(q k^T * scale) and nothing else.
    NoClassAttention where there is none, where the attention is another, and for a model that is
    wrapped in another module.
    """
    modules = class_attention_of(model)
    unknown = {type(module).__name__ for module in modules if not _is_plain(module)}
    if modules and not unknown:
        return modules
    if unknown:
        raise NoClassAttention(
            f"the attention of {model_name(model)} ({', '.join(sorted(unknown))}) may be more than "
            "softmax(q k^T), such as one with position biases, and would be rebuilt wrongly: "
            "choose a model with plain attention (deit_small_patch16_224), an attention provider "
            "such as transmix(attention=dino), or a strategy without attention (cutmix)"
        )
    raise NoClassAttention(f"{model_name(model)} {_no_class_token(model)}")


def refuse_compiled(model: Any) -> None:
    """NoClassAttention for a compiled model, whose graph may leave the hooks of a tap out."""
    if is_compiled(model) or getattr(model, "_compiled_call_impl", None) is not None:
        raise NoClassAttention(
            f"{model_name(model)} is compiled, and hooks on a compiled model may be left out: pass "
            "the model as it was before torch.compile (model._orig_mod)"
        )


def rollout_modules(model: Any) -> list[nn.Module]:
    """The attention modules of all blocks, first to last, where rollout may multiply them.

    NoClassAttention as class_attention_modules, ValueError where the class token is not in every
    block, or a block is another than timm's plain ones: ViT and DeiT alone have them so.
    """
    from timm.models.vision_transformer import Attention, Block, ResPostBlock

    modules = class_attention_modules(model)
    if hasattr(model, "embeddings"):
        raise ValueError(
            f"attention=rollout knows timm's plain blocks, and {model_name(model)} is Hugging "
            f"Face's: choose attention=last or a block from 1 to {len(modules)}{FOR_TLALIGN}"
        )
    blocks, count = getattr(model, "blocks", ()), len(modules)
    if len(blocks) != count or any(type(module) is not Attention for module in modules):
        raise ValueError(
            "attention=rollout multiplies the attention of all blocks, and the class token of "
            f"{model_name(model)} is in its last {count} alone: choose attention=last or a "
            f"block from 1 to {count}{FOR_TLALIGN}"
        )
    unknown = {type(block) for block in blocks} - {Block, ResPostBlock}
    forward = type(model).forward_features
    if unknown or not forward.__module__.startswith("timm."):
        name = unknown.pop().__name__ if unknown else "forward_features"
        raise ValueError(
            f"attention=rollout knows how timm's plain blocks follow each other, and "
            f"{model_name(model)} has its own {name}: choose attention=last{FOR_TLALIGN}"
        )
    return modules


def class_attention_of(model: Any) -> list[Any]:
    """The modules in which a class token attends, whatever they compute; [] without any."""
    if hasattr(model, "blocks_token_only"):  # CaiT
        return [block.attn for block in model.blocks_token_only]
    if hasattr(model, "cls_attn_blocks"):  # XCiT; its other blocks attend over channels
        return [block.attn for block in model.cls_attn_blocks]
    if hasattr(model, "cls_block"):  # CA-Swin
        return [model.cls_block.attn]
    if hasattr(model, "block4"):  # PVT; the class token joins at its last stage
        return [block.attn for block in model.block4]
    if getattr(getattr(model, "embeddings", None), "cls_token", None) is not None:
        return _hugging_face_attention(model)
    # an averaged head leaves the class token untrained; rope and position biases make attention
    # more than q and k
    if (
        getattr(model, "cls_token", None) is None
        or getattr(model, "global_pool", "token") != "token"
        or any(getattr(model, name, None) is not None for name in ("rope", "rel_pos_bias"))
    ):
        return []
    blocks = list(getattr(model, "blocks", ()))
    if hasattr(model, "local_up_to_layer"):  # ConViT; the class token joins at its last blocks
        blocks = blocks[model.local_up_to_layer :]
    modules = [getattr(block, "attn", None) for block in blocks]
    return modules if all(hasattr(module, "qkv") for module in modules) else []


def _hugging_face_attention(model: Any) -> list[Any]:
    """The attention modules of a model as transformers builds its ViT, [] where it is another."""
    # transformers 5, and 4 with an attention module inside another
    layers = getattr(model, "layers", None) or getattr(
        getattr(model, "encoder", None), "layer", None
    )
    modules = [getattr(layer, "attention", None) for layer in layers or ()]
    return [] if None in modules else [getattr(m, "attention", m) for m in modules]


def query_and_key(attn: Any) -> tuple[nn.Module, nn.Module]:
    """The projections that give the queries, and the keys (PVT's: keys and values)."""
    for query, key in (("q", "k"), ("q", "kv"), ("q_proj", "k_proj"), ("query", "key")):
        if hasattr(attn, query) and hasattr(attn, key):
            return getattr(attn, query), getattr(attn, key)
    raise AssertionError(f"{type(attn).__name__} has no projections that are known")


def head_count(attn: Any) -> int:
    """The heads of an attention module, by timm's name or by transformers'."""
    return attn.num_heads if hasattr(attn, "num_heads") else attn.num_attention_heads


def _is_plain(module: Any) -> bool:
    """Whether a module computes softmax(q k^T * scale) and nothing else."""
    kind = type(module)
    return kind in _known() or kind.__module__ == "transformers.models.vit.modeling_vit"


@cache
def _known() -> frozenset[type]:
    """The classes whose forward is softmax(q k^T * scale) of `q`, `k` or `qkv`, and no more."""
    from timm.models.cait import ClassAttn
    from timm.models.convit import MHSA
    from timm.models.vision_transformer import Attention

    from mixbench.models.pvt import SpatialReductionAttention

    return frozenset({Attention, ClassAttn, MHSA, SpatialReductionAttention})


def is_compiled(model: Any) -> bool:
    """Whether this is torch.compile's wrapper of a model, which it holds as `_orig_mod`."""
    return type(model).__name__ == "OptimizedModule"


def _no_class_token(model: Any) -> str:
    """Why a model gives no class attention, and what to do."""
    for path, module in model.named_modules():
        if path and class_attention_of(module):
            inner = f"model.{path}" if path.replace(".", "_").isidentifier() else ""
            inner = inner or f"model.get_submodule({path!r})"
            return f"only holds a model with class attention: pass the inner one, {inner}"
    if any(cls.__module__.startswith("transformers.") for cls in type(model).__mro__):
        return (
            "is a model of Hugging Face's transformers, and class attention is read from their "
            "ViT and from timm's models: pass ViTForImageClassification, or a timm model such as "
            "timm.create_model('deit_small_patch16_224')"
        )
    return (
        "has no class token to take attention from: choose a model with one "
        "(deit_small_patch16_224, vit_*, cait_*, xcit_*, pvt_small, ca_swin_tiny), an attention "
        "provider such as transmix(attention=dino), or a strategy without attention (cutmix)"
    )


def model_name(model: nn.Module) -> str:
    """The name timm knows the model by, else its class."""
    return getattr(model, "default_cfg", {}).get("architecture") or type(model).__name__


def patch_embedding(model: Any) -> Any:
    """The module that makes patches of the images, PVT's first."""
    if hasattr(model, "embeddings"):  # Hugging Face's
        return model.embeddings.patch_embeddings
    return model.patch_embed if hasattr(model, "patch_embed") else model.patch_embed1


# by model and image size: asked for in every step, and a search through the model's modules
_grids: WeakKeyDictionary[Any, dict[tuple[int, int], Any]] = WeakKeyDictionary()


def patch_grid(model: Any, height: int, width: int) -> tuple[int, int] | None:
    """The grid of a model whose class token sees patches, (rows, columns); None for another."""
    try:
        known = _grids.setdefault(model, {})
    except TypeError:  # neither hashed nor referred to weakly: looked through each time
        known = {}
    if (height, width) not in known:
        seen = class_attention_of(model)
        known[height, width] = attention_grid(model, height, width) if seen else None
    return known[height, width]


def patches_of(model: Any, height: int, width: int) -> tuple[int, int] | None:
    """The patches that a model makes of images of this size, whatever sees them; None without."""
    grid = patch_grid(model, height, width)
    if grid is not None or not hasattr(model, "patch_embed"):
        return grid
    try:
        return attention_grid(model, height, width)
    except (AttributeError, TypeError):  # of a size that it does not say
        return None


def attention_grid(model: Any, height: int, width: int) -> tuple[int, int]:
    """The patches that the class token sees in images of this size, (rows, columns)."""
    if hasattr(model, "attention_grid"):  # PVT and CA-Swin: coarser than their first patches
        return model.attention_grid(height, width)
    embed = patch_embedding(model)
    if hasattr(embed, "dynamic_feat_size"):  # a hybrid's counts the stride of its CNN too
        rows, columns = embed.dynamic_feat_size((height, width))
        return rows, columns
    size = embed.patch_size  # a number for XCiT, a pair for Hugging Face's ViT
    rows, columns = size if isinstance(size, tuple | list) else (size, size)
    return height // rows, width // columns
