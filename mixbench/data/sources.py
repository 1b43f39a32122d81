"""Where images and labels come from: sources, their subsets, and a data set of two splits."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

from PIL import Image

from mixbench.mix import hashed_seed


class Source:
    """PIL images with labels; `fingerprint` describes them for the recipe's hash."""

    labels: list[int]
    fingerprint: str

    def load(self, index: int) -> Image.Image:
        raise NotImplementedError

    def size(self, index: int) -> tuple[int, int]:
        """Width and height."""
        return self.load(index).size


class UnreadableImage(ValueError):
    """A file of the data set that cannot be decoded."""


@dataclass(frozen=True)
class Subset(Source):
    """Some samples of another source."""

    source: Source
    indices: tuple[int, ...]

    @cached_property
    def labels(self) -> list[int]:  # type: ignore[override]
        return [self.source.labels[i] for i in self.indices]

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return f"{self.source.fingerprint}[{len(self.indices)}]"

    def load(self, index: int) -> Image.Image:
        return self.source.load(self.indices[index])

    def size(self, index: int) -> tuple[int, int]:
        return self.source.size(self.indices[index])


@dataclass(frozen=True)
class Data:
    """A training and a validation split with the names of their classes."""

    name: str
    train: Source
    val: Source
    classes: tuple[str, ...]


def balanced(source: Source, limit: int | None) -> Source:
    """A class-balanced subset of at most `limit` samples, the same for the same source."""
    if limit is None or limit >= len(source.labels):
        return source
    order = random.Random(hashed_seed("subset", len(source.labels))).sample(
        range(len(source.labels)), len(source.labels)
    )
    taken: dict[int, int] = {}
    ranked = []
    for index in order:  # round robin over classes
        label = source.labels[index]
        taken[label] = taken.get(label, 0) + 1
        ranked.append((taken[label], label, index))
    return Subset(source, tuple(sorted(index for _, _, index in sorted(ranked)[:limit])))
