"""ImageNet's classes by their WordNet numbers."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

COUNT = 1000


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The wnid of each of the 1,000 classes of ILSVRC 2012, in the order of every classifier."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def subset_classes(letter: str) -> tuple[str, ...]:
    """The wnids of the 200 classes of ImageNet-A, 'a', or ImageNet-R, 'r', in order; by timm."""
    file = files("timm.data") / "_info" / f"imagenet_{letter}_synsets.txt"
    return tuple(file.read_text(encoding="utf-8").split())
