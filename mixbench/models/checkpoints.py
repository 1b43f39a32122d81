"""Checkpoints of every kind the paper's models come in, read as plain weights; what was taken is recorded with its sha256."""

from __future__ import annotations

import argparse
import copy
import hashlib
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mixbench.values import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

EMA_KEYS = ("state_dict_ema", "model_ema")  # timm's training script, DeiT's
RAW_KEYS = ("state_dict", "model", "teacher")  # timm's training script; DeiT, XCiT, CaiT, PVT; DINO
FAMILY_FILTERS = (
    "xcit",
    "swin_transformer",
    "ca_swin",
    "pvt",
)  # modules whose checkpoint_filter_fn renames official keys
PARTS = (
    "img_size",
    "patch_size",
    "embed_dim",
    "depth",
    "num_heads",
)  # of a model, as a recipe changes them
LISTED = 20  # keys that an error names


@dataclass(frozen=True)
class WeightsSource:
    """Where a model's weights came from: `model.weights_source`."""

    weights: str  # 'ema', 'raw', 'pretrained' (timm's) or 'random'
    path: str = ""  # the file, or timm's name of the weights
    key: str = ""  # the entry of the file; '' for a plain state dict
    sha256: str = ""  # of the file
    head: str = "loaded"  # 'new' where the classes differ, 'none' without a classifier


def read_checkpoint(path: str | Path) -> tuple[dict[str, Any], str]:
    """The content of a .pth or .safetensors file and its sha256; nothing in it is ever run.

    ValueError where it is missing, cannot be read, or holds anything but plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint not found: {path}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            with torch.serialization.safe_globals(
                [argparse.Namespace]
            ):  # the training script's options
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zipfile each raise their own
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise ValueError(
                f"checkpoint {path} holds more than weights ({code[1]}) and was not opened, since that could run code: "
                "save its state_dict alone"
            ) from None
        raise ValueError(
            f"checkpoint {path} cannot be read ({type(error).__name__}): it is damaged or no file of weights"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint {path} holds a {type(content).__name__}: save a state_dict")
    return content, digest


def choose_weights(
    content: dict[str, Any], use_ema: bool | str, path: str | Path
) -> tuple[str, dict[str, Tensor]]:
    """The entry to load and its weights without the prefixes of wrappers; ValueError where there is none.

    use_ema 'auto' takes the moving average where the file has one, True insists on it, False takes the raw weights.
    """
    if use_ema not in ("auto", True, False):
        raise ValueError(f"use_ema must be 'auto', True or False, not {use_ema!r}")
    ema, raw = (
        next((k for k in keys if isinstance(content.get(k), dict)), None)
        for keys in (EMA_KEYS, RAW_KEYS)
    )
    if use_ema is True and ema is None:
        raise ValueError(
            f"checkpoint {path} has no moving average ({' or '.join(EMA_KEYS)}): set use_ema to 'auto' or False"
        )
    key = ema if ema is not None and use_ema is not False else raw
    if key is None and ema is not None:
        raise ValueError(
            f"checkpoint {path} has a moving average alone ({ema}): set use_ema to 'auto' or True"
        )
    state = content if key is None else content[key]
    odd = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if odd or not state:
        raise ValueError(
            f"checkpoint {path} holds no weights that are known here: its entries are {_listed(map(str, state))}"
        )
    prefixes = ("module.", "_orig_mod.") + (("backbone.",) if key == "teacher" else ())
    state = {_without(name, prefixes): value for name, value in state.items()}
    if key == "teacher":
        state = {
            name: value for name, value in state.items() if not name.startswith("head.")
        }  # DINO's projection
    return key or "", state


def _without(name: str, prefixes: tuple[str, ...]) -> str:
    while name.startswith(prefixes):
        name = name.partition(".")[2]
    return name


def _listed(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def adapt(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Official key names as the model's, and the position embedding on its grid (bicubic, as DeiT and DINO do it).

    Differs: timm's own loading resamples with antialiasing, which changes the attention by 0.2 % at 512 px.
    """
    from timm.layers import resample_abs_pos_embed

    own = model.state_dict()
    patch = "patch_embed.proj.weight"
    if patch in state and patch in own and state[patch].shape != own[patch].shape:
        return state  # another model's; timm's filters would bend it into shape
    module = sys.modules[type(model).__module__]
    if module.__name__.rpartition(".")[2] in FAMILY_FILTERS:
        state = module.checkpoint_filter_fn(dict(state), model)
    given, wanted = state.get("pos_embed"), own.get("pos_embed")
    if (
        given is not None
        and wanted is not None
        and given.ndim == wanted.ndim == 3
        and given.shape != wanted.shape
    ):
        grid = model.patch_embed.grid_size
        prefix = wanted.shape[1] - grid[0] * grid[1]
        side = math.isqrt(max(given.shape[1] - prefix, 0))
        if side and side * side == given.shape[1] - prefix:
            state["pos_embed"] = resample_abs_pos_embed(
                given, grid, [side, side], prefix, antialias=False
            )
    return state


