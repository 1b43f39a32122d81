"""Pictures that run networks: what each strategy makes of some images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixbench.data.normalisation import Normalisation
from mixbench.data.objects import eval_objects
from mixbench.data.sources import Source
from mixbench.data.transforms import eval_transform
from mixbench.files import replacing
from mixbench.mix import MixedBatch, MixStrategy
from mixbench.models.class_token import NoClassAttention
from mixbench.recipe import Recipe
from mixbench.report.drawing import fitted, pyplot, wrapped
from mixbench.report.fonts import set_fonts
from mixbench.runs.samples import GalleryEntry, write_gallery
from mixbench.services.attention import ClassAttention
from mixbench.services.context import make_context
from mixbench.services.gradient import input_gradient
from mixbench.training.forward import Network
from mixbench.training.guard import guarded

THUMBNAIL = 128  # pixels; what the gallery's pictures are reduced to
STEP = 2  # of training, whose draws are shown
SHOWN = 16  # images that are mixed with each other
TITLE = 24  # characters of a class above a picture


@dataclass(frozen=True, eq=False, kw_only=True)
class Examples:
    """Normalised images that strategies mix, as an evaluation sees them."""

    images: Tensor  # (B, C, H, W)
    labels: Tensor  # (B,)
    objects: Tensor  # (B, 1, H, W) float32, 0 where none is known


def varied_examples(
    source: Source, recipe: Recipe, device: torch.device, count: int = SHOWN
) -> Examples:
    """Images of a source spread over the classes, since a folder's first are alike."""
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(source.labels):
        by_class.setdefault(label, []).append(index)
    deepest = max(map(len, by_class.values()))
    order = [
        indices[turn]
        for turn in range(deepest)
        for _, indices in sorted(by_class.items())
        if turn < len(indices)
    ][:count]
    transform = eval_transform(recipe)
    return Examples(
        images=torch.stack([transform(source.load(index)) for index in order]).to(device),
        labels=torch.tensor([source.labels[index] for index in order], device=device),
        objects=torch.stack([eval_objects(source.mask(i), transform) for i in order]).to(device),
    )


@dataclass(frozen=True, eq=False)
class Shown:
    """A strategy to show, and the network that it trained with the attention that it asks for."""

    spec: str
    strategy: MixStrategy
    network: Network


def mixed_grid(
    shown: Sequence[Shown],
    examples: Examples,
    classes: Sequence[str],
    normalisation: Normalisation,
    path: Path,
    seed: int = 0,
    columns: int = 6,
) -> None:
    """Write a picture of what each strategy makes of the images, a row each.

    Above each mixed image stand the numbers of A and B in the first row, and A's share by area and
    as used in the label.
    """
    plt, (images, labels) = pyplot(), (examples.images, examples.labels)
    columns = min(columns, len(images))
    figure, axes = plt.subplots(
        len(shown) + 1,
        columns,
        figsize=(2.1 * columns, 2.5 * (len(shown) + 1)),
        squeeze=False,
        layout="constrained",
    )
    titles = [f"{i + 1}: {fitted(classes[int(labels[i])], TITLE)}" for i in range(columns)]
    _show_row(axes[0], normalisation.pixels(images[:columns]), titles, "image")
    for row, strategy in zip(axes[1:], shown, strict=True):
        result = mix_examples(strategy, examples, normalisation, seed)
        area, lam = result.mixed.lam, result.lam
        titles = [
            f"A {i + 1}, B {int(result.mixed.partner[i]) + 1}\n"
            f"A by area {area[i]:.2f}\nA in label {lam[i]:.2f}"
            for i in range(columns)
        ]
        pixels = normalisation.pixels(result.mixed.images[:columns])
        _show_row(row, pixels, titles, strategy.spec)
    set_fonts(figure)
    try:
        with replacing(path) as partial:
            figure.savefig(partial, dpi=110, format="png")
    finally:
        plt.close(figure)


def _show_row(axes: Any, images: Tensor, titles: Sequence[str], name: str) -> None:
    """Images (n, 3, H, W) uint8 with a title each; the first axis has the row's name."""
    for axis, image, title in zip(axes, images, titles, strict=True):
        axis.imshow(image.permute(1, 2, 0).cpu().numpy())
        axis.set_title(title, fontsize=8, parse_math=False)
        axis.set_ylabel(wrapped(name), fontsize=9, parse_math=False)
        axis.set(xticks=[], yticks=[])
        name = ""


