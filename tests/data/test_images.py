"""An image file as pixels: depths, orientation, transparency, and files that are none."""

import io
import os
import struct
import subprocess
import sys
import zlib
from contextlib import nullcontext
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from mixbench.data.datasets import ArraySource, open_data
from mixbench.data.folders import open_folder
from mixbench.data.images import image_size, open_image
from mixbench.data.sources import Subset, UnreadableImage

RAMP = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (8, 1))


def pixels(path):
    return np.asarray(open_image(path))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_are_scaled(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), RAMP)
    seen = pixels(tmp_path / name)
    assert seen.shape == (8, 64, 3) and (seen == seen[..., :1]).all()
    assert np.abs(seen[..., 0] - RAMP / 65535 * 255).max() <= 0.5


@pytest.mark.parametrize(
    ("array", "word"), [(RAMP.astype(np.int32), "32-bit"), (RAMP / np.float32(65535), "float")]
)
def test_pixels_without_a_known_white_are_refused(tmp_path, array, word):
    Image.fromarray(array).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImage, match=rf"a\.tif: its pixels are {word}"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path, orientation, ending):
    """The stored pixels are made by numpy from upright ones, as EXIF's standard has them."""
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # the top left quarter is white
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),  # shown after a quarter turn to the right
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    assert image_size(path) == (32, 16)
    assert np.abs(pixels(path).astype(int) - upright).max() < 40  # JPEG's ringing


def test_what_is_transparent_stands_on_white(tmp_path):
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 51))  # a fifth of red over white
    image.save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").tolist() == [[[255, 255, 255], [244, 204, 204]]]
    palette = Image.new("P", (1, 1))
    palette.putpalette([0, 0, 0])
    palette.save(tmp_path / "p.png", transparency=0)
    assert pixels(tmp_path / "p.png").tolist() == [[[255, 255, 255]]]


def chunk(kind, body):
    """A chunk of a PNG file, as its standard has it."""
    crc = zlib.crc32(kind + body)
    return len(body).to_bytes(4, "big") + kind + body + crc.to_bytes(4, "big")


def png(path, *, header, row, before=b"", after=b""):
    """A PNG file of one row, with chunks before and after its pixels."""
    parts = [chunk(b"IHDR", header), before, chunk(b"IDAT", zlib.compress(b"\0" + row)), after]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("bits", "row", "transparent", "seen"),
    [
        (16, struct.pack(">3H", 0, 257, 258), 257, [0, 255, 1]),
        (16, struct.pack(">3H", 51400, 65535, 0), 0, [200, 255, 255]),
        (8, bytes([0, 100, 200]), 100, [0, 255, 200]),
        (4, bytes([0x05, 0xA0]), 5, [0, 255, 170]),
        (2, bytes([0b00011000]), 1, [0, 255, 170]),
        (1, bytes([0b10100000]), 0, [255, 255, 255]),
    ],
)
def test_a_transparent_level_of_grey_is_white(tmp_path, bits, row, transparent, seen):
    header = struct.pack(">IIBBBBB", 3, 1, bits, 0, 0, 0, 0)
    transparency = chunk(b"tRNS", struct.pack(">H", transparent))
    png(tmp_path / "a.png", header=header, row=row, before=transparency)
    assert pixels(tmp_path / "a.png")[0].tolist() == [[level] * 3 for level in seen]


EXIF = "4d4d002a00000008" + "0001" + "0112" + "0003" + "00000001" + "{:04x}0000" + "00000000"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("place", ["before", "after", "xmp", "none"])
def test_a_size_is_read_without_pixels(tmp_path, monkeypatch, place, orientation):
    exif = chunk(b"eXIf", bytes.fromhex(EXIF.format(orientation)))
    xmp = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0tiff:Orientation="%d"' % orientation)
    chunks = {"before": {"before": exif}, "after": {"after": exif}, "xmp": {"after": xmp}}
    header = struct.pack(">IIBBBBB", 3, 1, 8, 0, 0, 0, 0)
    png(tmp_path / "a.png", header=header, row=bytes(3), **chunks.get(place, {}))
    upright = (1, 3) if place != "none" and orientation > 4 else (3, 1)
    assert open_image(tmp_path / "a.png").size == upright
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    assert image_size(tmp_path / "a.png") == upright


def test_a_large_photograph_is_no_warning(tmp_path):
    """Pillow warns of more than 89 million pixels, and refuses more than twice as many."""
    header = struct.pack(">IIBBBBB", 12000, 12000, 8, 0, 0, 0, 0)
    png(tmp_path / "a.png", header=header, row=b"")
    code = (
        "import sys, pathlib; from mixbench.data.images import image_size\n"
        "print(image_size(pathlib.Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(12000, 12000)\n", "")


