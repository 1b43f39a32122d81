"""Where images and labels come from: sources, their subsets, and a data set of two splits."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from mixbench.data.scene_area import Area
from mixbench.mix import hashed_seed

VALIDATION = ("validation", "val", "test")  # the first that a data set has is validated on


class UnreadableImage(ValueError):
    """A file of the data set that cannot be decoded; its note names the way out."""

    way_out = (
        "--check-data names every such image, --skip-unreadable leaves them out in a run of its own"
    )

    def __init__(self, message: str):
        super().__init__(message)
        self.add_note(self.way_out)


class UnreadableMask(UnreadableImage):
    """A mask, or a map of labels, that cannot be decoded or is not as large as its image."""

    way_out = "--check-data looks at images alone: mend this file, or take it away with its image"


class Source(ABC):
    """PIL images with labels; `fingerprint` describes them for the recipe's hash."""

    labels: list[int]
    fingerprint: str

    @abstractmethod
    def load(self, index: int) -> Image.Image:
        """Image `index`, RGB; UnreadableImage where its file cannot be decoded."""

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of image `index` in pixels."""
        return self.load(index).size

    def content(self, index: int) -> bytes:
        """The bytes that image `index` is of, which can be decoded: its file's, else its pixels.

        UnreadableImage where they cannot.
        """
        return self.load(index).tobytes()

    def image_name(self, index: int) -> str:
        """What image `index` is called within its data set; its number where it has no name."""
        return str(index)

    def has_mask(self, index: int) -> bool:
        """Whether it is known where the object of image `index` is."""
        return False

    def mask(self, index: int) -> Image.Image | None:
        """The object of image `index` as `data.objects` describes it; None where none is known."""
        return None

    def check_masks(self) -> None:  # noqa: B027  most sources have no masks
        """Nothing; ValueError where masks and images do not belong together."""


class Subset(Source):
    """Some samples of another source."""

    def __init__(self, source: Source, indices: Sequence[int]):
        # a list of a million numbers would take five times the memory
        self.indices = indices if isinstance(indices, range) else array("q", indices)
        self.source = source
        self.labels = [source.labels[index] for index in indices]
        self.fingerprint = f"{source.fingerprint}[{len(indices)}]"

    def load(self, index: int) -> Image.Image:
        return self.source.load(self.indices[index])

    def size(self, index: int) -> tuple[int, int]:
        return self.source.size(self.indices[index])

    def content(self, index: int) -> bytes:
        return self.source.content(self.indices[index])

    def image_name(self, index: int) -> str:
        return self.source.image_name(self.indices[index])

    def has_mask(self, index: int) -> bool:
        return self.source.has_mask(self.indices[index])

    def mask(self, index: int) -> Image.Image | None:
        return self.source.mask(self.indices[index])


def whole(source: Source) -> Source:
    """The source that subsets are of."""
    while isinstance(source, Subset):
        source = source.source
    return source


@dataclass(frozen=True)
class DataIdentity:
    """What makes two data sets the same for a run, wherever they lie."""

    classes: tuple[str, ...]  # in the order of the labels
    train_images: int
    val_images: int
    train: str  # the splits' fingerprints
    val: str
    content: str | None = None  # of all bytes, where they were read


@dataclass(frozen=True)
class Data:
    """A training and a validation split with the names of their classes."""

    name: str  # what people call it; two data sets may be called alike
    train: Source
    val: Source
    classes: tuple[str, ...]
    scene_area: Area | None = None  # of the drawn scenes, whose object masks are known
    content: str | None = None  # hash of all bytes, where they were read
    remarks: tuple[str, ...] = ()  # what a user should hear of it, such as files left out

    @property
    def drawn(self) -> bool:
        """Whether these are the drawn scenes."""
        return self.scene_area is not None

    @property
    def identity(self) -> DataIdentity:
        """What a run on it is of."""
        return DataIdentity(
            self.classes,
            len(self.train.labels),
            len(self.val.labels),
            self.train.fingerprint,
            self.val.fingerprint,
            self.content,
        )


def balanced(source: Source, limit: int | None) -> Source:
    """A class-balanced subset of at most `limit` samples, the same for the same source."""
    count = len(source.labels)
    if limit is None or limit >= count:
        return source
    order = random.Random(hashed_seed("subset", count)).sample(range(count), count)
    taken: dict[int, int] = {}
    ranked = []
    for index in order:  # round robin over classes
        label = source.labels[index]
        taken[label] = taken.get(label, 0) + 1
        ranked.append((taken[label], label, index))
    return Subset(source, sorted(index for _, _, index in sorted(ranked)[:limit]))