def draw_gallery(
    shown: Sequence[Shown],
    examples: Examples,
    classes: Sequence[str],
    normalisation: Normalisation,
    folder: Path,
    seed: int = 0,
    count: int = 3,
) -> list[GalleryEntry]:
    """Write the paper's Figure 5 of the images, `count` a strategy; the entries.

    They are the mixed images whose label is furthest from the area, so that a strategy which mixes
    nothing has none.
    `folder` gets PNG files and index.json. The map is the class attention over the mixed image
    where the network has a class token, else its input gradient.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = examples.images, examples.labels
    originals = pictures_of(images, normalisation)
    entries = []
    for number, strategy in enumerate(shown):
        result = mix_examples(strategy, examples, normalisation, seed)
        mixed = result.mixed
        maps, map_name = importance_of(strategy, result)
        pictures = pictures_of(mixed.images, normalisation)
        height, width = pictures.shape[1:3]
        masks = mixed.mask.float().expand(len(images), 1, height, width)[:, 0].cpu().numpy()
        for i in furthest(mixed.lam, result.lam)[:count]:
            partner = int(mixed.partner[i])
            entry = GalleryEntry(
                strategy=strategy.spec,
                image_a=f"image{i}.png",
                image_b=f"image{partner}.png",
                mixed=f"{number}-{i}-mixed.png",
                mask=f"{number}-{i}-mask.png",
                map=f"{number}-{i}-map.png",
                map_name=map_name,
                class_a=classes[int(labels[i])],
                class_b=classes[int(labels[partner])],
                lam_area=float(mixed.lam[i]),
                lam_used=float(result.lam[i]),
            )
            _save_png(originals[i], folder / entry.image_a)
            _save_png(originals[partner], folder / entry.image_b)
            _save_png(pictures[i], folder / entry.mixed)
            _save_png((255 * masks[i]).round().astype(np.uint8), folder / entry.mask)
            _save_png(overlay(pictures[i], maps[i].float().cpu().numpy()), folder / entry.map)
            entries.append(entry)
    write_gallery(folder, entries)
    return entries


def furthest(area: Tensor, used: Tensor) -> list[int]:
    """The rows that were mixed, those first whose shares (B,) by area and in the label differ most.

    Of equal ones the earlier comes first.
    """
    apart = (used - area).abs().tolist()
    rows = [
        i
        for i, (a, u) in enumerate(zip(area.tolist(), used.tolist(), strict=True))
        if min(a, u) < 1
    ]
    return sorted(rows, key=lambda i: -apart[i])


def pictures_of(images: Tensor, normalisation: Normalisation) -> np.ndarray:
    """Normalised images (B, C, H, W) as pictures, (B, H, W, 3) uint8."""
    return normalisation.pixels(images).permute(0, 2, 3, 1).cpu().numpy()


@dataclass(frozen=True, eq=False)
class Mixed:
    """A batch as a strategy mixes it, the attention (B, h, w) that it used, A's share (B,)."""

    mixed: MixedBatch
    attn: Tensor | None
    lam: Tensor


def mix_examples(
    shown: Shown, examples: Examples, normalisation: Normalisation, seed: int
) -> Mixed:
    strategy, images, labels = guarded(shown.strategy), examples.images, examples.labels
    ctx = make_context(
        strategy,
        shown.network.model,
        images,
        seed=seed,
        step=STEP,
        mean=normalisation.mean,
        std=normalisation.std,
        objects=examples.objects,
        part=shown.network.part,
    )
    mixed = strategy.mix(images, labels, ctx)
    shown.network.model.eval()
    with torch.no_grad(), shown.network:
        output = shown.network(mixed.images)
        return Mixed(mixed, output.attn, strategy.relabel(mixed, output))


def importance_of(shown: Shown, result: Mixed) -> tuple[Tensor, str]:
    """Where the network looks in mixed images, (B, h, w), and what the map is called."""
    used = shown.strategy.needs.attention is not None
    maps, name = result.attn, "class attention"
    if maps is None:
        try:
            with torch.no_grad(), ClassAttention(shown.network.model) as tap:
                maps = tap(result.mixed.images).attn
        except NoClassAttention:
            gradient = input_gradient(shown.network.model, result.mixed.images, result.mixed.labels)
            maps, name = gradient.abs().sum(1), "input gradient"
    assert maps is not None
    return maps, f"{name}, {'used' if used else 'not used'} in the label"


def overlay(pixels: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """An importance map (h, w) in colour over a grey image, (H, W, 3) uint8.

    The brightest colour is the map's largest value.
    """
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
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    with replacing(path) as partial:
        image.save(partial, format="PNG", optimize=True)
