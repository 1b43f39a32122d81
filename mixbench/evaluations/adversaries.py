"""Natural adversaries: ImageNet-A and ImageNet-O (the paper's section 4.3, Table 4)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mixbench.data.folders import class_folders, open_classes
from mixbench.data.sources import Source
from mixbench.data.wnids import imagenet_classes, subset_classes
from mixbench.evaluations.evaluation import EvalImages, Figure, Given, Headline, Result, Subject
from mixbench.evaluations.natural import BIN, LAST_BINS, aupr_out, aurra, rms_calibration_error
from mixbench.evaluations.shifted import Answers, Shifted
from mixbench.runtime import Runtime
from mixbench.values import option


class ImageNetA(Shifted):
    """Top-1, calibration error and AURRA on ImageNet-A, `<wnid>/*`, among its 200 classes.

    Source: Hendrycks et al., 2021 (Natural Adversarial Examples).
    """

    name: ClassVar[str] = "imagenet-a"
    detail: ClassVar[str] = "rms_calibration_error"
    count: ClassVar[int] = 200
    among: ClassVar[bool] = True

    @property
    def known(self) -> Collection[str]:
        return subset_classes("a")

    def more_figures(self, found: Answers, runtime: Runtime) -> Iterator[Figure]:
        """Calibration error without the last bin, as published, and with it; and AURRA."""
        right, confidence = found
        n = len(right)
        if n < 2 * BIN:
            runtime.say(f"no calibration error of {n} images: it needs {2 * BIN} or more")
        for last_bin, setting in zip(LAST_BINS, ("last bin dropped", "last bin kept"), strict=True):
            value = None
            if n >= 2 * BIN:
                value = 100 * rms_calibration_error(confidence, right, last_bin)
            yield Figure(setting=setting, metric="rms_calibration_error", value=value, n=n)
        yield Figure(setting="", metric="aurra", value=100 * aurra(confidence, right), n=n)


@dataclass(frozen=True, eq=False, kw_only=True)
class OutsideImages(EvalImages):
    """Images of no known class, and photographs of classes that the model was trained on."""

    inside: Source

    @property
    def fingerprint(self) -> str:
        return f"{self.source.fingerprint} {self.inside.fingerprint}"


@dataclass(frozen=True, kw_only=True)
class ImageNetO(Shifted):
    """How well ImageNet-O's images, `<wnid>/*`, are told from ImageNet's by low confidence.

    A folder is named by the class that its images look like and are not. Confidence is the largest
    probability among the folders' classes. Source: Hendrycks et al., 2021 (Natural Adversarial
    Examples).
    """

    name: ClassVar[str] = "imagenet-o"
    detail: ClassVar[str] = "aupr"
    places: ClassVar[tuple[str, ...]] = ("id_data",)
    count: ClassVar[int] = 200
    among: ClassVar[bool] = True

    id_data: str | None = option(
        None,
        group="images",
        help="ImageNet's validation images, <wnid>/ or val/<wnid>/: what the model knows",
    )

    @property
    def headline(self) -> Headline:
        return Headline("", "aupr", higher_is_better=True)

    @property
    def known(self) -> Collection[str]:
        return imagenet_classes()

    def open(self, given: Given) -> EvalImages:
        """The images of --data, and those of the same classes in --id-data."""
        if self.id_data is None:
            raise ValueError(
                "imagenet-o needs --id-data DIR: ImageNet's validation images, DIR/<wnid>/"
            )
        outside = super().open(given)
        place = Path(self.id_data).expanduser()
        place = place / "val" if (place / "val").is_dir() else place
        found = set(class_folders(place))
        missing = [wnid for wnid in outside.classes if wnid not in found]
        if missing:
            raise ValueError(
                f"--id-data {place} lacks {len(missing)} of the {len(outside.classes)} classes of "
                f"{outside.name}, such as {missing[0]}/: name ImageNet's validation images"
            )
        return OutsideImages(
            name=outside.name,
            source=outside.source,
            classes=outside.classes,
            inside=open_classes(place, "", outside.classes),
        )

    def measure(self, subject: Subject, data: EvalImages, runtime: Runtime) -> Result:
        """AUPR and what a guess gives."""
        assert isinstance(data, OutsideImages)
        outside, inside = (
            self.answers(subject, source, data, runtime).confidence
            for source in (data.source, data.inside)
        )
        n = len(outside) + len(inside)
        aupr, chance = 100 * aupr_out(inside, outside), 100 * len(outside) / n
        return Result(
            figures=(
                Figure(setting="", metric="aupr", value=aupr, n=n),
                Figure(setting="a guess", metric="aupr", value=chance, n=n),
            ),
            images={"confidence": outside, "id_confidence": inside},
        )
