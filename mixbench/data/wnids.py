"""ImageNet's classes by their WordNet numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

COUNT = 1000
WNID = re.compile(r"n\d{8}")


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The wnid of each of the 1,000 classes of ILSVRC 2012, in the order of every classifier."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def subset_classes(letter: str) -> tuple[str, ...]:
    """The wnids of the 200 classes of ImageNet-A, 'a', or ImageNet-R, 'r', in order; by timm."""
    file = files("timm.data") / "_info" / f"imagenet_{letter}_synsets.txt"
    return tuple(file.read_text(encoding="utf-8").split())


def wnid_names(folders: Iterable[str]) -> dict[str, str]:
    """What WordNet calls those folders that are wnids of ImageNet: the first of its synonyms.

    By folder, as `tench` for n01440764; timm, which has the names, is imported for wnids alone.
    """
    wnids = [folder for folder in folders if WNID.fullmatch(folder)]
    if not wnids:
        return {}
    known = _descriptions()
    return {wnid: known[wnid].partition(",")[0] for wnid in wnids if wnid in known}


@cache
def _descriptions() -> dict[str, str]:
    """WordNet's synonyms of every wnid that timm knows."""
    from timm.data import ImageNetInfo

    # the smaller set has a wnid that the larger lacks
    infos = [ImageNetInfo(subset) for subset in ("imagenet-1k", "imagenet-22k")]
    return {
        wnid: info.label_name_to_description(wnid) for info in infos for wnid in info.label_names()
    }