def _heads(model: Any) -> tuple[str, ...]:
    names = model.default_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def mismatches(
    state: dict[str, Tensor], model: nn.Module, ignore: tuple[str, ...] = ()
) -> list[str]:
    """What keeps a state dict from the model, one line each for missing, unexpected and wrongly shaped keys; [] where it fits."""
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.startswith(ignore)]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{len(names)} {what}: {_listed(names)}" for what, names in found if names]


def _fill(
    model: Any,
    content: dict[str, Any],
    path: Path,
    digest: str,
    use_ema: bool | str,
    num_classes: int | None,
) -> None:
    """Load a checkpoint's weights into `model`, with as many classes as the file where num_classes is None."""
    key, state = choose_weights(content, use_ema, path)
    state = adapt(state, model)
    heads = _heads(model)
    weight = state.get(f"{heads[0]}.weight") if heads else None
    file_classes = len(weight) if weight is not None else 0
    classes = file_classes if num_classes is None else num_classes
    if classes != model.num_classes:
        model.reset_classifier(classes)
    prefixes = tuple(f"{name}." for name in heads)
    keep = bool(file_classes) and classes == file_classes
    if not keep:
        state = {
            name: value
            for name, value in state.items()
            if name not in {f"{h}.{p}" for h in heads for p in ("weight", "bias")}
        }
    problems = mismatches(state, model, () if keep else prefixes)
    if problems:
        raise ValueError(
            f"checkpoint {path} does not fit {model.default_cfg['architecture']}: {'; '.join(problems)}"
        )
    model.load_state_dict(state, strict=keep)
    head = "loaded" if keep else "new" if classes else "none"
    model.weights_source = WeightsSource(
        "ema" if key in EMA_KEYS else "raw", str(path), key, digest, head
    )


def _create(name: str, **kwargs: Any) -> Any:
    """A timm model; None is timm's default, and networks that take any size are not told one."""
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise ValueError(f"unknown model {name!r}: {did_you_mean(name, timm.list_models())}")
    try:
        try:
            return timm.create_model(name, **kwargs)
        except TypeError:
            if kwargs.pop("img_size", None) is None:
                raise
            return timm.create_model(name, **kwargs)
    except TypeError as error:
        raise ValueError(f"{name} does not take all of {', '.join(kwargs)} ({error})") from None


