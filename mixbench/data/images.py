"""An image file as the pixels that a person sees: opened, turned upright and converted to RGB."""

from __future__ import annotations

import io
import os
import stat
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

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
LARGEST = {"L;2": 3, "L;4": 15}  # of PNG's grey of few bits, by Pillow's raw mode
NOTES = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # PNG's chunks that can hold an orientation

# Pillow warns of 90 to 180 million pixels, a large photograph, and refuses more.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def open_image(path: Path) -> Image.Image:
    """The first frame of an image file, RGB, 8 bits a channel.

    Differs: torchvision and timm leave EXIF's orientation and transparency aside; the image is
    turned upright here, and what is transparent stands on white. Grey of 16 bits is scaled to 8,
    65535 to 255. UnreadableImage names the file where it is no regular file, cannot be decoded, or
    holds 32-bit or float pixels, whose white nobody knows.
    """
    with _named(path), Image.open(path, formats=FORMATS) as image:
        return _upright(image)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of what `open_image` gives, in pixels; no pixel is decoded."""
    with _named(path), path.open("rb") as file:
        return _size(file)


def decoded_bytes(path: Path) -> bytes:
    """The bytes of an image file, read once; UnreadableImage where `open_image` raises it."""
    with _named(path):
        content = path.read_bytes()
    image_of(content, str(path))
    return content


def image_of(content: bytes, name: str) -> Image.Image:
    """The image of a file's bytes, as `open_image` gives it; UnreadableImage says `name`."""
    with _decoding(name), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return _upright(image)


def size_of(content: bytes, name: str) -> tuple[int, int]:
    """Width and height of what `image_of` gives, in pixels; no pixel is decoded."""
    with _decoding(name):
        return _size(io.BytesIO(content))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """UnreadableImage names the file where it is no regular one, and for whatever is raised."""
    with _decoding(str(path)):
        if not stat.S_ISREG(os.stat(path).st_mode):  # a fifo would be waited for
            raise ValueError("it is no regular file")
        yield


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """UnreadableImage says the image's name for whatever is raised."""
    try:
        yield
    except UnidentifiedImageError:
        words = "its bytes begin as no image format that is read"
        raise UnreadableImage(f"cannot read image {name}: {words}") from None
    except (Exception, MemoryError) as error:  # decoders raise anything for a damaged file
        raise UnreadableImage(f"cannot read image {name}: {reason(error, REASON)}") from None


def _size(file: BinaryIO) -> tuple[int, int]:
    with Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        if image.format == "PNG" and "exif" not in image.info:
            file.seek(0)
            with Image.open(_notes(file), formats=("PNG",)) as notes:
                orientation = _orientation(notes)
        else:
            orientation = _orientation(image)
        return (height, width) if orientation in LIES else (width, height)


def _upright(image: ImageFile.ImageFile) -> Image.Image:
    _scale_transparent_grey(image)
    image.load()
    orientation = _orientation(image)
    rgb = in_rgb(image)
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def _notes(file: BinaryIO) -> io.BytesIO:
    """A PNG file's size and notes, before and after its pixels, as a PNG without any.

    Pillow reads the notes behind the pixels, which are allowed there, only once it has decoded
    these.
    """
    parts = [file.read(8)]
    pixels = False
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        pixels |= kind == b"IDAT"
        if kind == b"IEND" or (kind == b"fcTL" and pixels):  # the animation's next frame
            break
        if kind in (b"IHDR", *NOTES):
            body = file.read(length)
            parts += [head, body, zlib.crc32(kind + body).to_bytes(4, "big")]
            file.seek(4, os.SEEK_CUR)
        else:
            file.seek(length + 4, os.SEEK_CUR)
    end = b"IDAT"
    return io.BytesIO(b"".join([*parts, bytes(4), end, zlib.crc32(end).to_bytes(4, "big")]))


def _scale_transparent_grey(image: ImageFile.ImageFile) -> None:
    """Give a PNG's transparent grey of 2 or 4 bits the scale of its pixels, 0 to 255.

    Pillow scales the pixels alone.
    """
    if image.format == "PNG" and "transparency" in image.info and image.mode == "L":
        raw = image.tile[0].args
        if raw in LARGEST:
            image.info["transparency"] *= 255 // LARGEST[raw]


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 where there is none; Pillow turns TIFF by itself."""
    if image.format == "TIFF":
        return 1
    try:
        exif = Image.Image.getexif(image)  # PngImageFile's would decode the pixels
        return int(exif.get(ORIENTATION, 1))
    except Exception:  # a damaged tag says nothing of the pixels
        return 1


def in_rgb(image: Image.Image) -> Image.Image:
    """An image that is open, RGB; ValueError where its pixels are 32-bit or float numbers."""
    if image.mode == "RGB" and image.format == "JPEG":
        return image  # most photographs; `convert` would copy each
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
    """Grey of 16 bits as grey of 8, rounded; a PNG's transparent level is white."""
    import numpy as np

    levels = np.asarray(image).astype(np.uint32)
    grey = ((levels + 128) // 257).astype(np.uint8)
    grey[levels == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)
