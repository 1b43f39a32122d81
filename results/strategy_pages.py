"""A page for each strategy in docs/strategies/, from its code, its figures and a sentence here.

`python -m results.readme` writes the pages; `python -m results.strategy_pages` draws the pictures.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from mixbench.commands.recipe_options import values_in_words
from mixbench.data.normalisation import Normalisation
from mixbench.data.scenes import CLASSES, draw_scene
from mixbench.mix import MixStrategy, Needs
from mixbench.models.build import build_model
from mixbench.published import own_publication, published
from mixbench.registry import BUILTIN, strategy_class
from mixbench.report.gallery import Examples, Shown, mix_examples, pictures_of
from mixbench.report.numbers import interval
from mixbench.report.tables import markdown_table
from mixbench.runs.rows import SpeedRow
from mixbench.spec import create_strategy, field_types, strategy_spec
from mixbench.training.forward import Network
from mixbench.training.parts import attach, build_part
from mixbench.values import shown as as_written
from results.measure import OFFLINE
from results.speeds import speed_tables

FOLDER = Path("docs/strategies")
WIDTH = 560  # pixels of a picture
DRAW = 8  # a seed whose lam is near one half
PAIR = 2, 1  # the scenes A and B of the README's picture
OVERVIEW = (  # what it shows
    *("mixup", "cutmix", "saliencymix", "puzzlemix"),
    *("resizemix", "gridmix", "fmix", "transmix"),
)
WHEN = {
    "none": "In every comparison: what mixing is worth is the difference to it.",
    "mixup": "Where labels are soft by nature or noisy; the cheapest of all, and no pixel is lost.",
    "cutmix": "The baseline to beat for networks that train long from scratch.",
    "alternate": "To train as DeiT does, or to try a strategy in turn with another.",
    "saliencymix": "Where objects are small, so that CutMix's box often shows background.",
    "attentivecutmix": "Where a pretrained network of like data is at hand and time is no matter.",
    "puzzlemix": "Where training data are few and the time of a second pass is there.",
    "resizemix": "Where objects fill their images: all of the partner is always seen.",
    "gridmix": "To see whether many small holes are worth more than one box.",
    "fmix": "To see whether the shape of the mask matters: blobs instead of boxes.",
    "maskmix": "As the base of a label rule: many cells let attention say more than one box does.",
    "tokenmix": "For vision transformers, whose tokens are then of one image each.",
    "guidedmixup": "Where the salient parts of both images should stay without a second pass.",
    "smmix": "For plain ViTs, where a third more time a step is there.",
    "transmix": "For networks with a class token, over any mask: it costs next to nothing.",
    "tlalign": "For plain ViTs and DeiT, to let labels follow all blocks and not the last alone.",
    "mixpro": "For networks with a class token whose attention is not to be trusted early.",
    "oacutmix": "As the reference beside every label rule, where true masks are known.",
    "regmixup": "Where calibration matters and twice the time a step is there.",
}
NEEDS = {
    "attention": "the class attention {} of the network that trains, read in its own forward pass",
    "network": "features of an external network, `{}`",
    "input_gradient": "the gradient with respect to the pixels: a second forward and backward pass",
    "pixels": "the un-normalised pixels",
    "look": "a look at the unmixed batch, its {}: a second forward pass",
    "tokens": "the tokens of the patches before the head",
    "objects": "true masks of the objects ([data.md](../data.md#masks-of-objects))",
}
OF_LOOK = {"patches": "logits and the patches' attention", "class": "logits and class attention"}


def strategy_pages(root: Path) -> dict[Path, str]:
    """The content of each strategy's page and of their index, from a checkout's root."""
    speeds = newest_speeds(root / "results")
    content = {root / FOLDER / f"{name}.md": page(name, speeds) for name in BUILTIN}
    rows = [(f"[`{name}`]({name}.md)", source(name), WHEN[name]) for name in BUILTIN]
    lines = ["# Strategies", "", *markdown_table(("name", "what it is", "when"), rows)]
    return content | {root / FOLDER / "README.md": "\n".join(lines) + "\n"}


def page(name: str, speeds: dict[str, tuple[SpeedRow, str]]) -> str:
    """One strategy's page."""
    cls = strategy_class(name)
    described, departures = described_by(inspect.getdoc(cls) or "")
    lines = [f"# `{name}`", "", source(name), ""]
    lines += [f"![what {name} makes of four drawn scenes]({name}.png)", ""]
    lines += [described, "", "## When", "", WHEN[name], ""]
    if departures:
        lines += ["## Where it departs", "", departures, ""]
    rows = parameters(cls)
    if rows:
        lines += ["## Parameters", "", *markdown_table(("name", "default", "values"), rows), ""]
    lines += ["## Needs", "", *needs_of_page(name), "", "## Cost", "", cost(name, speeds), ""]
    lines += ["## Published", "", *published_lines(name), ""]
    others = [other for other in ("none", "cutmix") if other != name]
    lines += ["## Try it", "", f"    python bench.py --strategies '{','.join([*others, name])}'"]
    return "\n".join(lines) + "\n"


