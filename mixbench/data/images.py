"""An image file as the pixels that a person sees: opened, turned upright and converted to RGB."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from mixbench.data.sources import UnreadableImage
from mixbench.errors import reason

# None of these needs a helper program, as EPS does.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000", "TGA")
ORIENTATION = 0x0112  # EXIF's tag
UPRIGHT = {  # by its value, what turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LIES = (5, 6, 7, 8)  # orientations whose width and height change places
SIXTEEN_AS_32 = ("PNG", "PPM", "JPEG2000")  # formats whose 16-bit grey Pillow may open as 32-bit
REASON = 200  # characters of a decoder's words


def open_image(path: Path) -> Image.Image:
    """The first frame of an image file, RGB, 8 bits a channel.

    Differs: torchvision and timm leave EXIF's orientation and transparency aside; the image is
    turned upright here, and what is transparent stands on white. Grey of 16 bits is scaled to 8,
    65535 to 255. UnreadableImage names the file where it is no regular file, cannot be decoded, or
    holds 32-bit or float pixels, whose white nobody knows.
    """
    with _opened(path) as image:
        orientation = _orientation(image)
        image.load()
        rgb = in_rgb(image)
        return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of what `open_image` gives, in pixels, from the file's header alone."""
    with _opened(path) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in LIES else (width, height)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a fifo would be waited for
            raise ValueError("it is no regular file")
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except (Exception, MemoryError) as error:  # decoders raise anything for a damaged file
        raise UnreadableImage(f"cannot read image {path}: {reason(error, REASON)}") from None


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 where there is none; Pillow turns TIFF by itself."""
    if image.format == "TIFF":
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged tag says nothing of the pixels
        return 1


def in_rgb(image: Image.Image) -> Image.Image:
    """An image that is open, RGB; ValueError where its pixels are 32-bit or float numbers."""
    sixteen = image.mode.startswith("I;16")
    if sixteen or (image.mode == "I" and image.format in SIXTEEN_AS_32):
        return _eight_bits(image).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "32-bit whole" if image.mode == "I" else "float"
        raise ValueError(f"its pixels are {kind} numbers: save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8, rounded."""
    import numpy as np

    levels = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
