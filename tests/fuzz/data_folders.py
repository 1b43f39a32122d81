"""Image folders of every layout, with the classes and counts that they have."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.fuzz.ends import ACCEPT, EITHER, REFUSE
from tests.fuzz.image_files import gradient

Make = Callable[[Path], None]
HOSTILE = (  # names of classes and folders that a screen, a page or a spreadsheet could obey
    *("$x_1$", "[red]", "[bold", "a\nb", "=cmd()", "+1", "-1", "@x", "\x1b[31m", "<b onload=x>"),
    *("a|b`c`", "a,b", '"a"', "a\tb", "猫", "قط"),
    *("🐈", "e\u0301", "\u202eabc", "x" * 250, " x ", "%s"),
    *("{0}", "\\", "NaN", "null", "1e3", "010", "true"),
    *("_a_", "*a*", "#", "~", "&amp;", "a:b", "'"),
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """An image folder and what listing it should give."""

    make: Make
    expect: str
    classes: tuple[str, ...] | None = None
    train: int | None = None  # images
    names: tuple[str, ...] = ()  # a refusal says one of these


def image(path: Path, shade: int = 0) -> None:
    """Write a small picture, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(gradient() + shade).save(path)


def plain(root: Path, classes: tuple[str, ...] = ("a", "b"), train: int = 4, val: int = 2) -> None:
    """Write a right folder: so many images of each class in each split."""
    for split, count in (("train", train), ("val", val)):
        for name in classes:
            for number in range(count):
                image(root / split / name / f"{number}.png", number)


def beside(add: Make) -> Make:
    """A right folder with something added to it."""

    def make(root: Path) -> None:
        plain(root)
        add(root)

    return make


def _with(*paths: str) -> Make:
    """Something in the training folder of class a that is no image, or is one, as its name says."""

    def add(root: Path) -> None:
        for path in paths:
            target = root / "train" / "a" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.suffix.lower() == ".png" and not target.name.startswith("._"):
                image(target)
            else:
                target.write_bytes(b"no picture")

    return beside(add)


def _linked(root: Path) -> None:
    plain(root / "elsewhere")
    plain(root)
    (root / "train" / "a" / "more").symlink_to(root / "elsewhere" / "train" / "a")


def _linked_class(root: Path) -> None:
    plain(root, ("a",))
    plain(root / "elsewhere")
    for split in ("train", "val"):
        (root / split / "b").symlink_to(root / "elsewhere" / split / "b")


def _linked_root(root: Path) -> None:
    plain(root.with_name("elsewhere"))
    root.symlink_to("elsewhere")


def _socket(path: Path) -> None:
    where = os.getcwd()
    os.chdir(path.parent)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)
    os.chdir(where)


def _without(path: str) -> Make:
    """A right folder that lacks a file or a folder."""

    def take(root: Path) -> None:
        for each in sorted((root / path).rglob("*"), reverse=True):
            each.rmdir() if each.is_dir() else each.unlink()
        (root / path).rmdir()

    return beside(take)


def _only_text(root: Path) -> None:
    _without("train/a")(root)
    (root / "train" / "a").mkdir()
    (root / "train" / "a" / "x.txt").write_text("x")


def _train_is_a_file(root: Path) -> None:
    _without("train")(root)
    (root / "train").write_text("x")


def _link_to_pipe(root: Path) -> None:
    os.mkfifo(root / "train" / "a" / "pipe")
    (root / "train" / "a" / "x.png").symlink_to("pipe")