def source(name: str) -> str:
    """The first sentence of a strategy's module: method, authors and what it does."""
    return (inspect.getdoc(sys.modules[strategy_class(name).__module__]) or "").split("\n\n")[0]


def described_by(doc: str) -> tuple[str, str]:
    """A docstring's sentences as Markdown: what it does, and from 'Differs:' on."""
    what, _, differs = doc.partition("Differs:")
    return what.strip(), differs.strip()[:1].upper() + differs.strip()[1:]


def parameters(cls: type) -> list[tuple[str, ...]]:
    """Name, default and values of each parameter."""
    hints = field_types(cls)
    rows: list[tuple[str, ...]] = []
    for field in dataclasses.fields(cls):
        value, bounds = field.default, field.metadata["bounds"]
        default = strategy_spec(value) if isinstance(value, MixStrategy) else as_written(value)
        values = values_in_words(hints[field.name], bounds)
        rows.append((f"`{field.name}`", f"`{default}`", values))
    return rows


def needs_of_page(name: str) -> list[str]:
    """What a strategy with default settings asks for, as a list."""
    cls = strategy_class(name)
    needs, lines = cls().needs, []
    for field in dataclasses.fields(Needs):
        value = getattr(needs, field.name)
        if value:
            words = f"`{value}`" if field.name == "attention" else OF_LOOK.get(value, value)
            lines.append(f"* {NEEDS[field.name].format(words)}")
    if cls().clean_weight:
        lines.append("* the loss of the unmixed batch: a second forward and backward pass")
    if name == "smmix":
        lines.append("* parameters of its own, a second head, and a loss beside the label's")
    return lines or ["* nothing but the batch"]


def newest_speeds(folder: Path) -> dict[str, tuple[SpeedRow, str]]:
    """The newest timed row of each strategy on a CPU in float32, and the file that it is from."""
    newest: dict[str, tuple[SpeedRow, str]] = {}
    for file, rows in speed_tables(folder):
        for row in rows:
            known = newest.get(row.strategy)
            newer = known is None or str(row.date) >= str(known[0].date)
            if row.timed_precision == "fp32" and newer:
                newest[row.strategy] = row, file.name
    return newest


def cost(name: str, speeds: dict[str, tuple[SpeedRow, str]]) -> str:
    """The ratio of images a second to CutMix's, where and when."""
    found = speeds.get(OFFLINE if name == "attentivecutmix" else name)
    if found is None:
        return "Not measured yet."
    row, file = found
    ratio = interval(row.ratio_to_cutmix, row.ratio_lo, row.ratio_hi, 3)
    of = " (with `network=efficientnet_lite0`)" if name == "attentivecutmix" else ""
    return (
        f"{ratio} of CutMix's images a second{of}, 95 % interval: {row.timed}, {row.rounds} "
        f"interleaved rounds, {row.date} ([{file}](../../results/{file})). CutMix against itself: "
        f"{row.control_lo:.3f} to {row.control_hi:.3f}."
    )


def published_lines(name: str) -> list[str]:
    """Published figures of DeiT-S on ImageNet-1k, each with what it is of."""
    paper, own = published(name), own_publication(name)
    lines = []
    if paper.top1:
        lines.append(f"* TransMix's Table 8: {paper.top1}, at {paper.ratio} of CutMix's speed")
    if paper.openmixup_top1:
        lines.append(f"* OpenMixup: {paper.openmixup_top1}, the best epochs of three trials, alone")
    if own:
        figure, reason = own
        lines.append(f"* its own publication: {figure or 'none'}. Not comparable: {reason}")
    return lines or ["* none"]


