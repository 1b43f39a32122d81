"""Image files of every kind, right and damaged, with the pixels that they hold."""

import functools
import io
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from tests.fuzz.ends import ACCEPT, EITHER, REFUSE

WIDTH, HEIGHT = 24, 16
LOSSY = 30  # levels that a lossy format may be off; neighbours differ by up to 10


@dataclass(frozen=True)
class ImageFile:
    """A file for a class folder, and what loading it should give."""

    name: str
    content: bytes
    expect: str
    pixels: np.ndarray | None = None  # (H, W, 3) uint8, of an accepted one
    off: int = 0  # levels that a pixel may differ by

    def __str__(self) -> str:
        return f"{self.name}, {len(self.content)} bytes, {self.content[:40]!r}"


def gradient() -> np.ndarray:
    """A picture (H, W, 3) uint8 that no rotation or mirror leaves as it is."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 10, y * 15, 200 - 4 * x - 6 * y], -1).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def grey(levels: np.ndarray) -> np.ndarray:
    """Levels (H, W) as RGB (H, W, 3) uint8."""
    return np.repeat(levels.astype(np.uint8)[..., None], 3, -1)


FORMATS = {  # ending -> Pillow's format, its options, levels that it may be off
    "png": ("PNG", {}, 0),
    "apng": ("PNG", {}, 0),
    "ppm": ("PPM", {}, 0),
    "pnm": ("PPM", {}, 0),
    "bmp": ("BMP", {}, 0),
    "tif": ("TIFF", {}, 0),
    "tiff": ("TIFF", {"compression": "tiff_lzw"}, 0),
    "tga": ("TGA", {}, 0),
    "webp": ("WEBP", {"lossless": True}, 0),
    "jp2": ("JPEG2000", {"irreversible": False}, 0),
    "jpg": ("JPEG", {"quality": 95}, LOSSY),
    "jpeg": ("JPEG", {"quality": 95, "progressive": True}, LOSSY),
    "jpe": ("JPEG", {"quality": 95}, LOSSY),
    "jfif": ("JPEG", {"quality": 95}, LOSSY),
    "avif": ("AVIF", {"quality": 95}, LOSSY),
}


def _formats() -> Iterator[ImageFile]:
    picture = Image.fromarray(gradient())
    levels = gradient()[..., 0]
    for ending, (form, options, off) in FORMATS.items():
        content = encoded(picture, form, **options)
        for name in (f"x.{ending}", f"X.{ending.upper()}"):
            yield ImageFile(name, content, ACCEPT, gradient(), off)
        for other in ("png", "jpg", "tif", "webp"):
            yield ImageFile(f"x.{other}", content, EITHER, gradient(), off)
    yield ImageFile("x.pgm", encoded(Image.fromarray(levels), "PPM"), ACCEPT, grey(levels))
    bits = Image.fromarray(levels > 100)
    yield ImageFile("x.pbm", encoded(bits, "PPM"), ACCEPT, grey((levels > 100) * 255))
    few = picture.quantize(8)
    for ending, form in (("gif", "GIF"), ("png", "PNG"), ("bmp", "BMP"), ("tif", "TIFF")):
        content = encoded(few, form)
        yield ImageFile(f"x.{ending}", content, ACCEPT, np.asarray(few.convert("RGB")))
    for ending in ("png", "tif", "bmp", "gif"):
        content = encoded(bits, FORMATS.get(ending, ("GIF", {}, 0))[0])
        yield ImageFile(f"x.{ending}", content, ACCEPT, grey((levels > 100) * 255))


def _animations() -> Iterator[ImageFile]:
    first = Image.fromarray(gradient()).quantize(8).convert("RGB")
    later = [Image.new("RGB", first.size, color) for color in ("red", "blue")]
    for ending, form, options in (
        ("gif", "GIF", {}),
        ("png", "PNG", {}),
        ("apng", "PNG", {}),
        ("webp", "WEBP", {"lossless": True}),
        ("tif", "TIFF", {}),
    ):
        content = encoded(first, form, save_all=True, append_images=later, **options)
        yield ImageFile(f"x.{ending}", content, ACCEPT, np.asarray(first))


def _depths() -> Iterator[ImageFile]:
    """16-bit levels are scaled; of 32-bit and float ones nobody knows the scale."""
    levels = (np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) * 170).astype(np.uint16)
    wanted = grey(np.round(levels / 257))
    colour = np.stack([levels, levels[::-1], levels[:, ::-1]], -1)
    wanted_colour = np.round(colour / 257).astype(np.uint8)
    for ending in ("png", "tif", "tiff", "pgm"):
        content = cv2.imencode(f".{ending}", levels)[1].tobytes()
        yield ImageFile(f"x.{ending}", content, ACCEPT, wanted, 1)
        dark = cv2.imencode(f".{ending}", levels // 256)[1].tobytes()  # no level above 255
        yield ImageFile(f"x.{ending}", dark, ACCEPT, wanted * 0, 1)
    for ending, expect in (("png", ACCEPT), ("tif", EITHER), ("ppm", EITHER)):
        content = cv2.imencode(f".{ending}", colour[..., ::-1])[1].tobytes()
        yield ImageFile(f"x.{ending}", content, expect, wanted_colour, 1)
    for mode, kind in (("I", np.int32), ("F", np.float32)):
        content = encoded(Image.fromarray(levels.astype(kind) * 3, mode=mode), "TIFF")
        yield ImageFile("x.tif", content, REFUSE)
    yield ImageFile("x.tif", encoded(Image.fromarray(levels / np.float32(65535)), "TIFF"), REFUSE)
    pgm = f"P2 {WIDTH} 1 1000\n" + " ".join(str(40 * n) for n in range(WIDTH)) + "\n"
    wanted = grey(np.round(np.arange(WIDTH)[None] * 40 / 1000 * 255))
    yield ImageFile("x.pgm", pgm.encode(), EITHER, wanted, 1)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) of so much opacity (H, W) of 255, laid on white."""
    share = alpha[..., None] / 255
    return np.round(colours * share + 255 * (1 - share)).astype(np.uint8)


