"""Where the time of a step goes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from mixbench.recipe import Recipe


class Clock:
    """When each part of a step ended: events on a CUDA device, without a wait; else the wall clock."""

    def __init__(self, device: torch.device):
        self._cuda, self._mps = device.type == "cuda", device.type == "mps"
        self._marks: list[tuple[str, Any]] = []
        self("start")

    def __call__(self, part: str) -> None:
        mark: Any = torch.cuda.Event(enable_timing=True) if self._cuda else time.perf_counter()
        if self._cuda:
            mark.record()
        elif self._mps:
            torch.mps.synchronize()
            mark = time.perf_counter()
        self._marks.append((part, mark))

    def seconds(self) -> dict[str, float]:
        """Seconds of each part; on a GPU once the device has come to the end."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return {
            name: before.elapsed_time(now) / 1000 if self._cuda else now - before
            for (_, before), (name, now) in pairs
        }


@dataclass
class Waiting:
    """How long training ran, and how much of it was waiting for images while the device had nothing to do."""

    waited: float = 0.0
    total: float = 0.0
    busy: Any = None  # on a GPU, an event after what it was last given: a wait that it works through costs nothing

    def mark(self, device: torch.device) -> None:
        if device.type == "cuda":
            self.busy = torch.cuda.Event()
            self.busy.record()

    def add(self, seconds: float) -> None:
        if self.busy is None or self.busy.query():
            self.waited += seconds

    def sentence(self, recipe: Recipe, cached: bool, device: torch.device) -> str:
        """What a reader should know and could do about it."""
        share = 100 * self.waited / max(self.total, 1e-9)
        ways = "more --workers" + ("" if cached else ", --cache ram")
        if recipe.augment_on == "loader" and device.type == "cuda":
            ways += ", --augment-on device"
        return f"waiting for images: {share:.0f} % of the time" + (
            f": {ways} would help" if share >= 20 else ""
        )