def test_other_modes_become_rgb(tmp_path):
    Image.new("CMYK", (1, 1), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif").tolist() == [[[255, 0, 0]]]
    Image.new("1", (1, 1), 1).save(tmp_path / "b.png")
    assert pixels(tmp_path / "b.png").tolist() == [[[255, 255, 255]]]
    frames = [Image.new("RGB", (1, 1), (value, 0, 0)) for value in (255, 0)]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    assert pixels(tmp_path / "c.gif").tolist() == [[[255, 0, 0]]]


def claims_to_be_huge(path):
    Image.new("RGB", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[18:26] = (60000).to_bytes(4, "little") * 2
    path.write_bytes(content)


@pytest.mark.parametrize(
    "make",
    [
        claims_to_be_huge,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"BM" + bytes(40)),
        lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(60)),
        lambda path: path.write_bytes(b"RIFF\x00\x00\x00\x00WEBPVP8 "),
        lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        os.mkfifo,
        os.mkdir,
        lambda path: path.symlink_to(path.with_name("gone")),
    ],
)
def test_whatever_is_wrong_the_file_is_named(tmp_path, make):
    path = tmp_path / "x.bmp"
    make(path)
    for read in (open_image, image_size):
        if read is image_size and path.is_file() and b"%!PS" not in path.read_bytes()[:4]:
            continue  # a header may be read of a file whose pixels cannot
        with pytest.raises(UnreadableImage, match=r"cannot read image .*x\.bmp: ") as caught:
            read(path)
        assert len(str(caught.value)) < 500


def tree(root, names):
    """An image folder with small images of these names below each of four class folders."""
    for split in ("train", "val"):
        for label in ("a", "b"):
            for name in names:
                path = root / split / label / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 4)).save(path, "PNG")
    return root


def test_what_counts_as_an_image(tmp_path):
    counted = ["1.png", "10.jpg", "2.JFIF", "3.gif", "sub/4.avif", "x.jpg/5.tga"]
    left_out = [".x.png", "._1.png", "@eaDir/1.png", "__MACOSX/1.png", ".ipynb_checkpoints/1.png"]
    root = tree(tmp_path / "set", [*counted, *left_out])
    (root / "train" / ".cache").mkdir()
    (root / "train" / "a" / "notes.txt").write_text("")
    (root / "train" / "a" / "README").write_text("")
    data = open_folder(root)
    assert data.classes == ("a", "b")
    assert [data.train.image_name(i) for i in range(6)] == [f"train/a/{n}" for n in counted]
    assert len(data.val.labels) == 12
    assert data.remarks == (
        "left out: 2 files that are no images by name (1 .txt, 1 without an ending)",
    )


