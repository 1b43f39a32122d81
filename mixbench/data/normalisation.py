"""The loader's normalisation: one object that every part hands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Mean and standard deviation of each channel, (C, 1, 1) float32 on one device."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(
        cls,
        mean: Sequence[float] | Tensor,
        std: Sequence[float] | Tensor,
        device: torch.device | str | None = None,
    ) -> Normalisation:
        """From numbers or tensors of shape (C,) or (C, 1, 1), on `device`."""
        columns = (
            torch.as_tensor(values, dtype=torch.float32, device=device).reshape(-1, 1, 1)
            for values in (mean, std)
        )
        return cls(*columns)

    def to(self, device: torch.device | str) -> Normalisation:
        """The same on another device."""
        return Normalisation(self.mean.to(device), self.std.to(device))

    def equals(self, other: Normalisation) -> bool:
        """Whether both are the same but for float32's rounding."""
        return torch.allclose(self.mean.cpu(), other.mean.cpu()) and torch.allclose(
            self.std.cpu(), other.std.cpu()
        )

    def apply(self, levels: Tensor) -> Tensor:
        """Levels in [0, 1] as what a network sees, of the shape of `levels` (..., C, H, W)."""
        return (levels - self.mean) / self.std

    def undo(self, images: Tensor) -> Tensor:
        """The levels of normalised images, float32 of the shape of `images` (..., C, H, W)."""
        return images.float() * self.std + self.mean

    def pixels(self, images: Tensor) -> Tensor:
        """Normalised images as uint8 RGB, rounded and clamped, of the shape of `images`."""
        return (self.undo(images) * 255).round().clamp(0, 255).to(torch.uint8)
