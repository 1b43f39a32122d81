"""The tasks that models are transferred to, as a report shows them; torch is not imported here."""

from __future__ import annotations

from dataclasses import dataclass

SINGLE, MULTI = "single-scale", "multi-scale"  # settings of figures
BOXES, MASKS = "boxes", "masks"
GAP = 4  # pixels between the columns of a picture, which are equally wide
TITLES = {  # of metrics, as the field writes them
    "miou": "mIoU",
    "macc": "mAcc",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
}


@dataclass(frozen=True)
class Task:
    """The figures of a task that strategies are compared by."""

    name: str
    headline: tuple[str, str, bool]  # setting, metric, and whether higher is better
    details: tuple[str, ...]  # the metrics that are shown by setting
    columns: tuple[str, ...]  # of its picture; the last one is predicted
    section: str = "Transfer"


TASKS = {
    "seg": Task(
        "seg", (SINGLE, "miou", True), ("miou", "macc"), ("photograph", "truth", "predicted")
    ),
    "det": Task("det", (BOXES, "ap", True), ("ap", "ap50", "ap75"), ("truth", "predicted")),
}
