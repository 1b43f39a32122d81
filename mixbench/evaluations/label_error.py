"""How far a strategy's labels are from what of the objects is visible, over images with masks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mixbench.data.annotated import KINDS, OBJECTS, annotated_name, open_annotated
from mixbench.data.loaders import EvalSet, readable
from mixbench.data.normalisation import Normalisation
from mixbench.data.objects import eval_objects
from mixbench.data.scenes import Scene, SceneSource
from mixbench.data.sources import Source
from mixbench.data.transforms import eval_transform
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
from mixbench.mix import MixedBatch, MixStrategy, ModelOutput, hashed_seed
from mixbench.models.build import recipe_model
from mixbench.runtime import Runtime
from mixbench.services.context import make_context
from mixbench.strategies.oacutmix import TARGETS, visible_share, wanted_share
from mixbench.training.forward import Network
from mixbench.training.guard import guarded
from mixbench.training.parts import build_part
from mixbench.values import option

__all__ = ["LabelError", "label_error", "visible_share"]

BATCH = 50  # images that are mixed at once, by one draw of most strategies
DRAWS = 10  # the least, of images that are few
# COCO's small, medium and large, 32 x 32 and 96 x 96 px, as shares of an image of 640 x 480
SIZES = {"small": (0.0, 1 / 300), "medium": (1 / 300, 0.03), "large": (0.03, math.inf)}
ALL, ROLLED, UNTRAINED = "", "another image's attention", "untrained model"


class Images(NamedTuple):
    """A batch to mix."""

    images: Tensor  # (B, 3, H, W) normalised
    labels: Tensor  # (B,) the model's classes; its own prediction where the data have others
    objects: Tensor  # (B, 1, H, W) float32, 1 on the object


class Labels(NamedTuple):
    """What the mixes of some images were labelled, a value a mix."""

    lam: np.ndarray  # (n,) A's share of the label
    wanted: np.ndarray  # (n,) A's share by visible objects; NaN where both are hidden
    ghost: np.ndarray  # (n,) bool: a positive share for an image of which no object is visible
    size: np.ndarray  # (n,) the share of A's image that its object has
    draw: np.ndarray  # (n,) int, alike for the mixes of one batch, which mostly share a draw

    def error(self) -> np.ndarray:
        """|lam - wanted|, (n,)."""
        return np.abs(self.lam - self.wanted)


@torch.no_grad()
def batch_labels(
    strategy: MixStrategy,
    network: Network,
    batch: Images,
    normalisation: Normalisation,
    *,
    step: int,
    seed: int = 0,
    target: str = "share",
) -> tuple[Labels, Labels | None] | None:
    """The labels that a strategy gives a batch's mixes, its draws by step and seed.

    The second are those by the attention of the next mix, a control, since averaging shrinks the
    error of any noisy label; None without attention. None for both where the pixels are not those
    that `compose` says, so that nobody knows what is visible. target is as in oacutmix. Images
    without an object are left out, and their partners.
    """
    images, labels, objects = batch
    network.model.eval()
    ctx = make_context(
        strategy,
        network.model,
        images,
        seed=seed,
        step=step,
        mean=normalisation.mean,
        std=normalisation.std,
        objects=objects,
        part=network.part,
    )
    mixed = strategy.mix(images, labels, ctx)
    if not torch.allclose(mixed.compose(images, images), mixed.images, atol=1e-4):
        return None
    with network:
        output = network(mixed.images)
    labelled = partial(_labels_of, strategy, mixed, objects=objects, target=target, draw=step)
    if output.attn is None:
        return labelled(output), None
    return labelled(output), labelled(output._replace(attn=output.attn.roll(1, 0)))


def mixed_labels(
    strategy: MixStrategy,
    network: Network,
    batches: Iterable[Images],
    normalisation: Normalisation,
    *,
    seed: int = 0,
    target: str = "share",
) -> Labels | None:
    """The labels of each batch's mixes, as batch_labels; None where they are not known of one."""
    strategy, parts = guarded(strategy), []
    for step, batch in enumerate(batches):
        labels = batch_labels(
            strategy, network, batch, normalisation, step=step, seed=seed, target=target
        )
        if labels is None:
            return None
        parts.append(labels[0])
    return joined(parts)


def joined(parts: Sequence[Labels]) -> Labels:
    """The labels of several batches as one."""
    return Labels(*map(np.concatenate, zip(*parts, strict=True)))


