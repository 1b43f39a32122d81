"""Checkpoints of every kind the paper's models come in, read as plain weights.

What was taken is recorded with the file's sha256.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixbench.errors import reason
from mixbench.models.build import build_model
from mixbench.models.counts import blank_model
from mixbench.models.preprocessing import recorded_preprocessing, timms_preprocessing
from mixbench.models.zoo import ZOO

EMA_KEYS = ("state_dict_ema", "model_ema")  # timm's training script, DeiT's
TIMMS = "timm's weights"  # that timm fetched, as a checkpoint's entry
# timm's training script; DeiT, XCiT, CaiT, PVT; DINO
RAW_KEYS = ("state_dict", "model", "teacher", TIMMS)
# modules whose checkpoint_filter_fn renames official keys, or resamples positions
FAMILY_FILTERS = ("xcit", "swin_transformer", "ca_swin", "pvt", "beit", "mvitv2")
POSITIONS = ("pos", "attention_biases")  # what an image size decides has one of these in its name
# of a model, as a recipe changes them
PARTS = ("img_size", "patch_size", "embed_dim", "depth", "num_heads")
LISTED = 3  # keys of a kind that an error names
COUNTS = ".num_batches_tracked"  # of batch norms; the running mean does not depend on them


@dataclass(frozen=True)
class WeightsSource:
    """Where a model's weights came from: `model.weights_source`."""

    weights: str  # 'ema', 'raw', 'pretrained' (timm's) or 'random'
    path: str = ""  # the file, or timm's name of the weights
    key: str = ""  # the entry of the file; '' for a plain state dict
    sha256: str = ""  # of the file
    head: str = "loaded"  # 'new' where the classes differ, 'none' without a classifier


