"""Pictures that run networks: what each strategy makes of some images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
PAIRS = 2  # of a strategy in the one picture of all
CAPTION = (
    "Of a batch the mixes whose label is furthest from the area, so no fair sample. A strategy "
    "that mixes nothing has none.\nThe line is the edge of A, white on A's side; the map shows "
    "where the trained network looks, bright is most."
)


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


@dataclass(frozen=True, eq=False, kw_only=True)
class Example:
    """One mix as pictures show it: (h, w, 3) uint8 each, of THUMBNAIL pixels at most."""

    strategy: str
    a: int  # rows of the batch
    b: int
    class_a: str
    class_b: str
    lam_area: float  # A's share of the pixels
    lam_used: float  # A's share of the label
    image_a: np.ndarray
    image_b: np.ndarray
    mixed: np.ndarray
    mask: np.ndarray  # (h, w) uint8, white is A
    map: np.ndarray  # what `map_name` says, laid over the mixed image
    map_name: str


def furthest_mixes(
    shown: Sequence[Shown],
    examples: Examples,
    classes: Sequence[str],
    normalisation: Normalisation,
    seed: int = 0,
    count: int = 3,
) -> list[Example]:
    """The mixed images whose label is furthest from the area, `count` a strategy at most.

    A strategy that mixes nothing has none. The map is the class attention over the mixed image
    where the network has a class token, else its input gradient.
    """
    labels = examples.labels.tolist()
    originals = pictures_of(examples.images, normalisation)
    found = []
    for strategy in shown:
        result = mix_examples(strategy, examples, normalisation, seed)
        mixed = result.mixed
        rows = furthest(mixed.lam, result.lam)[:count]
        if not rows:
            continue
        maps, map_name = importance_of(strategy, result)
        pictures = pictures_of(mixed.images, normalisation)
        height, width = pictures.shape[1:3]
        masks = mixed.mask.float().expand(len(labels), 1, height, width)[:, 0].cpu().numpy()
        for a in rows:
            b = int(mixed.partner[a])
            found.append(
                Example(
                    strategy=strategy.spec,
                    a=a,
                    b=b,
                    class_a=classes[labels[a]],
                    class_b=classes[labels[b]],
                    lam_area=float(mixed.lam[a]),
                    lam_used=float(result.lam[a]),
                    image_a=_thumbnail(originals[a]),
                    image_b=_thumbnail(originals[b]),
                    mixed=_thumbnail(pictures[a]),
                    mask=_thumbnail((255 * masks[a]).round().astype(np.uint8)),
                    map=_thumbnail(overlay(pictures[a], maps[a].float().cpu().numpy())),
                    map_name=map_name,
                )
            )
    return found


def mixed_picture(mixes: Sequence[Example], titles: Mapping[str, str], path: Path) -> None:
    """Write a picture of the first PAIRS mixes of each strategy, a row each; none without mixes.

    Of a mix there are A, B, the mixed image and the map, both with the edge of A, and A's share by
    area and as used in the label. titles are what the classes are called.
    """
    strategies = list(dict.fromkeys(each.strategy for each in mixes))
    if not strategies:
        return
    plt = pyplot()
    figure, axes = plt.subplots(
        len(strategies),
        4 * PAIRS,
        figsize=(1.62 * 4 * PAIRS, 2.1 * len(strategies) + 0.6),
        squeeze=False,
        layout="constrained",
    )
    figure.suptitle(CAPTION, fontsize=9)
    for row, spec in zip(axes, strategies, strict=True):
        of_strategy = [each for each in mixes if each.strategy == spec]
        for place in range(PAIRS):
            some = row[4 * place : 4 * place + 4]
            if place < len(of_strategy):
                _show_mix(some, of_strategy[place], titles)
            else:
                for axis in some:
                    axis.set_visible(False)
        row[0].set_ylabel(wrapped(spec), fontsize=9, parse_math=False)
    set_fonts(figure)
    try:
        with replacing(path) as partial:
            figure.savefig(partial, dpi=110, format="png")
    finally:
        plt.close(figure)


def _show_mix(axes: Sequence[Any], mix: Example, titles: Mapping[str, str]) -> None:
    """A, B, the mixed image and the map on four axes, each below its title."""
    a, b = (titles.get(name, name) for name in (mix.class_a, mix.class_b))
    shares = f"A by area {mix.lam_area:.2f}\nA in label {mix.lam_used:.2f}"
    pictures = (
        (f"A: {fitted(a, TITLE)}", mix.image_a),
        (f"B: {fitted(b, TITLE)}", mix.image_b),
        (shares, outlined(mix.mixed, mix.mask)),
        (mix.map_name.replace(", ", ",\n"), outlined(mix.map, mix.mask)),
    )
    for axis, (title, picture) in zip(axes, pictures, strict=True):
        axis.imshow(picture)
        axis.set_title(title, fontsize=8, parse_math=False)
        axis.set(xticks=[], yticks=[])


def draw_gallery(mixes: Sequence[Example], folder: Path) -> list[GalleryEntry]:
    """Write the paper's Figure 5 of mixes: PNG files and index.json in `folder`; the entries.

    The map has the edge of A.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {spec: n for n, spec in enumerate(dict.fromkeys(each.strategy for each in mixes))}
    entries = []
    for mix in mixes:
        number = numbers[mix.strategy]
        entry = GalleryEntry(
            strategy=mix.strategy,
            image_a=f"image{mix.a}.png",
            image_b=f"image{mix.b}.png",
            mixed=f"{number}-{mix.a}-mixed.png",
            mask=f"{number}-{mix.a}-mask.png",
            map=f"{number}-{mix.a}-map.png",
            map_name=mix.map_name,
            class_a=mix.class_a,
            class_b=mix.class_b,
            lam_area=mix.lam_area,
            lam_used=mix.lam_used,
        )
        _save_png(mix.image_a, folder / entry.image_a)
        _save_png(mix.image_b, folder / entry.image_b)
        _save_png(mix.mixed, folder / entry.mixed)
        _save_png(mix.mask, folder / entry.mask)
        _save_png(outlined(mix.map, mix.mask), folder / entry.map)
        entries.append(entry)
    write_gallery(folder, entries)
    return entries


def outlined(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) with the edge of a mask (h, w) uint8: white inside it, black outside.

    Inside is where the mask is more than half white; one that is alike everywhere has no edge. A
    small picture comes back larger by a whole factor, so that the line is thin.
    """
    factor = max(1, THUMBNAIL // max(mask.shape))
    mask, result = (each.repeat(factor, 0).repeat(factor, 1) for each in (mask, pixels))
    inside = np.pad(mask > 127, 1, mode="edge")
    centre = inside[1:-1, 1:-1]
    around = (inside[:-2, 1:-1], inside[2:, 1:-1], inside[1:-1, :-2], inside[1:-1, 2:])
    edge = np.logical_or.reduce([centre != each for each in around])
    result[edge & centre], result[edge & ~centre] = 255, 0
    return result


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


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    """A picture (H, W) or (H, W, 3) uint8 with THUMBNAIL pixels on its longer side at most."""
    from PIL import Image

    height, width = pixels.shape[:2]
    longest = max(height, width)
    if longest <= THUMBNAIL:
        return pixels
    size = (round(width * THUMBNAIL / longest), round(height * THUMBNAIL / longest))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _save_png(pixels: np.ndarray, path: Path) -> None:
    from PIL import Image

    with replacing(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG", optimize=True)
