"""Where the time of training goes: the parts of a step, and the wait for images."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

import torch

from mixbench.recipe import Recipe

WORTH_SAYING = 20  # percent of the time waited for images, from which a faster loader would help


class Clock:
    """When each part of a step ended: events on a CUDA device, without a wait; else the wall clock.

    The clock starts when it is made; `clock("forward")` says that the part of this name ends now.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._names: list[str] = []
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []
        self._mark()

    def __call__(self, part: str) -> None:
        self._names.append(part)
        self._mark()

    def _mark(self) -> None:
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)
            return
        if self._device.type == "mps":
            torch.mps.synchronize()
        self._times.append(time.perf_counter())

    def seconds(self) -> dict[str, float]:
        """Seconds of each part; on a GPU once the device has come to the end."""
        if self._events:
            spans = [begin.elapsed_time(end) / 1000 for begin, end in pairwise(self._events)]
        else:
            spans = [end - begin for begin, end in pairwise(self._times)]
        return dict(zip(self._names, spans, strict=True))


@dataclass
class Waiting:
    """How long training ran, and how much of that was waiting for images with an idle device."""

    waited: float = 0.0
    total: float = 0.0
    busy: torch.cuda.Event | None = None  # after the device's last work: a wait it fills costs none

    def mark(self, device: torch.device) -> None:
        """The device has been given its work."""
        if device.type == "cuda":
            self.busy = torch.cuda.Event()
            self.busy.record()

    def add(self, seconds: float) -> None:
        """The next images took so long to come."""
        if self.busy is None or self.busy.query():
            self.waited += seconds

    @property
    def share(self) -> float | None:
        """The share of the time that was waited; None where nothing was trained."""
        return self.waited / self.total if self.total else None

    def sentence(self, recipe: Recipe, *, cached: bool, device: torch.device) -> str:
        """What a reader should know and could do about it."""
        percent = 100 * self.waited / max(self.total, 1e-9)
        ways = "more --workers" + ("" if cached else ", --cache ram")
        if recipe.augment_on == "loader" and device.type == "cuda":
            ways += ", --augment-on device"
        advice = f": {ways} would help" if percent >= WORTH_SAYING else ""
        return f"waiting for images: {percent:.0f} % of the time{advice}"
