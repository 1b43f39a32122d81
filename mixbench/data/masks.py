"""Masks of the objects in images, as they lie on the disk.

A mask is one channel as large as its image: 0 beside the object, 255 where nobody knows, any other
number on it. The mask of `train/<path>.jpg` is `masks/train/<path>.png`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from mixbench.data.sources import Source, UnreadableMask, whole
from mixbench.errors import reason

if TYPE_CHECKING:
    import numpy as np

FOLDER, ENDING = "masks", ".png"
UNKNOWN = 255
LOOKING = 10  # seconds for the content of masks before training


def read_mask(path: Path) -> Image.Image:
    """The mask in a PNG file, 8 bits of one channel; UnreadableMask where it is none.

    Of a palette, as Pascal VOC's, the numbers count and not the colours.
    """
    import numpy as np

    try:
        with Image.open(path, formats=("PNG",)) as image:
            if len(image.getbands()) != 1:
                bands = ", ".join(image.getbands())
                raise ValueError(f"it has the channels {bands}, and a mask has one of numbers")
            numbers = np.asarray(image)
    except Exception as error:  # decoders raise anything for a damaged file
        raise UnreadableMask(f"cannot read mask {path}: {reason(error, 200)}") from None
    return Image.fromarray(_of_8_bits(numbers))


def _of_8_bits(numbers: np.ndarray) -> np.ndarray:
    """Numbers (H, W) as uint8: every larger one is an object's, which gets a number that is free.

    Where there are more than those, the rest share the last.
    """
    import numpy as np

    large = np.unique(numbers[numbers > UNKNOWN])
    if large.size:
        free = np.setdiff1d(np.arange(1, UNKNOWN), numbers)
        free = free if free.size else np.array([1])
        given = free[np.minimum(np.arange(large.size), free.size - 1)]
        places = np.searchsorted(large, numbers).clip(max=large.size - 1)
        numbers = np.where(numbers > UNKNOWN, given[places], numbers)
    return numbers.astype(np.uint8)


def is_object(mask: Image.Image) -> np.ndarray:
    """Where a mask is on the object, (H, W) bool; where nobody knows it is not."""
    import numpy as np

    numbers = np.asarray(mask)
    return (numbers > 0) & (numbers != UNKNOWN)


def misfit(mask: Image.Image, size: tuple[int, int], name: str) -> str | None:
    """That a mask has other pixels than its image's (width, height); None where it has not."""
    if mask.size == size:
        return None
    sizes = ["x".join(map(str, pair)) for pair in (mask.size, size)]
    return (
        f"the mask of {name} has {sizes[0]} pixels, and the image {sizes[1]}: a mask is as large "
        "as its image, turned upright"
    )


def check_objects(source: Source, split: str, seconds: float = LOOKING) -> str | None:
    """What a user should know of a split's masks: how many are missing or empty; None where none.

    The content of as many is looked at as `seconds` allow. ValueError where there is no mask at
    all, where masks and images do not belong together, a mask has another size than its image, or
    none knows of an object.
    """
    count = len(source.labels)
    there = [index for index in range(count) if source.has_mask(index)]
    if not there:
        raise ValueError(
            f"a strategy asks for masks of objects, and the {split} images have none: lay them in "
            f"masks/{split}/<path of the image>.png, or train on the drawn scenes, without --data"
        )
    whole(source).check_masks()
    end, looked, empty, unknown = time.monotonic() + seconds, 0, 0, 0
    for index in there:
        mask = source.mask(index)
        assert mask is not None
        looked += 1
        wrong = misfit(mask, source.size(index), source.image_name(index))
        if wrong:
            raise ValueError(wrong)
        empty += not is_object(mask).any()
        unknown += mask.getextrema()[1] == UNKNOWN
        if time.monotonic() > end:
            break
    if empty == unknown == looked:
        raise ValueError(
            f"all {looked:,} {split} masks that were looked at hold nothing but 0 and {UNKNOWN}, "
            f"and {UNKNOWN} says that nobody knows: write the object as 1"
        )
    if len(there) == count and not empty:
        return None
    missing = f"{count - len(there):,} of {count:,} {split} images have no mask"
    blank = f"{empty:,} of {looked:,} masks that were looked at are empty"
    return f"{missing}, and {blank}: these images' labels follow the area"