def test_links_are_followed_and_end(tmp_path):
    root = tree(tmp_path / "set", ["1.png"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.new("RGB", (4, 4)).save(elsewhere / "2.png")
    (root / "train/a/more").symlink_to(elsewhere)
    (root / "train/a/loop").symlink_to(root / "train")
    (root / "train/b/3.png").symlink_to(elsewhere / "2.png")
    data = open_folder(root)
    seen = {data.train.image_name(i) for i in range(len(data.train.labels))}
    assert {"train/a/1.png", "train/a/more/2.png", "train/b/1.png", "train/b/3.png"} <= seen
    (root / "train/b/gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"gone\.png: it is no regular file, or a link"):
        open_folder(root)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    root = tree(tmp_path / "set", ["1.png"])
    for name in ("turn", "turn.png"):
        (root / "train/a" / name).symlink_to(root / "train/a" / name)
        with pytest.raises(ValueError, match=rf"cannot read .*{name}: too many levels.*; .*remove"):
            open_folder(root)
        (root / "train/a" / name).unlink()
    (root / "train/turn").symlink_to(root / "train/turn")
    with pytest.raises(ValueError, match=r"cannot read .*turn: too many levels"):
        open_folder(root)
    (root / "train/turn").unlink()
    with pytest.raises(ValueError, match=r"cannot read .*x: file name too long; .* another --data"):
        open_folder(tmp_path / ("x" * 300))
    look = os.scandir

    def refuses(folder):
        if str(folder).endswith("b"):
            raise PermissionError(13, "Permission denied", str(folder))
        return look(folder)

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(ValueError, match=r"cannot read .*train.b: permission denied; make it"):
        open_folder(root)


def test_folders_that_lie_too_deep_are_a_sentence(tmp_path, monkeypatch):
    root = tree(tmp_path / "set", ["1.png"])

    def endless(*arguments):
        endless(*arguments)

    monkeypatch.setattr("mixbench.data.folders._walk", endless)
    with pytest.raises(ValueError, match="its folders lie too deep in one another"):
        open_folder(root)


def test_the_same_data_by_another_path_are_the_same(tmp_path):
    root = tree(tmp_path / "set", ["1.png", "2.png"])
    (tmp_path / "link").symlink_to(root)
    again = tree(tmp_path / "copy", ["1.png", "2.png"])
    first = open_folder(root).identity
    assert open_folder(tmp_path / "link").identity == open_folder(again).identity == first
    Image.new("RGB", (4, 4)).save(again / "train/a/3.png")
    assert open_folder(again).identity != first


def test_a_name_that_is_not_utf_8_is_an_image(tmp_path):
    root = tree(tmp_path / "set", ["1.png"])
    os.rename(root / "train/a/1.png", os.fsencode(root / "train/a") + b"/\xff.png")
    data = open_folder(root)
    assert data.train.image_name(0) == "train/a/\udcff.png"
    assert data.train.load(0).size == (4, 4)


def test_one_class_and_limits_below_the_classes_are_refused(tmp_path):
    root = tree(tmp_path / "set", ["1.png"])
    with pytest.raises(ValueError, match=r"--limit-val 1 leaves classes out.*take 2 or more"):
        open_data(data=root, limit_val=1)
    for split in ("train", "val"):
        (root / split / "b" / "1.png").unlink()
        (root / split / "b").rmdir()
    with pytest.raises(ValueError, match="one class folder, 'a'"):
        open_folder(root)


def test_every_image_is_checked_or_left_out(tmp_path):
    from mixbench.data.check import check_images

    root = tree(tmp_path / "set", ["1.png", "2.png", "3.png"])
    first = check_images(open_folder(root)).identity
    assert first.content is not None and check_images(open_folder(root)).identity == first
    whole = (root / "train/a/2.png").read_bytes()
    (root / "train/a/2.png").write_bytes(whole[:40] + bytes(len(whole) - 40))
    assert open_folder(root).identity.train == first.train  # name and size are the same
    with pytest.raises(ValueError, match=r"1 of 12 images cannot be read: .*a.2\.png.*--skip"):
        check_images(open_folder(root))
    left = check_images(open_folder(root), skip=True)
    assert [left.train.image_name(i) for i in range(2)] == ["train/a/1.png", "train/a/3.png"]
    assert left.train.labels == [0, 0, 1, 1, 1] and left.identity.train != first.train
    assert left.remarks == ("read all 12 images, and left out 1 that cannot be read",)
    Image.new("RGB", (4, 4), "red").save(root / "train/a/2.png")
    assert check_images(open_folder(root)).identity.content != first.content


def test_a_split_that_never_had_a_class_loses_none(tmp_path):
    """As Hugging Face's may, whose validation images are of some of the classes."""
    from mixbench.data.check import check_images

    data = open_folder(tree(tmp_path / "set", ["1.png", "2.png"]))
    some = replace(data, val=Subset(data.val, [0, 1]))
    assert check_images(some).val.labels == [0, 0]
    for file in (tmp_path / "set" / "val" / "a").iterdir():
        file.write_bytes(b"none")
    with pytest.raises(ValueError, match="no image of class 'a' can be read"):
        check_images(some, skip=True)


def test_every_image_is_read_once_and_counted(tmp_path, monkeypatch):
    from mixbench.data.check import check_images

    data = open_folder(tree(tmp_path / "set", ["1.png", "2.png"]))
    opened, ticks = [], []
    look = io.open

    def counted(file, *arguments, **named):
        opened.append(str(file))
        return look(file, *arguments, **named)

    monkeypatch.setattr(io, "open", counted)  # pathlib's
    monkeypatch.setattr("builtins.open", counted)  # Pillow's
    check_images(data, counting=lambda *_: nullcontext(lambda *count: ticks.append(count)))
    expected = [source.path(i) for source in (data.train, data.val) for i in range(4)]
    assert sorted(opened) == sorted(map(str, expected))
    assert ticks == [(done, 8) for done in range(1, 9)]


def test_images_of_torchvision_are_named_by_their_split():
    class Dataset:
        targets = (0, 1)

    assert ArraySource(Dataset(), "cifar10", "train").image_name(1) == "train/1"
    assert ArraySource(Dataset(), "cifar10", "val").fingerprint == "cifar10-val-2"


def test_headers_of_validation_images_are_read_before_training(tmp_path):
    from mixbench.data.check import check_headers

    root = tree(tmp_path / "set", ["1.png", "2.png"])
    check_headers(open_folder(root).val)
    (root / "val/b/2.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"val.b.2\.png.*\n--check-data"):
        check_headers(open_folder(root).val)
    check_headers(open_folder(root).val, seconds=0)  # the first alone
