"""ImageNet-C: the error on ImageNet's validation images under corruptions of five severities."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np

from mixbench.data.folders import class_folders, open_classes
from mixbench.data.sources import Source
from mixbench.data.wnids import COUNT, imagenet_classes
from mixbench.evaluations.evaluation import EvalImages, Figure, Given, Headline, Result, Subject
from mixbench.evaluations.perturbed import percent
from mixbench.evaluations.shifted import Shifted, place_of
from mixbench.published import published_table
from mixbench.runtime import Runtime
from mixbench.values import shown

LISTED = 3  # missing folders that are named
SEVERITIES = ("1", "2", "3", "4", "5")
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")  # not among the 15 of the means


def alexnet_errors() -> dict[str, float]:
    """AlexNet's published error on each of the 15 corruptions, 0..1, the mean over severities."""
    rows = published_table("imagenet_c_alexnet")
    return {row["corruption"]: float(row["alexnet_error"]) for row in rows}


@dataclass(frozen=True, eq=False, kw_only=True)
class CorruptedImages(EvalImages):
    """The folders of corruptions; `source` is the first of them, the others are opened in turn.

    So only one listing of 50,000 images is held at a time.
    """

    root: Path
    parts: Mapping[tuple[str, str], str]  # corruption and severity -> digits of their images

    @property
    def fingerprint(self) -> str:
        return " ".join(self.parts.values())


class ImageNetC(Shifted):
    """The error on ImageNet-C, `<corruption>/<severity>/<wnid>/*`, among all classes of the model.

    mCE is the mean over 15 corruptions of the error over AlexNet's. Source: Hendrycks and
    Dietterich, 2019.
    """

    name: ClassVar[str] = "imagenet-c"
    detail: ClassVar[str] = "error"
    count: ClassVar[int] = COUNT
    among: ClassVar[bool] = False
    official_crop: ClassVar[float] = 1.0  # the images have 224 px

    @property
    def headline(self) -> Headline:
        return Headline("", "mean_error", higher_is_better=False)

    @property
    def known(self) -> Collection[str]:
        return imagenet_classes()

    def open(self, given: Given) -> EvalImages:
        """The folders of --data that are there, all with the same classes."""
        place = place_of(given)
        chosen: tuple[str, ...] = ()
        source: Source | None = None
        parts: dict[tuple[str, str], str] = {}
        for corruption, severity in _folders(place):
            split = f"{corruption}/{severity}"
            folders = self.folders(place, split)
            chosen = chosen or folders
            if folders != chosen:
                raise ValueError(
                    f"{place / split} holds {len(folders)} class folders that are not the "
                    f"{len(chosen)} of {place / '/'.join(next(iter(parts)))}: download it anew"
                )
            opened = open_classes(place, split, folders)
            source, parts[corruption, severity] = source or opened, opened.fingerprint
        assert source is not None
        return CorruptedImages(
            name=place.resolve().name, source=source, classes=chosen, root=place, parts=parts
        )

    def measure(self, subject: Subject, data: EvalImages, runtime: Runtime) -> Result:
        """The error by corruption and severity, its mean, and mCE where nothing is missing."""
        assert isinstance(data, CorruptedImages)
        right = {}
        for corruption, severity in data.parts:
            source = open_classes(data.root, f"{corruption}/{severity}", data.classes)
            right[corruption, severity] = self.answers(subject, source, data, runtime).right
        return Result(
            figures=tuple(_figures(right, runtime)),
            images={" ".join(part): found for part, found in right.items()},
        )


def _folders(place: Path) -> Iterator[tuple[str, str]]:
    """The corruptions and severities that are there, in the authors' order.

    ValueError for other folders, and where none of the 15 corruptions is there.
    """
    layout = "expected <corruption>/<severity>/<wnid>/ with"
    found = class_folders(place)
    known = (*alexnet_errors(), *EXTRA)
    unknown = [name for name in found if name not in known]
    if unknown:
        raise ValueError(
            f"imagenet-c: {place} holds {shown(unknown[0])}, which is no corruption: {layout} "
            f"{', '.join(known)}"
        )
    if set(found) <= set(EXTRA):
        raise ValueError(
            f"imagenet-c: {place} holds no corruption that counts: {layout} "
            f"{', '.join(alexnet_errors())}"
        )
    for corruption in known:
        severities = class_folders(place, corruption) if corruption in found else ()
        for severity in severities:
            if severity not in SEVERITIES:
                raise ValueError(
                    f"imagenet-c: {place / corruption} holds {shown(severity)}, which is no "
                    f"severity: {layout} severities {', '.join(SEVERITIES)}"
                )
            yield corruption, severity


def _figures(right: Mapping[tuple[str, str], np.ndarray], runtime: Runtime) -> Iterator[Figure]:
    """By severity, by corruption, and the means over the 15 corruptions."""
    published = alexnet_errors()
    errors: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for (corruption, severity), found in right.items():
        error = 100 - percent(found)
        errors.setdefault(corruption, []).append(error)
        counts[corruption] = counts.get(corruption, 0) + len(found)
        setting = f"{corruption} {severity}"
        yield Figure(setting=setting, metric="severity_error", value=error, n=len(found))
    means = {corruption: sum(values) / len(values) for corruption, values in errors.items()}
    for corruption, mean in means.items():
        yield Figure(setting=corruption, metric="error", value=mean, n=counts[corruption])
    counted = [corruption for corruption in published if corruption in means]
    n = sum(counts[corruption] for corruption in counted)
    mean_error = sum(means[corruption] for corruption in counted) / len(counted)
    yield Figure(setting="", metric="mean_error", value=mean_error, n=n)
    missing = [
        f"{corruption}/{severity}"
        for corruption, severity in product(published, SEVERITIES)
        if (corruption, severity) not in right
    ]
    mce = None
    if missing:
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        runtime.say(f"no mCE, and means of what is there: no {', '.join(missing[:LISTED])}{more}")
    else:
        mce = sum(means[each] / error for each, error in published.items()) / len(published)
    yield Figure(setting="", metric="mce", value=mce, n=n)
