"""The tokens of the patches before a model's head, beside its logits."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mixbench.data.normalisation import Normalisation
from mixbench.mix import ModelOutput, Needs
from mixbench.models.class_token import attention_grid, model_name, patch_grid, refuse_compiled
from mixbench.services.attention import Net, Tap, attention_tap


class PatchTokens(Tap):
    """What the model's last norm gives of the patches, with gradient; attention from `inner`.

    ValueError where the model has no grid of patches or no last norm.
    """

    def __init__(self, model: nn.Module, inner: Tap | None = None, net: Net | None = None):
        if net is None:
            refuse_compiled(model)
        norm = getattr(model, "norm", getattr(model, "layernorm", None))
        if norm is None or patch_grid(model, 224, 224) is None:
            raise ValueError(
                f"{model_name(model)} has no tokens of patches before its head: choose a ViT "
                "(deit_small_patch16_224, vit_*), or a strategy that needs none (cutmix)"
            )
        self._model, self._norm, self._inner = model, norm, inner
        self._net: Net = net or model
        self._handle: RemovableHandle | None = None
        self._tokens: Tensor | None = None
        self.extra_parameters = inner.extra_parameters if inner else 0

    def __enter__(self) -> Self:
        if self._inner:
            self._inner.__enter__()
        self._handle = self._norm.register_forward_hook(self._see)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._handle:
            self._handle.remove()
        if self._inner:
            self._inner.__exit__(*exception)

    def _see(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._tokens = output

    def __call__(self, images: Tensor) -> ModelOutput:
        output = self._inner(images) if self._inner else ModelOutput(self._net(images))
        tokens, self._tokens = self._tokens, None  # they hold the graph of the forward pass
        height, width = attention_grid(self._model, images.shape[-2], images.shape[-1])
        if tokens is None or tokens.ndim != 3 or tokens.shape[1] < height * width:
            raise ValueError(
                f"{model_name(self._model)} gives no {height}x{width} tokens before its head: "
                "choose a ViT (deit_small_patch16_224, vit_*)"
            )
        patches = tokens[:, tokens.shape[1] - height * width :]
        return output._replace(tokens=patches.unflatten(1, (height, width)))

    def forget(self) -> None:
        self._tokens = None
        if self._inner:
            self._inner.forget()


def tap_of(
    model: nn.Module,
    needs: Needs,
    net: Net | None = None,
    normalisation: Normalisation | None = None,
) -> Tap | None:
    """The tap that fills what a strategy needs of ModelOutput, None where that is logits alone.

    `net` and `normalisation` are as in attention_tap. NoClassAttention or ValueError says what does
    not fit.
    """
    attention = None
    if needs.attention:
        attention = attention_tap(model, needs.attention, net, normalisation)
    return PatchTokens(model, attention, net) if needs.tokens else attention