@dataclass(frozen=True)
class Checkpoint:
    """A file as it was read: what it holds, unchecked, and its sha256."""

    path: Path
    content: dict[str, Any]
    sha256: str

    def choose_weights(self, use_ema: bool | str) -> tuple[str, dict[str, Tensor]]:
        """The key of the entry to load and its weights without the prefixes of wrappers.

        use_ema 'auto' takes the moving average where the file has one, True insists on it, False
        takes the raw weights. ValueError where there is no such entry.
        """
        if use_ema not in ("auto", True, False):
            raise ValueError(f"use_ema must be 'auto', True or False, not {use_ema!r}")
        ema, raw = (
            next((k for k in keys if isinstance(self.content.get(k), dict)), None)
            for keys in (EMA_KEYS, RAW_KEYS)
        )
        if use_ema is True and ema is None:
            raise ValueError(
                f"checkpoint {self.path} has no moving average ({' or '.join(EMA_KEYS)}): "
                "set use_ema to 'auto' or False"
            )
        key = ema if ema is not None and use_ema is not False else raw
        if key is None and ema is not None:
            raise ValueError(
                f"checkpoint {self.path} has a moving average alone ({ema}): "
                "set use_ema to 'auto' or True"
            )
        state = self.content if key is None else self.content[key]
        if not state or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError(
                f"checkpoint {self.path} holds no weights that are known here: "
                f"its entries are {_listed(map(str, state))}"
            )
        prefixes = ("module.", "_orig_mod.") + (("backbone.",) if key == "teacher" else ())
        state = {_without(name, prefixes): value for name, value in state.items()}
        if key == "teacher":  # without DINO's projection
            state = {name: value for name, value in state.items() if not name.startswith("head.")}
        return key or "", state

    def recorded_model(self) -> tuple[str, dict[str, Any]]:
        """The model that a training file names, and its parts.

        ('', {}) where it names none that timm has. ValueError for parts that are not a file's to
        choose.
        """
        import timm

        name = self.content.get("arch") or getattr(self.content.get("args"), "model", None)
        name = _timms_name(name) if isinstance(name, str) else ""
        if not timm.is_model(name):
            return "", {}
        parts = self.content.get("model_args", {})
        if not isinstance(parts, dict) or not set(parts) <= set(PARTS):
            raise ValueError(
                f"checkpoint {self.path}: model_args may hold {', '.join(PARTS)}, not {parts!r}"
            )
        return name, parts

    def preprocessing(self, model: str) -> dict[str, Any]:
        """How images were prepared for its weights, by PREPROCESSING's names.

        What the file does not say is as timm has it for the model, a name that may have a tag; {}
        where neither says. ValueError where what it says is wrong.
        """
        said = timms_preprocessing(model)
        said |= recorded_preprocessing(self.content.get("preprocessing"), self.path)
        name, parts = self.recorded_model()
        if plain_name(name) == plain_name(model) and "img_size" in parts:
            said["image_size"] = parts["img_size"]
        return said


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The content of a .pth or .safetensors file with its sha256; nothing in it is ever run.

    ValueError where it is missing, cannot be read, or holds anything but plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint not found: {path}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        content = _content(path)
    except Exception as error:  # torch, pickle and zipfile each raise their own
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise ValueError(
                f"checkpoint {path} holds more than weights ({code[1]}) and was not opened, since "
                "that could run code: save its state_dict alone"
            ) from None
        raise ValueError(
            f"checkpoint {path} cannot be read ({type(error).__name__}): "
            "it is damaged or no file of weights"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint {path} holds a {type(content).__name__}: save a state_dict")
    return Checkpoint(path, content, digest)


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    with torch.serialization.safe_globals([argparse.Namespace]):  # the training script's options
        return torch.load(path, map_location="cpu", weights_only=True)


def plain_name(name: str) -> str:
    """timm's name of a model without the tag of its weights."""
    return name.partition(".")[0]


def tagged_name(model: Any) -> str:
    """timm's name of a model with the tag of its weights, where it has one."""
    config = model.default_cfg
    return ".".join(filter(None, (config["architecture"], config.get("tag"))))


def _timms_name(name: str) -> str:
    return name.replace("_return_attn", "")  # TransMix's names of DeiT


def _without(name: str, prefixes: tuple[str, ...]) -> str:
    while name.startswith(prefixes):
        name = name.partition(".")[2]
    return name


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def adapt(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Official key names as the model's, and the position embedding on its grid, as a state dict.

    The embedding is resampled bicubically, as DeiT and DINO do it. Differs: timm's own loading
    resamples with antialiasing, which changes the attention by 0.2 % at 512 px.
    """
    from timm.layers import resample_abs_pos_embed

    fresh = model.state_dict()
    patch = "patch_embed.proj.weight"
    if patch in state and patch in fresh and state[patch].shape != fresh[patch].shape:
        return state  # another model's; timm's filters would bend it into shape
    module = sys.modules[type(model).__module__]
    if module.__name__.rpartition(".")[2] in FAMILY_FILTERS:
        try:
            state = module.checkpoint_filter_fn(dict(state), model)
        except Exception:  # of another model than the filter's, whatever it stumbles over
            return state  # mismatches says what does not fit
    given, wanted = state.get("pos_embed"), fresh.get("pos_embed")
    if (
        given is not None
        and wanted is not None
        and given.ndim == wanted.ndim == 3
        and given.shape != wanted.shape
    ):
        grid = getattr(model.patch_embed, "grid_size", None)
        if grid is None:
            return state
        prefix = wanted.shape[1] - grid[0] * grid[1]
        side = math.isqrt(max(given.shape[1] - prefix, 0))
        if side and side * side == given.shape[1] - prefix:
            state["pos_embed"] = resample_abs_pos_embed(
                given, grid, [side, side], prefix, antialias=False
            )
    return state


def heads_of(config: dict[str, Any]) -> tuple[str, ...]:
    """The names of a model's classifiers by timm's configuration of it, () without one."""
    names = config.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def mismatches(
    state: dict[str, Tensor], model: nn.Module, ignore: tuple[str, ...] = ()
) -> list[str]:
    """What keeps a state dict from the model, [] where it fits.

    A line each for missing, unexpected and wrongly shaped keys; missing ones that begin with one of
    `ignore` do not count, nor do counts of batches, which older files lack.
    """
    fresh = model.state_dict()
    missing = [
        name
        for name in fresh
        if name not in state and not name.startswith(ignore) and not name.endswith(COUNTS)
    ]
    unexpected = [name for name in state if name not in fresh]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(fresh[name].shape)}"
        for name in _misshapen(state, fresh)
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{len(names)} {what}: {_listed(names)}" for what, names in kinds if names]


def _misshapen(state: dict[str, Tensor], fresh: dict[str, Tensor]) -> list[str]:
    """The weights that both have, of another shape in each."""
    return [name for name in fresh if name in state and state[name].shape != fresh[name].shape]


def fill(
    model: Any,
    checkpoint: Checkpoint,
    use_ema: bool | str,
    num_classes: int | None,
    *,
    keep_head: bool = True,
) -> nn.Module:
    """`model` with a checkpoint's weights, and as many classes as the file without num_classes.

    Its `weights_source` says where from, its `preprocessing` how images were prepared for them.
    The file's classifier is taken where it has as many classes, unless `keep_head` is false; else
    the classifier is new. ValueError where the weights do not fit.
    """
    key, state = checkpoint.choose_weights(use_ema)
    state = adapt(state, model)
    heads = heads_of(model.default_cfg)
    weight = state.get(f"{heads[0]}.weight") if heads else None
    file_classes = len(weight) if weight is not None else 0
    classes = file_classes if num_classes is None else num_classes
    if classes != model.num_classes:
        model.reset_classifier(classes)
    keep = keep_head and bool(file_classes) and classes == file_classes
    if not keep:
        classifier = {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}
        state = {name: value for name, value in state.items() if name not in classifier}
    problems = mismatches(state, model, () if keep else tuple(f"{head}." for head in heads))
    if problems:
        raise ValueError(
            f"checkpoint {checkpoint.path} does not fit {model.default_cfg['architecture']}: "
            f"{'; '.join(problems)}{_way_out(problems, state, model, checkpoint)}"
        )
    model.load_state_dict(state, strict=keep)
    model.preprocessing = checkpoint.preprocessing(tagged_name(model))
    model.weights_source = WeightsSource(
        "ema" if key in EMA_KEYS else "pretrained" if key == TIMMS else "raw",
        str(checkpoint.path),
        key,
        checkpoint.sha256,
        "loaded" if keep else "new" if classes else "none",
    )
    return model


def _way_out(
    problems: Sequence[str], state: dict[str, Tensor], model: Any, checkpoint: Checkpoint
) -> str:
    """The image size of weights that fit but for positions, as the end of an error; else ''."""
    wrong = _misshapen(state, model.state_dict())
    size = checkpoint.preprocessing(tagged_name(model)).get("image_size")
    positions = all(any(part in name for part in POSITIONS) for name in wrong)
    if len(problems) > 1 or not wrong or not positions or size is None:
        return ""
    return f"; its positions fit one image size: take the weights' own, {size} px"


def load_model(
    name: str,
    *,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    use_ema: bool | str = "auto",
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
) -> nn.Module:
    """The model called `name` with timm's weights or a file's, their source in `weights_source`.

    A file is what timm, TransMix, DeiT, CaiT, XCiT, PVT or DINO save, a plain state dict, or
    .safetensors. Without num_classes the model has the file's classes; with other ones its
    classifier is new. Position embeddings are resampled for another img_size. ValueError for an
    unknown model, a file that cannot be read, and one whose keys do not fit, all of which it lists.
    """
    name = _timms_name(name)
    if checkpoint is None:
        model: Any = build_model(name, num_classes, image_size=img_size)
        model.weights_source = WeightsSource("random", head="new")
        return fill(model, timms_checkpoint(name), "auto", num_classes) if pretrained else model
    if pretrained:
        raise ValueError("pretrained and checkpoint exclude each other: give one")
    file = read_checkpoint(checkpoint)
    recorded, parts = file.recorded_model()
    if plain_name(recorded) != plain_name(name):
        parts = {}
    if img_size is not None:
        parts = parts | {"img_size": img_size}
    return fill(_build(name, parts), file, use_ema, num_classes)


def _build(name: str, parts: dict[str, Any]) -> nn.Module:
    """timm's model with PARTS as a file records them."""
    others = {part: value for part, value in parts.items() if part != "img_size"}
    return build_model(name, image_size=parts.get("img_size"), **others)


def timms_checkpoint(name: str) -> Checkpoint:
    """timm's weights of a model, downloaded where they are not; ValueError where they cannot be."""
    try:
        source: Any = build_model(name, pretrained=True)
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"timm's weights of {name} cannot be had ({reason(error, 200)}): "
            "download them and give the checkpoint's path"
        ) from None
    return Checkpoint(Path(tagged_name(source)), {TIMMS: source.state_dict()}, "")


def model_record(name: str, **parts: Any) -> dict[str, Any]:
    """What a training file says of its model: its name, and the PARTS that are not None.

    load_model and load_any build the model from it.
    """
    assert set(parts) <= set(PARTS), parts
    return {
        "arch": plain_name(name),  # a tag names timm's weights, and these are others
        "model_args": {part: value for part, value in parts.items() if value is not None},
    }


def load_any(path: str | Path, *, like: nn.Module | None = None) -> nn.Module:
    """The model that made a checkpoint, without its classifier.

    It is the model that the file names, else the first that its keys fit: of the zoo and, last, the
    architecture of `like`. ValueError where none fits.
    """
    file = read_checkpoint(path)
    name, parts = file.recorded_model()
    model = _build(name, parts) if name else _match(file, like)
    return fill(model, file, "auto", 0)


def load_recorded(file: Checkpoint, image_size: int | tuple[int, int]) -> nn.Module:
    """The model that a file names, at another image size and without its classifier."""
    name, parts = file.recorded_model()
    return fill(_build(name, parts | {"img_size": image_size}), file, "auto", 0)


def _match(file: Checkpoint, like: nn.Module | None) -> nn.Module:
    _, state = file.choose_weights("auto")
    for name in dict.fromkeys(entry.name for entry in ZOO):
        if _fits(dict(state), blank_model(name)):
            return build_model(name)
    if like is not None and _fits(dict(state), like):
        return copy.deepcopy(like)
    raise ValueError(
        f"checkpoint {file.path} names no model, and its keys fit none of the zoo: {_listed(state)}"
    )


def _fits(state: dict[str, Tensor], model: Any) -> bool:
    """Whether a state dict is this model's, whatever its classes and at its own image size."""
    fresh = model.state_dict()
    if (
        "pos_embed" in state
        and "pos_embed" in fresh
        and state["pos_embed"].shape != fresh["pos_embed"].shape
    ):
        return False
    heads = tuple(f"{name}." for name in heads_of(model.default_cfg))
    state = {
        name: value for name, value in adapt(state, model).items() if not name.startswith(heads)
    }
    return not mismatches(state, model, heads)
