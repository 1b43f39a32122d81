"""Who runs and where."""

from __future__ import annotations

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


def explain(error: Exception) -> str:
    """What a strategy's row says of `error`."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory: lower --micro-batch"
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())}"
