"""The calibration curve: how often a network is right that is so sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mixbench.report.classes import Images
from mixbench.report.drawing import INK, Drawing, label_beside, label_room
from mixbench.report.looks import look_of
from mixbench.training.calibration import BINS, Bins, confidence_bins

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST = 20  # images of a bin that has a point


class Curve(NamedTuple):
    """The bins of a strategy's confidence, of the images of so many seeds together."""

    bins: Bins
    seeds: int


def reliability(images: Images, strategies: Sequence[str]) -> dict[str, Curve]:
    """The curve of each of the strategies that has results of images."""
    curves = {}
    for spec in strategies:
        seeds = [each for (name, _), each in images.items() if name == spec]
        if seeds:
            confidence = np.concatenate([each.confidence for each in seeds]).astype(float)
            right = np.concatenate([each.bitmap.right for each in seeds])
            curves[spec] = Curve(confidence_bins(confidence, right), len(seeds))
    return curves


def draw_reliability(axis: Axes, curves: Mapping[str, Curve], height: float) -> None:
    """Accuracy against mean confidence, in percent, a point for each bin of FEWEST images or more.

    On the line beside them a network is right as often as it is sure. The names stand beside axes
    of `height` inches, at the curves' ends.
    """
    axis.plot([0, 100], [0, 100], color=INK, linewidth=1, zorder=1)
    ends = {}
    for spec, (bins, _) in curves.items():
        enough, look = bins.count >= FEWEST, look_of(spec)
        if not enough.any():
            continue
        confidence, accuracy = 100 * bins.confidence[enough], 100 * bins.accuracy[enough]
        axis.plot(
            confidence,
            accuracy,
            markersize=5,
            label=spec,
            **look.style,
        )
        ends[spec] = (float(confidence[-1]), float(accuracy[-1]))
    axis.set(xlim=(0, 102), ylim=(0, 102), ylabel="images that are right (%)")
    if ends:
        label_beside(axis, ends, height)


def draw_confidence(axis: Axes, curves: Mapping[str, Curve]) -> None:
    """The images in each bin, mean over the seeds, at the middle of the bin."""
    middles = 100 * (np.arange(BINS) + 0.5) / BINS
    for spec, (bins, seeds) in curves.items():
        look = look_of(spec)
        axis.plot(
            middles,
            bins.count / seeds,
            markersize=4,
            linewidth=1,
            **look.style,
        )
    axis.set(xlim=(0, 102), xlabel="confidence (%)", ylabel="images")
    axis.set_ylim(bottom=0)


def reliability_figure(curves: Mapping[str, Curve]) -> str:
    """The calibration curves above the images in each bin, as SVG; '' where they have no point."""
    if not any((curve.bins.count >= FEWEST).any() for curve in curves.values()):
        return ""
    height = max(2.8, label_room(curves))
    drawing = Drawing(
        "reliability",
        "Accuracy against confidence, and the images in each bin",
        height + 2.0,
        rows=2,
        heights=(height, 1.2),
    )
    with drawing as [above, below]:
        draw_reliability(above, curves, height)
        draw_confidence(below, curves)
    return drawing.svg
