"""Pascal Context's annotations as they are published, written as the PNGs that are read here.

`train.pth` and `val.pth` of PyTorch-Encoding hold a label map of 60 classes for each image's
number: 2008000002 is 2008_000002.jpg. They lie in VOCdevkit/VOC2010/, beside JPEGImages/.

    python -m mixbench.data.pascal_context DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mixbench.data.label_maps import IGNORED, MAPS, PASCAL, PASCAL_CONTEXT, SETS
from mixbench.data.masks import ENDING
from mixbench.errors import reason
from mixbench.files import replace_file, replacing

YEAR = 4  # digits of an image's number


def convert(root: Path) -> dict[str, int]:
    """Write the label maps and the lists of a folder that holds VOCdevkit/VOC2010; images by split.

    The lists come last: what was stopped is begun anew. ValueError where a file lacks, is damaged,
    or holds what is no label map of these classes.
    """
    place = root / PASCAL
    read = {split: _read(place / f"{split}.pth") for split in ("train", "val")}
    (place / MAPS).mkdir(exist_ok=True)
    (place / SETS).mkdir(parents=True, exist_ok=True)
    for maps in read.values():
        for name, labels in maps.items():
            with replacing(place / MAPS / f"{name}{ENDING}") as partial:
                labels.save(partial, "PNG")
    for split, maps in read.items():
        replace_file(place / SETS / f"{split}.txt", "\n".join(maps) + "\n")
    return {split: len(maps) for split, maps in read.items()}


def _read(file: Path) -> dict[str, Image.Image]:
    """The label map of each image by its name, sorted; as plain data, so that nothing runs."""
    if not file.is_file():
        raise ValueError(f"{file} is missing: train.pth and val.pth are PyTorch-Encoding's files")
    try:
        with torch.serialization.safe_globals([Image.Image]):
            maps = torch.load(file, weights_only=True)
        found = {_name(number): labels for number, labels in sorted(maps.items())}
        wrong = [name for name, labels in found.items() if not _is_label_map(labels)]
    except Exception as error:  # torch, pickle and Pillow each raise their own for a damaged file
        raise ValueError(f"{file} holds no label maps: {reason(error, 200)}") from None
    if wrong:
        raise ValueError(
            f"{file}: {wrong[0]} is no label map of {len(PASCAL_CONTEXT)} classes, 0 on"
        )
    return found


def _name(number: int) -> str:
    digits = str(int(number))
    return f"{digits[:YEAR]}_{digits[YEAR:]}"


def _is_label_map(labels: Image.Image) -> bool:
    numbers = np.unique(np.asarray(labels))
    return labels.mode == "L" and all(
        number < len(PASCAL_CONTEXT) or number == IGNORED for number in numbers
    )


if __name__ == "__main__":
    try:
        counts = convert(Path(sys.argv[1]))
    except (ValueError, IndexError) as error:
        sys.exit(f"{error}\nusage: python -m mixbench.data.pascal_context DIR")
    print(", ".join(f"{count:,} images to {split}" for split, count in counts.items()))
