"""The average precision of boxes and masks, by COCO's own evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from torch import Tensor

from mixbench.data.coco import CocoInstances, mask_tools, unpacked
from mixbench.transfer.tasks import BOXES, MASKS

ABOVE = 0.5  # a mask's probability where the object is
KINDS = {BOXES: "bbox", MASKS: "segm"}  # in COCO's words
MOST = 100  # detections of a class that an image counts


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects that a network sees in an image of H x W pixels."""

    boxes: np.ndarray  # (n, 4) float64, left, top, right and bottom in pixels
    scores: np.ndarray  # (n,) float64
    labels: np.ndarray  # (n,) int64, 1..K
    codes: tuple[Mapping[str, Any], ...]  # n masks, as COCO packs them

    def masks(self) -> np.ndarray:
        """The masks, (n, H, W) bool; () where there is none."""
        return unpacked(self.codes, (0, 0))


def detections_of(output: Mapping[str, Tensor]) -> Detections:
    """What torchvision's Mask R-CNN gives for an image, with masks in a hundredth of the memory.

    `output` has boxes (n, 4) in the image's pixels, scores (n,), labels (n,) in 1..K and masks
    (n, 1, H, W): bool, or probabilities, of which those above ABOVE are the object.
    """
    masks = output["masks"][:, 0]
    if masks.is_floating_point():
        masks = masks > ABOVE
    encode = mask_tools().encode
    drawn = masks.byte().cpu().numpy()
    return Detections(
        boxes=output["boxes"].double().cpu().numpy(),
        scores=output["scores"].double().cpu().numpy(),
        labels=output["labels"].cpu().numpy(),
        codes=tuple(encode(np.asfortranarray(each)) for each in drawn),
    )


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """In percent, over COCO's ten thresholds of IoU or at one; NaN where no class has an object."""

    ap: float
    ap50: float
    ap75: float
    by_class: np.ndarray  # (K,), over the ten; NaN for a class without an object


def exported(
    source: CocoInstances, predictions: Sequence[Detections], kind: str
) -> list[dict[str, Any]]:
    """Predictions of each image of a source, in the form of COCO's result files."""
    assert len(predictions) == len(source.labels)
    categories = source.annotations.categories
    return [
        {
            "image_id": source.image_id(index),
            "category_id": categories[label - 1].id,
            "score": float(score),
            **(
                {"bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]}
                if kind == BOXES
                else {"segmentation": {**code, "counts": code["counts"].decode()}}
            ),
        }
        for index, seen in enumerate(predictions)
        for box, score, label, code in zip(
            seen.boxes, seen.scores, seen.labels, seen.codes, strict=True
        )
    ]


def average_precision(
    source: CocoInstances, predictions: Sequence[Detections], kind: str
) -> AveragePrecision:
    """The average precision of predictions for each image of a source, of boxes or masks.

    Crowds are passed over, as COCO does; an image counts its MOST best predictions of a class.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = [
        {**result, "id": number + 1, "area": _area(result), "iscrowd": 0}
        for number, result in enumerate(exported(source, predictions, kind))
    ]
    truth = source.truth()
    with redirect_stdout(StringIO()):  # it prints each step
        both = []
        for annotations in (truth["annotations"], results):
            both.append(COCO())
            both[-1].dataset = {**truth, "annotations": annotations}
            both[-1].createIndex()
        evaluation = COCOeval(*both, KINDS[kind])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [MOST]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]  # (T, R, K), -1 where no object is
    thresholds = evaluation.params.iouThrs
    at = {value: precision[np.isclose(thresholds, value)] for value in (0.5, 0.75)}
    return AveragePrecision(
        ap=_mean(precision),
        ap50=_mean(at[0.5]),
        ap75=_mean(at[0.75]),
        by_class=np.array([_mean(each) for each in np.moveaxis(precision, -1, 0)]),
    )


def _area(result: Mapping[str, Any]) -> float:
    """The area that COCO gives a result, in pixels; below 0 it does not count."""
    if "bbox" in result:
        return float(result["bbox"][2] * result["bbox"][3])
    return float(mask_tools().area(result["segmentation"]))


def _mean(precision: np.ndarray) -> float:
    """In percent, of what is known; NaN where nothing is."""
    known = precision[precision > -1]
    return 100 * float(known.mean()) if known.size else float("nan")