def load_model(
    name: str,
    *,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    use_ema: bool | str = "auto",
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
) -> nn.Module:
    """The model called `name` with timm's weights or a file's, the source recorded in its `weights_source`.

    A file is what timm, TransMix, DeiT, CaiT, XCiT, PVT or DINO save, a plain state dict, or .safetensors. Without num_classes the
    model has the file's classes; with other ones its classifier is new. Position embeddings are resampled for another img_size.
    ValueError for an unknown model, a file that cannot be read, and one whose keys do not fit, all of which it lists.
    """
    name = name.replace("_return_attn", "")  # TransMix's names of DeiT
    if checkpoint is None:
        model = _create(name, num_classes=num_classes, img_size=img_size)
        model.weights_source = WeightsSource("random", head="new")
        return _with_timms_weights(model, name, num_classes) if pretrained else model
    if pretrained:
        raise ValueError("pretrained and checkpoint exclude each other: give one")
    content, digest = read_checkpoint(checkpoint)
    recorded, parts = _recorded(content, checkpoint)
    parts = (parts if recorded == name else {}) | (
        {} if img_size is None else {"img_size": img_size}
    )
    model = _create(name, **parts)
    _fill(model, content, Path(checkpoint), digest, use_ema, num_classes)
    return model


def _with_timms_weights(model: Any, name: str, num_classes: int | None) -> Any:
    try:
        source = _create(name, pretrained=True, num_classes=num_classes)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"timm's weights of {name} cannot be had ({reason}): download them and give the checkpoint's path"
        ) from None
    model.load_state_dict(adapt(source.state_dict(), model))
    full = ".".join(
        filter(None, (source.default_cfg["architecture"], source.default_cfg.get("tag")))
    )
    head = (
        "none"
        if not model.num_classes
        else "loaded"
        if model.num_classes == source.default_cfg["num_classes"]
        else "new"
    )
    model.weights_source = WeightsSource("pretrained", full, head=head)
    return model


def model_record(name: str, **parts: Any) -> dict[str, Any]:
    """What a training file says of its model, so that load_model and load_any build it: its name, and the PARTS that are not None."""
    assert set(parts) <= set(PARTS), parts
    return {
        "arch": name,
        "model_args": {part: value for part, value in parts.items() if value is not None},
    }


def _recorded(content: dict[str, Any], path: str | Path) -> tuple[str, dict[str, Any]]:
    """The model that a training file names, and its parts; ('', {}) where it names none that timm has."""
    import timm

    name, parts = (
        content.get("arch") or getattr(content.get("args"), "model", None),
        content.get("model_args", {}),
    )
    name = name.replace("_return_attn", "") if isinstance(name, str) else ""
    if not timm.is_model(name):
        return "", {}
    if not isinstance(parts, dict) or not set(parts) <= set(
        PARTS
    ):  # the rest of create_model's options are not a file's to choose
        raise ValueError(
            f"checkpoint {path}: model_args may hold {', '.join(PARTS)}, not {parts!r}"
        )
    return name, parts


def load_any(path: str | Path, *, like: nn.Module | None = None) -> nn.Module:
    """The model that made a checkpoint, without its classifier: the one that the file names, else the first that its keys fit.

    Tried are the models of the zoo and, last, the architecture of `like`. ValueError where none fits.
    """
    content, digest = read_checkpoint(path)
    name, parts = _recorded(content, path)
    model = _create(name, **parts) if name else _match(content, path, like)
    _fill(model, content, Path(path), digest, "auto", 0)
    return model


def _match(content: dict[str, Any], path: str | Path, like: nn.Module | None) -> nn.Module:
    from mixbench.models.zoo import ZOO, blank_model

    _, state = choose_weights(content, "auto", path)
    for name in dict.fromkeys(row.name for row in ZOO):
        if _fits(dict(state), blank_model(name)):
            return _create(name)
    if like is not None and _fits(dict(state), like):
        return copy.deepcopy(like)
    raise ValueError(
        f"checkpoint {path} names no model, and its keys fit none of the zoo: {_listed(state)}"
    )


def _fits(state: dict[str, Tensor], model: Any) -> bool:
    """Whether a state dict is this model's, whatever its classes and at its own image size."""
    own = model.state_dict()
    if (
        "pos_embed" in state
        and "pos_embed" in own
        and state["pos_embed"].shape != own["pos_embed"].shape
    ):
        return False
    heads = tuple(f"{name}." for name in _heads(model))
    state = {
        name: value for name, value in adapt(state, model).items() if not name.startswith(heads)
    }
    return not mismatches(state, model, heads)
