"""Pictures that run networks: what each strategy makes of some images."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from mixbench.training.learner import Learner
from mixbench.report.figures import _pyplot, _wrapped

THUMBNAIL = 128  # pixels; what the gallery's pictures are reduced to


def mixed_grid(
    learners: list[Learner],
    images: torch.Tensor,
    labels: torch.Tensor,
    classes: tuple[str, ...],
    mean: Any,
    std: Any,
    path: Path,
    seed: int = 0,
    columns: int = 6,
) -> None:
    """A picture of what each strategy makes of one batch, with A's share by area and as used in the label."""
    plt = _pyplot()
    columns = min(columns, len(images))
    figure, axes = plt.subplots(
        len(learners) + 1,
        columns,
        figsize=(2.1 * columns, 2.5 * (len(learners) + 1)),
        squeeze=False,
        layout="constrained",
    )

    def show(axis: Any, image: torch.Tensor, title: str, name: str) -> None:
        axis.imshow(image.permute(1, 2, 0).cpu().numpy())
        axis.set_title(title, fontsize=8)
        axis.set_ylabel(_wrapped(name), fontsize=9)
        axis.set(xticks=[], yticks=[])

    from mixbench.mix import to_pixels

    mean, std = (_column(v, images) for v in (mean, std))
    for column, image in enumerate(to_pixels(images[:columns], mean, std)):
        show(
            axes[0, column],
            image,
            f"A: {classes[labels[column]]}\nB: {classes[labels[-1 - column]]}",
            "image A" if column == 0 else "",
        )
    for row, learner in enumerate(learners, 1):
        mixed, _, lam = _mixed(learner, images, labels, mean, std, seed)
        for column, image in enumerate(to_pixels(mixed.images[:columns], mean, std)):
            title = f"A by area {mixed.lam[column]:.2f}\nA in label {lam[column]:.2f}"
            show(axes[row, column], image, title, learner.spec if column == 0 else "")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


@dataclass(frozen=True)
class GalleryEntry:
    """One mixed image of the paper's Figure 5; pictures are file names beside the index."""

    strategy: str
    image_a: str
    image_b: str
    mixed: str
    mask: str  # white is A
    map: str  # what `map_name` says, laid over the mixed image
    map_name: str
    class_a: str
    class_b: str
    lam_area: float  # A's share of the pixels
    lam_used: float  # A's share of the label


def draw_gallery(
    learners: list[Learner],
    images: torch.Tensor,
    labels: torch.Tensor,
    classes: tuple[str, ...],
    mean: Any,
    std: Any,
    folder: Path,
    seed: int = 0,
    count: int = 3,
) -> list[GalleryEntry]:
    """The paper's Figure 5 of one batch: PNG files and index.json in `folder`, `count` images a strategy; the entries.

    The map is the class attention over the mixed image where the network has a class token, else its input gradient.
    """
    from mixbench.mix import to_pixels

    folder.mkdir(parents=True, exist_ok=True)
    mean, std = (_column(v, images) for v in (mean, std))
    count = min(count, len(images))
    originals = to_pixels(images, mean, std).permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
    entries = []
    for number, learner in enumerate(learners):
        mixed, attn, lam = _mixed(learner, images, labels, mean, std, seed)
        used = learner.strategy.needs.attention is not None
        if attn is None:
            attn, name = _importance(learner, mixed)
        else:
            name = "class attention"
        name += ", used in the label" if used else ", not used in the label"
        pixels = to_pixels(mixed.images, mean, std).permute(0, 2, 3, 1).cpu().numpy()
        height, width = pixels.shape[1:3]
        masks = mixed.mask.float().expand(len(images), 1, height, width)[:, 0].cpu().numpy()
        for i in range(count):
            partner = int(mixed.partner[i])
            files = {"a": f"image{i}.png", "b": f"image{partner}.png"}
            files |= {key: f"{number}-{i}-{key}.png" for key in ("mixed", "mask", "map")}
            _save_png(originals[i], folder / files["a"])
            _save_png(originals[partner], folder / files["b"])
            _save_png(pixels[i], folder / files["mixed"])
            _save_png((255 * masks[i]).round().astype(np.uint8), folder / files["mask"])
            _save_png(_overlay(pixels[i], attn[i].float().cpu().numpy()), folder / files["map"])
            entries.append(
                GalleryEntry(
                    strategy=learner.spec,
                    image_a=files["a"],
                    image_b=files["b"],
                    mixed=files["mixed"],
                    mask=files["mask"],
                    map=files["map"],
                    map_name=name,
                    class_a=classes[int(labels[i])],
                    class_b=classes[int(labels[partner])],
                    lam_area=float(mixed.lam[i]),
                    lam_used=float(lam[i]),
                )
            )
    (folder / "index.json").write_text(
        json.dumps([asdict(entry) for entry in entries], indent=1), encoding="utf-8"
    )
    return entries


def read_gallery(folder: Path) -> list[GalleryEntry]:
    """The entries of a gallery's index.json; none where there is no such file."""
    index = folder / "index.json"
    return (
        [GalleryEntry(**entry) for entry in json.loads(index.read_text(encoding="utf-8"))]
        if index.is_file()
        else []
    )


def _column(value: Any, images: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.as_tensor(value, dtype=torch.float32, device=images.device).reshape(-1, 1, 1)


def _mixed(
    learner: Learner, images: torch.Tensor, labels: torch.Tensor, mean: Any, std: Any, seed: int
) -> tuple[Any, Any, Any]:
    """A batch as the strategy mixes it: MixedBatch, attention where the strategy uses it, and A's share of the label (B,)."""
    import torch

    from mixbench.services.context import make_context

    ctx = make_context(
        learner.strategy, learner.model, images, seed=seed, step=2, mean=mean, std=std
    )
    mixed = learner.strategy.mix(images, labels, ctx)
    from mixbench.training.objective import forward_pass

    learner.model.eval()
    with torch.no_grad(), learner.tap or nullcontext():
        output = forward_pass(learner.model, learner.tap, False)(mixed.images)
        return mixed, output.attn, learner.strategy.relabel(mixed, output)


def _importance(learner: Learner, mixed: Any) -> tuple[Any, str]:
    """Where the network looks in mixed images, (B, h, w), and what the map is called."""
    import torch

    from mixbench.models.class_token import NoClassAttention
    from mixbench.services.attention import ClassAttention
    from mixbench.services.gradient import input_gradient

    try:
        with torch.no_grad(), ClassAttention(learner.model) as tap:
            return tap(mixed.images).attn, "class attention"
    except NoClassAttention:
        return input_gradient(learner.model, mixed.images, mixed.labels).abs().sum(
            1
        ), "input gradient"


def _overlay(pixels: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """An importance map (h, w) in colour over a grey image, (H, W, 3) uint8; the brightest colour is the map's largest value."""
    import matplotlib
    from PIL import Image

    scaled = importance / max(float(importance.max()), 1e-12)
    height, width = pixels.shape[:2]
    smooth = Image.fromarray(scaled.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    heat = matplotlib.colormaps["inferno"](np.asarray(smooth))[:, :, :3] * 255
    grey = pixels.mean(2, keepdims=True)
    return (0.4 * grey + 0.6 * heat).round().astype(np.uint8)


def _save_png(pixels: np.ndarray, path: Path) -> None:
    from PIL import Image

    image = Image.fromarray(pixels)
    longest = max(image.size)
    if longest > THUMBNAIL:
        width, height = (round(side * THUMBNAIL / longest) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)  # type: ignore[arg-type]
    image.save(path, optimize=True)