AB, FOUR = ("a", "b"), 8  # the classes of a right folder, and the images of its training split
LAYOUTS = {
    "right": Layout(plain, ACCEPT, AB, FOUR),
    "a link to it": Layout(_linked_root, ACCEPT, AB, FOUR),
    "upper case": Layout(_with("X.PNG"), ACCEPT, AB, FOUR + 1),
    "deeper": Layout(_with("b/c/d/x.png"), ACCEPT, AB, FOUR + 1),
    "other files": Layout(_with("x.txt", "x", "x.heic", "x.svg", "x.png.txt"), ACCEPT, AB, FOUR),
    "system's files": Layout(_with("Thumbs.db", ".DS_Store", "._x.png"), ACCEPT, AB, FOUR),
    "a hidden image": Layout(_with(".x.png"), ACCEPT, AB, FOUR),
    "checkpoints": Layout(_with(".ipynb_checkpoints/x.png"), ACCEPT, AB, FOUR),
    "thumbnails": Layout(_with("@eaDir/x.png"), ACCEPT, AB, FOUR),
    "a Mac's": Layout(_with("__MACOSX/x.png"), ACCEPT, AB, FOUR),
    "checkpoints as a class": Layout(
        beside(lambda root: image(root / "train/.ipynb_checkpoints/x.png")), ACCEPT, AB, FOUR
    ),
    "hidden as a class": Layout(
        beside(lambda root: image(root / "val/.hidden/x.png")), ACCEPT, AB, FOUR
    ),
    "a Mac's as a class": Layout(
        beside(lambda root: image(root / "train/__MACOSX/x.png")), ACCEPT, AB, FOUR
    ),
    "a file beside classes": Layout(
        beside(lambda root: (root / "train/x.txt").write_text("x") and None), ACCEPT, AB, FOUR
    ),
    "a folder x.jpg": Layout(
        beside(lambda root: (root / "train/a/x.jpg").mkdir()), ACCEPT, AB, FOUR
    ),
    "a folder x.jpg with an image": Layout(
        beside(lambda root: image(root / "train/a/x.jpg/y.png")), ACCEPT, AB, FOUR + 1
    ),
    "linked folder": Layout(_linked, ACCEPT, AB, FOUR + 4),
    "linked class": Layout(_linked_class, ACCEPT, AB, FOUR),
    "linked image": Layout(
        beside(lambda root: (root / "train/a/x.png").symlink_to("1.png")), ACCEPT, AB, FOUR + 1
    ),
    "link to its folder": Layout(
        beside(lambda root: (root / "train/a/x").symlink_to(".")), ACCEPT, AB, FOUR
    ),
    "link to a folder above": Layout(
        beside(lambda root: (root / "train/a/x").symlink_to("../..")), EITHER, AB
    ),
    "link to itself": Layout(
        beside(lambda root: (root / "train/a/x").symlink_to("x")), EITHER, AB, FOUR
    ),
    "link x.png to itself": Layout(
        beside(lambda root: (root / "train/a/x.png").symlink_to("x.png")), EITHER, AB, FOUR
    ),
    "link to nothing": Layout(
        beside(lambda root: (root / "train/a/x.png").symlink_to("gone.png")), EITHER, AB, FOUR
    ),
    "class that is a link to nothing": Layout(
        beside(lambda root: (root / "train/c").symlink_to("gone")), EITHER, AB, FOUR
    ),
    "pipe x.png": Layout(
        beside(lambda root: os.mkfifo(root / "train/a/x.png")), EITHER, AB, FOUR, ("x.png",)
    ),
    "link x.png to a pipe": Layout(
        beside(_link_to_pipe),
        EITHER,
        AB,
        FOUR,
        ("x.png",),
    ),
    "pipe as a class": Layout(
        beside(lambda root: os.mkfifo(root / "train/c")), ACCEPT, AB, FOUR
    ),
    "socket x.png": Layout(
        beside(lambda root: _socket(root / "train/a/x.png")), EITHER, AB, FOUR, ("x.png",)
    ),
    "bytes for a name": Layout(
        beside(lambda root: image(root / "train/a" / os.fsdecode(b"\xff\xfe.png"))),
        EITHER,
        AB,
        FOUR + 1,
    ),
    "a long name": Layout(_with("x" * 240 + ".png"), ACCEPT, AB, FOUR + 1),
    "a name of two lines": Layout(_with("a\nb.png"), ACCEPT, AB, FOUR + 1),
    "a name with escapes": Layout(_with("\x1b[31m.png"), ACCEPT, AB, FOUR + 1),
    "a dot at the end": Layout(_with("x.png."), ACCEPT, AB, FOUR),
    "numbers": Layout(
        lambda root: plain(root, ("1", "10", "2")), ACCEPT, ("1", "10", "2"), 12
    ),
    "cases": Layout(lambda root: plain(root, ("B", "a")), ACCEPT, ("B", "a"), 8),
    "one class": Layout(lambda root: plain(root, ("a",)), REFUSE),
    "no class": Layout(
        lambda root: [(root / split).mkdir(parents=True) for split in ("train", "val")] and None,
        REFUSE,
    ),
    "images without a class": Layout(
        lambda root: [image(root / split / "1.png") for split in ("train", "val")] and None,
        REFUSE,
    ),
    "no split": Layout(lambda root: image(root / "a" / "1.png"), REFUSE, names=("train",)),
    "no val": Layout(_without("val"), REFUSE, names=("val",)),
    "no train": Layout(_without("train"), REFUSE, names=("train",)),
    "nothing": Layout(lambda root: root.mkdir(), REFUSE),
    "not there": Layout(lambda root: None, REFUSE, names=("photos",)),
    "a file": Layout(lambda root: root.write_text("x") and None, REFUSE, names=("photos",)),
    "a pipe": Layout(lambda root: os.mkfifo(root), REFUSE, names=("photos",)),
    "a link to nothing": Layout(lambda root: root.symlink_to("gone"), REFUSE, names=("photos",)),
    "a loop": Layout(lambda root: root.symlink_to("photos"), REFUSE, names=("photos",)),
    "train is a file": Layout(
        _train_is_a_file,
        REFUSE,
        names=("train",),
    ),
    "a class in train alone": Layout(
        beside(lambda root: image(root / "train/c/1.png")), REFUSE, names=("'c'", "c")
    ),
    "a class in val alone": Layout(
        beside(lambda root: image(root / "val/c/1.png")), REFUSE, names=("'c'", "c")
    ),
    "an empty class": Layout(
        beside(lambda root: [(root / s / "c").mkdir() for s in ("train", "val")] and None),
        REFUSE,
        names=("c",),
    ),
    "a class of text": Layout(_only_text, REFUSE, names=("a",)),
    "bytes for a class": Layout(
        lambda root: plain(root, ("a", os.fsdecode(b"\xff\xfe"))), EITHER, None, 8
    ),
    **{
        f"a class {name!r}": Layout(
            lambda root, name=name: plain(root, ("a", name)),
            ACCEPT,
            tuple(sorted(("a", name))),
            8,
        )
        for name in HOSTILE
    },
}  # fmt: skip
