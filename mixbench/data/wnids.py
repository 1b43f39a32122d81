"""ImageNet's classes by their WordNet numbers."""

from __future__ import annotations

COUNT = 1000


def imagenet_classes() -> tuple[str, ...]:
    """The wnid of each of the 1,000 classes of ILSVRC 2012, in the order of every classifier."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())
