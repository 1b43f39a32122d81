"""The machine a run runs on, and the versions that decide its numbers."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def device_name(device: Any) -> str:
    """The product's name."""
    import platform

    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    return f"{model}, {torch.get_num_threads()} threads"


def versions() -> str:
    """The versions that decide a run's numbers."""
    from importlib.metadata import version

    from mixbench import __version__

    parts = [f"mixbench {__version__}", f"python {sys.version.split()[0]}"]
    return "; ".join(
        [*parts, *(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm", "numpy"))]
    )


def environment(device: Any) -> dict[str, Any]:
    """What a reader needs to repeat a run."""
    import platform

    import torch

    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "versions": versions(),
        "cuda": torch.version.cuda,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
