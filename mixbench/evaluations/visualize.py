"""What a strategy makes of some pairs, and where the model looks (the paper's Figure 5)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mixbench.data.folders import listing_hash
from mixbench.data.images import open_image
from mixbench.data.normalisation import Normalisation
from mixbench.data.sources import Source
from mixbench.evaluations.evaluation import (
    TRUE,
    EvalImages,
    Evaluation,
    Figure,
    Given,
    Headline,
    Result,
    Subject,
)
from mixbench.evaluations.perturbed import labels_of, predictions
from mixbench.report.drawing import fitted, pyplot
from mixbench.report.fonts import set_fonts
from mixbench.report.gallery import (
    Examples,
    Shown,
    importance_of,
    mix_examples,
    overlay,
    pictures_of,
    varied_examples,
)
from mixbench.runtime import Runtime
from mixbench.training.forward import Network
from mixbench.training.parts import build_part
from mixbench.values import option

TITLE = 20  # characters of a class above a picture


class Files(Source):
    """Images that an option names, of no known class."""

    def __init__(self, files: Sequence[Path]):
        self.files, self.labels = list(files), [0] * len(files)
        self.fingerprint = listing_hash((file.name, file.stat().st_size) for file in files)

    def load(self, index: int) -> Image.Image:
        return open_image(self.files[index])


@dataclass(frozen=True)
class Pair:
    """Two images as they were mixed; shares are those that training would use."""

    a: int  # numbers among the images
    b: int
    class_a: str
    class_b: str
    lam_area: float  # A's share of the pixels
    lam_used: float  # A's share of the label
    map: str  # what the map is


@dataclass(frozen=True, kw_only=True)
class Visualize(Evaluation):
    """A, B, their mix, where the model looks and both shares, as a PNG and as JSON.

    The mix is of the strategy's own draws, and its label as in training.
    """

    name: ClassVar[str] = "visualize"
    section: ClassVar[str] = "Attention"
    detail: ClassVar[str] = "lam_used"
    places: ClassVar[tuple[str, ...]] = ("images",)
    classifies: ClassVar[bool] = False

    images: str = option(
        "",
        group="visualize",
        help="files to mix with each other, comma-separated, two or more; without them validation "
        "images of many classes",
    )
    count: int = option(4, group="visualize", at_least=1, help="pairs to show")
    draw: int = option(0, group="visualize", at_least=0, help="seed of the mixes")

    @property
    def headline(self) -> Headline | None:
        return None

    def open(self, given: Given) -> EvalImages:
        """The images that are named, else what the subjects are measured on."""
        if not self.images:
            return given.own()
        files = [Path(name.strip()) for name in self.images.split(",")]
        for file in files:
            if not file.is_file():
                raise ValueError(f"--images: there is no file {file}")
        if len(files) < 2:
            raise ValueError(f"--images must be two files or more to mix, not {self.images}")
        return EvalImages(name=f"{len(files)} images", source=Files(files), classes=())

    def measure(self, subject: Subject, data: EvalImages, runtime: Runtime) -> Result:
        """Both shares of each pair, the picture, and its numbers as JSON."""
        if subject.strategy is None:
            raise ValueError("visualize is of a strategy's mixes: name some with --strategies")
        recipe = subject.recipe
        examples = varied_examples(data.source, recipe, runtime.device)
        if labels_of(subject, data) != TRUE:
            labels = predictions(subject.model, examples.images, recipe.amp)
            examples = Examples(images=examples.images, labels=labels, objects=examples.objects)
        normalisation = Normalisation.of(recipe.mean, recipe.std, runtime.device)
        rows = list(self._rows(subject, examples, normalisation))
        pairs = [pair for pair, _ in rows]
        figures = [
            Figure(setting=f"pair {number}", metric=name, value=getattr(pair, name), n=1)
            for number, pair in enumerate(pairs, 1)
            for name in ("lam_area", "lam_used")
        ]
        about = {"strategy": subject.spec, "seed": subject.seed, "pairs": list(map(asdict, pairs))}
        picture = _picture(subject.spec, rows)
        files = {".png": picture, ".pairs.json": (json.dumps(about, indent=1) + "\n").encode()}
        return Result(figures=tuple(figures), labels=labels_of(subject, data), files=files)

    def _rows(
        self, subject: Subject, examples: Examples, normalisation: Normalisation
    ) -> Iterator[tuple[Pair, list[np.ndarray]]]:
        """Each pair with A, B, their mix and the map over it, (H, W, 3) uint8 each."""
        assert subject.strategy is not None
        strategy, model, classes = subject.strategy, subject.model, subject.classes
        side = subject.recipe.image_size
        part = build_part(strategy, model, len(classes), side, subject.seed)
        network = Network(model, strategy.needs, normalisation, part=part)
        shown = Shown(subject.spec, strategy, network)
        result = mix_examples(shown, examples, normalisation, self.draw)
        maps, name = importance_of(shown, result)
        names = [
            f"image {number}"
            if subject.headless
            else subject.titles.get(classes[label], classes[label])
            for number, label in enumerate(examples.labels.tolist(), 1)
        ]
        clean = pictures_of(examples.images, normalisation)
        mixes = pictures_of(result.mixed.images, normalisation)
        for a in range(min(self.count, len(mixes))):
            b = int(result.mixed.partner[a])
            pair = Pair(
                a=a,
                b=b,
                class_a=names[a],
                class_b=names[b],
                lam_area=float(result.mixed.lam[a]),
                lam_used=float(result.lam[a]),
                map=name,
            )
            heat = overlay(mixes[a], maps[a].float().cpu().numpy())
            yield pair, [clean[a], clean[b], mixes[a], heat]


def _picture(spec: str, rows: Sequence[tuple[Pair, list[np.ndarray]]]) -> bytes:
    """A row a pair: A, B, the mix, the map, and bars of both shares; a PNG."""
    plt = pyplot()
    size = (11, 2.5 * len(rows) + 0.4)
    figure, axes = plt.subplots(len(rows), 5, figsize=size, squeeze=False, layout="constrained")
    try:
        for row, (pair, pictures) in zip(axes, rows, strict=True):
            words = pair.map.split(", ")
            titles = (
                f"A: {fitted(pair.class_a, TITLE)}",
                f"B: {fitted(pair.class_b, TITLE)}",
                "mixed",
                "\n".join(words),
            )
            for axis, picture, title in zip(row, pictures, titles, strict=False):
                axis.imshow(picture)
                axis.set_title(title, fontsize=9, parse_math=False)
                axis.set(xticks=[], yticks=[])
            draw_shares(row[4], pair)
        figure.suptitle(fitted(spec, 90), fontsize=10, parse_math=False)
        set_fonts(figure)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=110)
        return stream.getvalue()
    finally:
        plt.close(figure)


def draw_shares(axis: Any, pair: Pair) -> None:
    """A's share of the pixels and of the label as bars; B's is what is left."""
    shares = [100 * pair.lam_area, 100 * pair.lam_used]
    axis.barh([0, 1], shares, color="#0072B2", height=0.5)
    axis.barh([0, 1], [100 - share for share in shares], left=shares, color="#dddddd", height=0.5)
    axis.set_yticks([0, 1], ["area", "label"])
    axis.set(xlim=(0, 100), ylim=(1.7, -0.7), xlabel="A's share (%)")
    for row, share in enumerate(shares):
        axis.text(2, row, f"{share:.1f}", va="center", color="white" if share > 25 else "black")
    axis.set_title(
        f"A {shares[0]:.1f} % of the pixels,\n{shares[1]:.1f} % of the label", fontsize=9
    )
