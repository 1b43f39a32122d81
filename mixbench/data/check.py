"""Every image of a data set opened once, before anything is trained."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain

from mixbench.data.sources import Data, Source, Subset, UnreadableImage

HEADERS = 5  # seconds for the headers of validation images
CHUNK = 64  # images
NAMED = 3  # unreadable images that a sentence names


class Readable(Subset):
    """The images of a source that can be decoded; what is left out changes the fingerprint."""

    def __init__(self, source: Source, unreadable: set[int]):
        count = len(source.labels)
        super().__init__(source, [index for index in range(count) if index not in unreadable])
        names = "\0".join(source.image_name(index) for index in sorted(unreadable))
        left_out = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.fingerprint = f"{source.fingerprint}-{left_out}"


Tick = Callable[[int, int], None]  # images read, and in all


def uncounted(title: str, unit: str) -> AbstractContextManager[Tick]:
    """What takes a count and shows none of it."""
    return nullcontext(lambda done, total: None)


def check_images(
    data: Data,
    *,
    skip: bool = False,
    counting: Callable[[str, str], AbstractContextManager[Tick]] = uncounted,
) -> Data:
    """`data` with the hash of all its bytes, every image having been read and decoded once.

    `counting(title, unit)` shows how far it is, as Screen's does.

    Where images cannot be decoded: ValueError names some of them, or with `skip` they are left out
    and a remark says how many. ValueError where a class would lose its last image.
    """
    problems: list[str] = []
    content = hashlib.sha256()
    splits = []
    total = len(data.train.labels) + len(data.val.labels)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, counting("reading", "image") as tick:
        done = 0
        for split in (data.train, data.val):
            unreadable: set[int] = set()
            for index, result in enumerate(_digests(split, pool)):
                if isinstance(result, UnreadableImage):
                    unreadable.add(index)
                    problems.append(str(result))
                else:
                    name = split.image_name(index).encode("utf-8", "surrogateescape")
                    content.update(name + b"\0" + result)
                done += 1
                tick(done, total)
            splits.append(Readable(split, unreadable) if unreadable else split)
    train, val = splits
    if problems and not skip:
        raise ValueError(f"{unreadable_words(problems, total)}, or add --skip-unreadable")
    for before, split in ((data.train, train), (data.val, val)):
        lost = set(before.labels) - set(split.labels)
        if lost:
            gone = data.classes[min(lost)]
            raise ValueError(f"no image of class {gone!r} can be read: mend them")
    remark = f"read all {total:,} images" + (
        f", and left out {len(problems)} that cannot be read" if problems else ""
    )
    return replace(
        data,
        train=train,
        val=val,
        content=content.hexdigest()[:16],
        remarks=(*data.remarks, remark),
    )


def unreadable_words(problems: Sequence[str], total: int) -> str:
    """The beginning of a sentence on images that cannot be read, the first of them named."""
    more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    return (
        f"{len(problems)} of {total:,} images cannot be read: {'; '.join(problems[:NAMED])}{more}; "
        "mend or remove them"
    )


def without_unreadable(source: Source) -> Source:
    """The images of a source that can be decoded, as a run that skipped the others has them."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = enumerate(_digests(source, pool))
        bad = {index for index, result in results if isinstance(result, UnreadableImage)}
    return Readable(source, bad) if bad else source


def check_headers(source: Source, seconds: float = HEADERS) -> None:
    """UnreadableImage where an image's header cannot be read, of as many as `seconds` allow.

    A bad validation image would else be met first after an epoch of training.
    """
    end = time.monotonic() + seconds
    for index in range(len(source.labels)):
        source.size(index)
        if time.monotonic() > end:
            return


def _digests(source: Source, pool: ThreadPoolExecutor) -> Iterator[bytes | UnreadableImage]:
    """What `_digest` gives for every image, in their order; a thread takes CHUNK images at once."""

    def digests(start: int) -> list[bytes | UnreadableImage]:
        stop = min(start + CHUNK, len(source.labels))
        return [_digest(source, index) for index in range(start, stop)]

    starts = range(0, len(source.labels), CHUNK)
    return chain.from_iterable(pool.map(digests, starts))


def _digest(source: Source, index: int) -> bytes | UnreadableImage:
    """The hash of an image's bytes, or why it cannot be decoded."""
    try:
        return hashlib.sha256(source.content(index)).digest()
    except UnreadableImage as error:
        return error