def _colours() -> Iterator[ImageFile]:
    """Transparency is laid on white; other colour spaces become RGB."""
    picture, levels = gradient(), gradient()[..., 0]
    alpha = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    rgba = Image.fromarray(np.dstack([picture, alpha]))
    for ending, options in (("png", {}), ("tif", {}), ("webp", {"lossless": True, "exact": True})):
        content = encoded(rgba, FORMATS[ending][0], **options)
        yield ImageFile(f"x.{ending}", content, ACCEPT, on_white(picture, alpha), 1)
    pale = encoded(Image.fromarray(np.dstack([levels, alpha]), mode="LA"), "PNG")
    yield ImageFile("x.png", pale, ACCEPT, on_white(grey(levels), alpha), 1)
    few = Image.fromarray(picture).quantize(8)
    index, colours = np.asarray(few), np.asarray(few.convert("RGB"))
    for ending in ("png", "gif"):
        content = encoded(few, ending.upper(), transparency=2)
        wanted = on_white(colours, np.where(index == 2, 0, 255))
        yield ImageFile(f"x.{ending}", content, ACCEPT, wanted, 1)
    shares = bytes([0, 100, 200, 255, 50, 30, 20, 10])
    wanted = on_white(colours, np.frombuffer(shares, np.uint8)[index])
    yield ImageFile("x.png", encoded(few, "PNG", transparency=shares), ACCEPT, wanted, 1)
    content = encoded(Image.fromarray(levels), "PNG", transparency=int(levels[0, 5]))
    wanted = on_white(grey(levels), np.where(levels == levels[0, 5], 0, 255))
    yield ImageFile("x.png", content, ACCEPT, wanted, 1)
    key = tuple(int(level) for level in picture[3, 5])
    content = encoded(Image.fromarray(picture), "PNG", transparency=key)
    wanted = on_white(picture, np.where((picture == picture[3, 5]).all(-1), 0, 255))
    yield ImageFile("x.png", content, ACCEPT, wanted, 1)
    ink = np.dstack([picture, alpha // 2])
    wanted = np.round((255 - ink[..., :3].astype(float)) * (255 - ink[..., 3:]) / 255)
    content = encoded(Image.fromarray(ink, mode="CMYK"), "TIFF")
    yield ImageFile("x.tif", content, ACCEPT, wanted.astype(np.uint8), 2)
    content = encoded(Image.fromarray(ink, mode="CMYK"), "JPEG", quality=98)
    yield ImageFile("x.jpg", content, ACCEPT, wanted.astype(np.uint8), LOSSY)
    lab = Image.fromarray(picture, mode="LAB")
    yield ImageFile("x.tif", encoded(lab, "TIFF"), EITHER)


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


def _orientations() -> Iterator[ImageFile]:
    """EXIF says how a camera was held; the picture is shown as it was seen."""
    picture = Image.fromarray(gradient())
    for number in (*TURNS, 0, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = number
        wanted = np.ascontiguousarray(TURNS.get(number, TURNS[1])(gradient()))
        for ending in ("png", "jpg", "webp", "tif", "avif"):
            form, options, off = FORMATS[ending]
            content = encoded(picture, form, exif=exif.tobytes(), **options)
            avif = ending == "avif"  # which has turns of its own
            yield ImageFile(
                f"x.{ending}", content, EITHER if avif else ACCEPT, None if avif else wanted, off
            )


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png(width: int, height: int, content: bytes = b"", before: bytes = b"") -> bytes:
    """A PNG file whose header claims a size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + before + data


def _bombs(rng: random.Random) -> Iterator[ImageFile]:
    """Headers that claim 60,000 x 60,000 pixels, none at all, or texts of a gigabyte."""
    picture, big = Image.fromarray(gradient()), 60_000
    jpeg = bytearray(encoded(picture, "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", big, big)
    bmp = bytearray(encoded(picture, "BMP"))
    bmp[18:26] = struct.pack("<ii", big, big)
    gif = bytearray(encoded(picture.quantize(8), "GIF"))
    gif[6:10] = struct.pack("<HH", big, big)
    tga = bytearray(encoded(picture, "TGA"))
    tga[12:16] = struct.pack("<HH", big, big)
    tiff = bytearray(encoded(picture, "TIFF"))
    for old in (WIDTH, HEIGHT):
        tiff = bytearray(tiff.replace(struct.pack("<HHII", 256, 4, 1, old), b""))
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 100_000_000))
    wide = chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(100_000_000)))
    yield ImageFile("x.png", png(big, big), REFUSE)
    yield ImageFile("x.png", png(2**31 - 1, 2**31 - 1), REFUSE)
    yield ImageFile("x.png", png(0, 0), REFUSE)
    yield ImageFile("x.png", png(WIDTH, HEIGHT), REFUSE)
    rows = b"".join(b"\0" + row.tobytes() for row in gradient())
    yield ImageFile("x.png", png(WIDTH, HEIGHT, rows), ACCEPT, gradient())
    yield ImageFile("x.png", png(WIDTH, HEIGHT, rows, text), EITHER, gradient())
    yield ImageFile("x.png", png(WIDTH, HEIGHT, rows, wide), EITHER, gradient())
    yield ImageFile("x.jpg", bytes(jpeg), REFUSE)
    yield ImageFile("x.bmp", bytes(bmp), REFUSE)
    yield ImageFile("x.gif", bytes(gif), EITHER)
    yield ImageFile("x.tga", bytes(tga), REFUSE)
    yield ImageFile("x.tif", bytes(tiff), EITHER)
    for head in (
        b"P6 60000 60000 255\n",
        b"P5 0 0 255\n",
        b"P6 -1 5 255\n",
        b"P3 99999999999 1 1\n",
    ):
        yield ImageFile("x.ppm", head + bytes(100), REFUSE)
    info = PngImagePlugin.PngInfo()
    for number in range(2000):
        info.add_text(f"key{number}", "x" * 100)
    content = encoded(picture, "PNG", pnginfo=info)
    yield ImageFile("x.png", content, EITHER, gradient())
    for name, content in _no_images(rng):
        yield ImageFile(name, content, REFUSE)


def _no_images(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 16\nshowpage\n%%EOF\n"
    for ending in ("png", "jpg", "tif", "bmp", "webp", "ppm", "gif", "jp2", "avif"):
        yield f"x.{ending}", b""
        yield f"x.{ending}", b"\0"
        yield f"x.{ending}", b"no picture at all\n"
        yield f"x.{ending}", script
        yield f"x.{ending}", rng.randbytes(200)
        yield f"x.{ending}", b"<svg xmlns='http://www.w3.org/2000/svg'/>"


def _damaged(rng: random.Random) -> Iterator[ImageFile]:
    """Cut off, with bytes changed, and with a right beginning and noise behind it."""
    for ending, (form, options, off) in FORMATS.items():
        content = encoded(Image.fromarray(gradient()), form, **options)
        name = f"x.{ending}"
        for share in (0.05, 0.2, 0.5, 0.8, 0.95):
            yield ImageFile(name, content[: int(len(content) * share)], EITHER, gradient(), off)
        for _ in range(6):
            changed = bytearray(content)
            for _ in range(rng.randint(1, 8)):
                changed[rng.randrange(min(len(changed), 120))] = rng.randrange(256)
            yield ImageFile(name, bytes(changed), EITHER)
        for keep in (12, 26, 60):
            yield ImageFile(name, content[:keep] + rng.randbytes(300), EITHER)


@functools.cache
def image_files() -> list[ImageFile]:
    """All of them, in an order that never changes."""
    rng = random.Random("images")
    listed = [*_formats(), *_animations(), *_depths(), *_colours(), *_orientations()]
    return [*listed, *_bombs(rng), *_damaged(rng)]
