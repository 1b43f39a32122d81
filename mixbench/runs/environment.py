"""The machine a run runs on, and the versions that decide its numbers."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from mixbench import __version__

PACKAGES = ("torch", "torchvision", "timm", "numpy")  # their versions change numbers


def device_name(device: torch.device) -> str:
    """The processor's name as its maker gives it; of a CPU with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(models, platform.machine())}, {torch.get_num_threads()} threads"


def precision_name(
    amp: bool, tf32: bool, device: torch.device, gradient_amp: bool | None = None
) -> str:
    """What the network computes in: `bf16`, `tf32` (on a GPU) or `fp32`.

    Where Puzzle-Mix's input gradient is computed in another, `fp32 with bf16 input gradient`.
    """
    full = "tf32" if tf32 and device.type == "cuda" else "fp32"
    own = "bf16" if amp else full
    if gradient_amp in (None, amp):
        return own
    return f"{own} with {'bf16' if gradient_amp else full} input gradient"


def versions() -> str:
    """The versions that decide a run's numbers, one line."""
    parts = [f"mixbench {__version__}", f"python {sys.version.split()[0]}"]
    return "; ".join([*parts, *(f"{package} {version(package)}" for package in PACKAGES)])


def today() -> str:
    """The date (UTC) as rows have it."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def environment(device: torch.device) -> dict[str, str | int | None]:
    """What a reader needs to repeat a run."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "versions": versions(),
        "cuda": torch.version.cuda,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