def _labels_of(
    strategy: MixStrategy,
    mixed: MixedBatch,
    output: ModelOutput,
    *,
    objects: Tensor,
    target: str,
    draw: int,
) -> Labels:
    wanted, known = wanted_share(mixed, objects, target)
    lam = strategy.relabel(mixed, output).float()
    ghost = ((wanted == 0) & (lam > 0)) | ((wanted == 1) & (lam < 1))
    shares = objects.mean((1, 2, 3))
    draws = torch.full_like(lam, draw, dtype=torch.int64)
    return Labels(*(each[known].cpu().numpy() for each in (lam, wanted, ghost, shares, draws)))


def label_error(
    strategy: MixStrategy,
    network: Network,
    scenes: Sequence[Scene],
    normalisation: Normalisation,
    seed: int = 0,
) -> float | None:
    """The mean |lam - visible share| of a strategy over scenes, in percent points.

    None where its pixels are not those that `compose` says. The last batch may be smaller; a
    single scene has no partner and is left out. ValueError for fewer than two scenes.
    Source: the paper's first figure shows that area and content disagree; the measure is ours.
    """
    if len(scenes) < 2:
        raise ValueError(f"label error needs 2 scenes or more to mix, not {len(scenes)}")
    batches = [scenes[begin : begin + BATCH] for begin in range(0, len(scenes), BATCH)]
    images = [_of_scenes(batch, normalisation) for batch in batches if len(batch) > 1]
    labels = mixed_labels(strategy, network, images, normalisation, seed=seed)
    return None if labels is None else 100 * float(np.nanmean(labels.error()))


def _of_scenes(scenes: Sequence[Scene], normalisation: Normalisation) -> Images:
    device = normalisation.mean.device
    pixels = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
    objects = torch.from_numpy(np.stack([scene.mask for scene in scenes]))[:, None].float()
    labels = torch.tensor([scene.label for scene in scenes], device=device)
    return Images(normalisation.apply(pixels.to(device) / 255), labels, objects.to(device))


@dataclass(frozen=True, kw_only=True)
class LabelError(Evaluation):
    """|lam - what is visible| over mixed images whose objects are known; the lower the better.

    All strategies mix the same pairs with the same draws. Source: the paper's first figure;
    OA-CutMix (arXiv 2606.04820) publishes a mean of 21.5 points and 17 % of labels without a
    visible object.
    """

    name: ClassVar[str] = "label-error"
    section: ClassVar[str] = "Labels against masks"
    detail: ClassVar[str] = "label_error"
    places: ClassVar[tuple[str, ...]] = ("masks",)
    classifies: ClassVar[bool] = False

    masks: str = option(
        "scenes", group="label-error", help=f"images with masks: {', '.join(KINDS)}"
    )
    objects: str = option(
        "union",
        group="label-error",
        choices=OBJECTS,
        help="what counts of several objects in an image: all of them, or the largest",
    )
    target: str = option(
        "share",
        group="label-error",
        choices=TARGETS,
        help="what is visible: A's share of the object pixels, or of the fractions of each object",
    )
    passes: int = option(
        0,
        group="label-error",
        at_least=0,
        help=f"times that all images are mixed, by draws of their own; 0: as many as make {DRAWS} "
        f"batches of {BATCH}",
    )

    @property
    def headline(self) -> Headline:
        return Headline(ALL, "label_error", higher_is_better=False)

    def open(self, given: Given) -> EvalImages:
        """Images with masks, scenes as large as the subjects'."""
        source, classes = open_annotated(self.masks, self.objects, given.image_size)
        if len(source.labels) < 2:
            raise ValueError(f"label-error needs 2 images or more to mix, not {len(source.labels)}")
        return EvalImages(name=annotated_name(self.masks), source=source, classes=classes)

    def measure(self, subject: Subject, data: EvalImages, runtime: Runtime) -> Result:
        """Error, bias, rank correlation and ghost labels in all, by size, and under controls.

        No figure where the strategy moves pixels otherwise than its `compose` says.
        """
        if subject.strategy is None:
            raise ValueError("label-error is of a strategy's labels: name some with --strategies")
        found, true = self._labels(subject, data, runtime), labels_of(subject, data)
        if found is None:
            runtime.say(f"{subject.spec} moves pixels otherwise than its `compose` says")
            unknown = Figure(setting=ALL, metric="label_error", value=None, n=0)
            return Result(figures=(unknown,), labels=true)
        labels = found[ALL]
        if not np.isfinite(labels.wanted).any():
            raise ValueError(f"no object of {data.name} is visible in any mix")
        figures = [*_figures(ALL, labels), *_by_size(labels)]
        for setting in (ROLLED, UNTRAINED):
            if setting in found:
                figures += _figures(setting, found[setting])
        return Result(
            figures=tuple(figures),
            images={"error": labels.error(), "lam": labels.lam, "wanted": labels.wanted},
            each=100 * labels.error(),
            groups=labels.draw,
            labels=true,
        )

    def _labels(
        self, subject: Subject, data: EvalImages, runtime: Runtime
    ) -> dict[str, Labels] | None:
        """The labels by the subject's own attention, and by each control's, over the same mixes."""
        recipe = subject.recipe
        assert subject.strategy is not None
        strategy = guarded(subject.strategy)
        normalisation = Normalisation.of(recipe.mean, recipe.std, runtime.device)
        networks = {ALL: _network(subject, subject.model, normalisation)}
        if strategy.needs.attention:
            untrained = recipe_model(recipe, len(subject.classes), subject.seed)
            networks[UNTRAINED] = _network(subject, untrained.to(runtime.device), normalisation)
        parts: dict[str, list[Labels]] = {}
        for step, batch in enumerate(_batches(data, subject, runtime, self.passes)):
            for setting, network in networks.items():
                found = batch_labels(
                    strategy, network, batch, normalisation, step=step, target=self.target
                )
                if found is None:
                    return None
                parts.setdefault(setting, []).append(found[0])
                if setting == ALL and found[1] is not None:
                    parts.setdefault(ROLLED, []).append(found[1])
        return {setting: joined(labels) for setting, labels in parts.items()}


