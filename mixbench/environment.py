"""The machine a run runs on: its device, and the versions that decide its numbers."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def choose_device(name: str) -> Any:
    """The torch device of a name; ValueError where it is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(
            f"--device must be auto, cpu, cuda, cuda:<number> or mps, not {name!r}"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: not available on this machine; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"--device must be auto, cpu, cuda, cuda:<number> or mps, not {name!r}")
    return device


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