def draw_pictures(folder: Path) -> None:
    """A picture of each strategy on the same four scenes, and one of several for the README."""
    normalisation, examples = Normalisation.of((0.5,) * 3, (0.25,) * 3), _examples()
    folder.mkdir(parents=True, exist_ok=True)
    everyone = {name: _shown(name) for name in BUILTIN}
    for name, shown in everyone.items():
        path = folder / f"{name}.png"
        _draw_grid(shown, examples, normalisation, path)
        _shrink(path, WIDTH)
    pictures = [("A", pictures_of(examples.images, normalisation)[PAIR[0]])]
    pictures += [("B", pictures_of(examples.images, normalisation)[PAIR[1]])]
    for name in OVERVIEW:
        result = mix_examples(everyone[name], examples, normalisation, DRAW)
        mixed = pictures_of(result.mixed.images, normalisation)[PAIR[0]]
        pictures.append((f"{name}\nlabel {result.lam[PAIR[0]]:.2f} A", mixed))
    _draw_row(pictures, folder / "overview.png")


def _examples() -> Examples:
    """The four scenes, normalised, with their classes and masks."""
    normalisation = Normalisation.of((0.5,) * 3, (0.25,) * 3)
    scenes = [draw_scene(0, index, 96) for index in (3, 11, 20, 29)]
    pixels = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) for scene in scenes])
    return Examples(
        images=normalisation.apply(pixels / 255),
        labels=torch.tensor([scene.label for scene in scenes]),
        objects=torch.stack([torch.from_numpy(scene.mask)[None].float() for scene in scenes]),
    )


def _shown(name: str) -> Shown:
    """A strategy with a network that was not trained."""
    strategy = create_strategy(OFFLINE if name == "attentivecutmix" else name)
    model = build_model(
        "vit_tiny_patch16_224", num_classes=len(CLASSES), image_size=96, seed=0, patch_size=8
    )
    part = build_part(strategy, model, len(CLASSES), 96, seed=0)
    attach(model, part)
    return Shown(name, strategy, Network(model, strategy.needs, part=part, compile=False))


def _draw_grid(shown: Shown, examples: Examples, normalisation: Normalisation, path: Path) -> None:
    """Write the images in a row, and below it what the strategy makes of each.

    Above each mixed image stand the numbers of A and B in the first row, and A's share by area and
    as used in the label.
    """
    count = len(examples.images)
    figure, axes = plt.subplots(2, count, figsize=(2.1 * count, 5), layout="constrained")
    result = mix_examples(shown, examples, normalisation, DRAW)
    area, lam, partner = result.mixed.lam, result.lam, result.mixed.partner
    names = [f"{i + 1}: {CLASSES[int(label)]}" for i, label in enumerate(examples.labels)]
    titles = [
        f"A {i + 1}, B {int(partner[i]) + 1}\nA by area {area[i]:.2f}\nA in label {lam[i]:.2f}"
        for i in range(count)
    ]
    rows = (
        ("image", pictures_of(examples.images, normalisation), names),
        (shown.spec, pictures_of(result.mixed.images, normalisation), titles),
    )
    for row, (name, pictures, above) in zip(axes, rows, strict=True):
        row[0].set_ylabel(name, fontsize=9)
        for axis, picture, title in zip(row, pictures, above, strict=True):
            axis.imshow(picture)
            axis.set_title(title, fontsize=8)
            axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_row(pictures: Sequence[tuple[str, np.ndarray]], path: Path) -> None:
    """Write pictures side by side in two rows, each with its title."""
    columns = len(pictures) // 2
    figure, axes = plt.subplots(2, columns, figsize=(9, 4.4), layout="constrained")
    for axis, (title, pixels) in zip(axes.flat, pictures, strict=True):
        axis.imshow(pixels)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    _shrink(path, 900)


def _shrink(path: Path, width: int) -> None:
    """Scale a picture to a width and 128 colours."""
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize((width, width * picture.height // picture.width))
    small.quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    draw_pictures(FOLDER)