def _network(subject: Subject, model: nn.Module, normalisation: Normalisation) -> Network:
    """A model as the strategy needs it; a part of the strategy's own is built anew."""
    assert subject.strategy is not None
    recipe, strategy = subject.recipe, subject.strategy
    classes, seed = len(subject.classes), subject.seed
    part = build_part(strategy, model, classes, recipe.image_size, seed)
    return Network(model.eval(), strategy.needs, normalisation, part=part)


class ObjectSet(EvalSet):
    """Samples under the recipe's evaluation transform, with their objects (1, H, W) float32."""

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image, label = super().__getitem__(index)
        return image, label, eval_objects(self.source.mask(index), self.transform)


def _batches(data: EvalImages, subject: Subject, runtime: Runtime, passes: int) -> Iterator[Images]:
    """The images, in each pass in another order; a last single one is left out."""
    loader = DataLoader(
        ObjectSet(data.source, eval_transform(subject.recipe)),
        batch_sampler=_order(data.source, passes),
        num_workers=runtime.workers,
    )
    true = labels_of(subject, data) == TRUE
    for images, labels, objects in readable(loader):
        images = images.to(runtime.device)
        labels = labels.to(runtime.device)
        if not true:
            labels = predictions(subject.model.eval(), images, subject.recipe.amp)
        yield Images(images, labels, objects.to(runtime.device))


def _order(source: Source, passes: int) -> list[list[int]]:
    """The numbers of the images in each batch; of scenes the first pass is the column's."""
    count = len(source.labels)
    starts = [begin for begin in range(0, count, BATCH) if count - begin > 1]
    order = []
    for number in range(passes or math.ceil(DRAWS / len(starts))):
        shuffled = np.random.default_rng(hashed_seed("label error order", number))
        in_turn = number == 0 and isinstance(source, SceneSource)
        images = (np.arange(count) if in_turn else shuffled.permutation(count)).tolist()
        order += [images[begin : begin + BATCH] for begin in starts]
    return order


def _figures(setting: str, labels: Labels) -> list[Figure]:
    """Of some mixes: mean error and bias in points, rank correlation, and shares of ghosts."""
    from scipy.stats import spearmanr

    seen = np.isfinite(labels.wanted)
    n = int(seen.sum())
    lam, wanted = labels.lam[seen], labels.wanted[seen]
    varies = n > 2 and np.ptp(lam) > 0 and np.ptp(wanted) > 0
    rank = float(spearmanr(lam, wanted).statistic) if varies else None
    error = 100 * float(np.abs(lam - wanted).mean()) if n else None
    bias = 100 * float((lam - wanted).mean()) if n else None
    ghosts = float(labels.ghost[seen].mean()) if n else None
    return [
        Figure(setting=setting, metric="label_error", value=error, n=n),
        Figure(setting=setting, metric="bias", value=bias, n=n),
        Figure(setting=setting, metric="rank_correlation", value=rank, n=n),
        Figure(setting=setting, metric="ghost_labels", value=ghosts, n=n),
        Figure(setting=setting, metric="both_hidden", value=float(len(seen) - n), n=len(seen)),
    ]


def _by_size(labels: Labels) -> Iterator[Figure]:
    """The mean error by the share of its image that A's object has."""
    for name, (low, high) in SIZES.items():
        chosen = (labels.size >= low) & (labels.size < high)
        part = Labels(*(values[chosen] for values in labels))
        if np.isfinite(part.wanted).any():
            yield _figures(f"{name} objects", part)[0]
