"""The listing of a large image folder, kept for the next dry run; a run lists anew."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from mixbench.data.folders import SPLITS, FolderSource, list_folder
from mixbench.data.names import Names
from mixbench.data.sources import Data
from mixbench.files import replacing

LARGE = 100_000  # images; fewer are listed in half a second
FORMAT = f"1 {sys.byteorder}"


def indexed_folder(root: Path) -> Data:
    """As open_folder, from the index of an earlier call where no folder has changed since.

    A remark says so, and when that was: a file that was overwritten in its place has changed no
    folder. A large folder is listed and its index written to ~/.cache/mixbench where there is none;
    what cannot be written there is done without.
    """
    with suppress(Exception):  # it is not there, out of date, or damaged in whatever way
        return _read(root)
    splits = {str(root / split): _changed(root / split) for split in SPLITS}
    data, met = list_folder(root)
    if len(data.train.labels) + len(data.val.labels) >= LARGE:
        with suppress(OSError, RuntimeError):
            _write(root, data, {**splits, **met.folders})
    return data


def _place(root: Path) -> Path:
    """The index of a folder, whichever path leads there; RuntimeError where nobody has a home."""
    digits = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return Path.home() / ".cache" / "mixbench" / f"listing-{digits}"


def _changed(folder: Path) -> int | None:
    """When something was last added to a folder or removed, in ns since 1970; None where gone."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None


def _write(root: Path, data: Data, folders: dict[str, int | None]) -> None:
    """One line of JSON, then the names of each split as Names holds them."""
    splits = [data.train, data.val]
    header = {
        "format": FORMAT,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "folders": {os.path.relpath(folder, root): time for folder, time in folders.items()},
        "classes": data.classes,
        "remarks": data.remarks,
        "fingerprints": [split.fingerprint for split in splits],
        "images": [[len(list(same)) for _, same in groupby(split.labels)] for split in splits],
    }
    with replacing(_place(root)) as partial, partial.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        for split in splits:
            assert isinstance(split, FolderSource)
            split.names.write(file)


def _read(root: Path) -> Data:
    """The data of an index; an error of some kind where it is not there, out of date or damaged."""
    with _place(root).open("rb") as file:
        header: dict[str, Any] = json.loads(file.readline())
        if header["format"] != FORMAT:
            raise ValueError("an index of another mixbench")
        for folder, time in header["folders"].items():
            if _changed(root / folder) != time:
                raise ValueError(f"{folder} has changed")
        train, val = (
            _source(root, file, images, fingerprint)
            for images, fingerprint in zip(header["images"], header["fingerprints"], strict=True)
        )
    remark = (
        f"images are listed as in an index of {header['date']} UTC, which serves dry runs alone: "
        "a run lists them anew"
    )
    classes, remarks = tuple(header["classes"]), (*header["remarks"], remark)
    return Data(root.resolve().name, train, val, classes, remarks=remarks)


def _source(root: Path, file: BinaryIO, images: Sequence[int], fingerprint: str) -> FolderSource:
    """A split of an index that is open where its names begin; `images` is their number by class."""
    labels: list[int] = []
    for label, count in enumerate(images):
        labels += [label] * count
    return FolderSource(root, Names.read(file, len(labels)), labels, fingerprint)
