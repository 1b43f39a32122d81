"""The tasks that models are transferred to, as a report shows them; torch is not imported here."""

from __future__ import annotations

from dataclasses import dataclass

SINGLE, MULTI = "single-scale", "multi-scale"  # settings of figures


@dataclass(frozen=True)
class Task:
    """The figures of a task that strategies are compared by."""

    name: str
    headline: tuple[str, str, bool]  # setting, metric, and whether higher is better
    detail: str  # the metric that is shown by setting
    section: str = "Transfer"


TASKS = {"seg": Task("seg", (SINGLE, "miou", True), "miou")}
