"""Networks of anyone's own, made by a function, under a name in timm's registry."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mixbench.errors import reason
from mixbench.values import shown

Factory = Callable[[int], nn.Module]  # the number of classes -> a network of images to logits
_made: dict[str, Factory] = {}  # by the name of what they make


def register_factory(factory: Factory, num_classes: int) -> str:
    """The name under which timm builds a factory's networks: its own and a hash of the weights.

    It is called with the number of classes, after torch's generator was seeded, and must give the
    same initial weights for the same seed. ValueError where it does not, or gives no network.
    """
    from timm.models import register_model

    digits = _digest(factory, num_classes)
    if _digest(factory, num_classes) != digits:
        raise ValueError(
            f"model {_name(factory)} gives other weights each time: draw them from torch's global "
            "generator, which is seeded before"
        )
    name = f"{_name(factory)}_{digits[:10]}"

    known, _made[name] = name in _made, factory  # the newer one, as of a notebook's cell run again

    def build(pretrained: bool = False, num_classes: int = 1000, **parts: Any) -> nn.Module:
        # a copy: it may give one network each time, which training would change
        return copy.deepcopy(_made[name](num_classes))

    build.__name__ = name
    if not known:
        register_model(build)
    return name


def is_made(name: str) -> bool:
    """Whether a network of this name is made by a registered factory."""
    return name in _made


def _name(factory: Factory) -> str:
    """A factory's name, of letters that a file's name may have."""
    text = getattr(factory, "__name__", type(factory).__name__)
    return re.sub(r"\W", "", text, flags=re.ASCII) or "model"


def _digest(factory: Factory, num_classes: int) -> str:
    """Hex digits of a factory's initial weights and their names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            model = factory(num_classes)
            content = _content(model) if isinstance(model, nn.Module) else b""
        except Exception as error:
            raise ValueError(
                f"model {_name(factory)} cannot be built for {num_classes} classes "
                f"({reason(error)}): it is called with the number of classes"
            ) from None
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model must be a name or a function that makes a torch.nn.Module, not one that "
            f"gives {shown(model)}"
        )
    return hashlib.sha256(content).hexdigest()


def _content(model: nn.Module) -> bytes:
    """The bytes of a network's weights, with their names and types."""
    parts = []
    for name, value in model.state_dict().items():
        parts.append(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        parts.append(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return b"".join(parts)
