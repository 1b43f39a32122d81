"""Images with the number of a class on each pixel: folders, Pascal Context, COCO's semantic PNGs.

Three layouts are known. In each a label map is a PNG of one channel, as large as its image:

* `VOCdevkit/VOC2010/`: Pascal Context, 60 classes;
* `semantic/{train,val}2017/*.png` beside `{train,val}2017/`: COCO's numbers of categories, which
  `semantic/categories.json` names; 0 is unlabelled;
* any other folder: `{train,val}/**` with `masks/{train,val}/**.png` and `classes.txt`, whose line n
  names the number n, from 0 on.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mixbench.data.folders import EXTENSIONS, listing_hash, sizes
from mixbench.data.images import image_size, open_image
from mixbench.data.masks import ENDING, FOLDER
from mixbench.data.sources import Source, UnreadableMask
from mixbench.errors import reason
from mixbench.files import read_json

IGNORED = 255  # the label of a pixel that counts nowhere
MOST_CLASSES = IGNORED
NAMES = "classes.txt"
PASCAL, SETS = Path("VOCdevkit/VOC2010"), Path("ImageSets/SegmentationContext")
MAPS = "SegmentationClassContext"
SEMANTIC = "semantic"
LAYOUTS = (
    f"{PASCAL}/ (Pascal Context), {SEMANTIC}/categories.json (COCO), or train/, val/, "
    f"{FOLDER}/ and {NAMES}"
)
# fmt: off
PASCAL_CONTEXT = (  # the official numbers, 0 on
    "background", "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat",
    "book", "bottle", "building", "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth",
    "computer", "cow", "cup", "curtain", "dog", "door", "fence", "floor", "flower", "food",
    "grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse", "person",
    "plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign",
    "sky", "snow", "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall",
    "water", "window", "wood",
)
# fmt: on


class LabelMaps(Source):
    """Images of which each pixel has a class; `mask` is its label map.

    numbers: (65536,) what stands in a file -> the class, IGNORED, or -1 for what must not be there.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], numbers: np.ndarray, root: Path):
        self.pairs, self.numbers, self.root = list(pairs), numbers, root
        self.labels = [0] * len(pairs)
        listed = [*sizes([image for image, _ in pairs]), *sizes([labels for _, labels in pairs])]
        digest = hashlib.sha256(numbers.tobytes()).hexdigest()
        self.fingerprint = listing_hash([*listed, (digest, 0)])

    def load(self, index: int) -> Image.Image:
        return open_image(self.pairs[index][0])

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self.pairs[index][0])

    def image_name(self, index: int) -> str:
        return self.pairs[index][0].relative_to(self.root).as_posix()

    def has_mask(self, index: int) -> bool:
        return True

    def mask(self, index: int) -> Image.Image:
        """The classes of image `index`, IGNORED where none is given.

        UnreadableMask where the file cannot be read, ValueError where a number is no class's or
        the map has another size than its image.
        """
        file = self.pairs[index][1]
        found = _read(file)
        labels = self.numbers[found]
        if (labels < 0).any():
            number = int(found[labels < 0].min())
            raise ValueError(
                f"{file} has the label {number}, which is none of the classes: name it "
                f"in {NAMES}, or write {IGNORED} where a pixel must not count"
            )
        height, width = labels.shape
        if (width, height) != self.size(index):
            across, down = self.size(index)
            raise ValueError(
                f"{file} has {width}x{height} pixels, and its image {across}x{down}: a label map "
                "is as large as its image, turned upright"
            )
        return Image.fromarray(labels.astype(np.uint8))


def _read(file: Path) -> np.ndarray:
    """The numbers of a PNG of one channel, (H, W); of a palette the numbers, not the colours."""
    try:
        with Image.open(file, formats=("PNG",)) as image:
            if len(image.getbands()) != 1:
                bands = ", ".join(image.getbands())
                raise ValueError(f"it has the channels {bands}, and labels are one of numbers")
            numbers = np.asarray(image)
    except Exception as error:  # decoders raise anything for a damaged file
        raise UnreadableMask(f"cannot read the labels {file}: {reason(error, 200)}") from None
    return numbers.astype(np.uint16)


@dataclass(frozen=True)
class LabelledData:
    """A training and a validation split with the names of their classes, in order."""

    name: str  # what people call it
    train: LabelMaps
    val: LabelMaps
    classes: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """What tells its content from other data's."""
        return " ".join((self.train.fingerprint, self.val.fingerprint, *self.classes))


def open_labelled(root: Path) -> LabelledData:
    """The data in a folder of one of the LAYOUTS; ValueError says what is missing."""
    if not root.is_dir():
        raise ValueError(f"data directory not found: {root}")
    if (root / PASCAL).is_dir():
        return _pascal_context(root)
    if (root / SEMANTIC / "categories.json").is_file():
        return _coco(root)
    return _folder(root)


def _pascal_context(root: Path) -> LabelledData:
    place = root / PASCAL
    splits = {}
    for split in ("train", "val"):
        listing = place / SETS / f"{split}.txt"
        if not listing.is_file():
            raise ValueError(
                f"{root} is not Pascal Context: expected {PASCAL / SETS}/{split}.txt; where "
                f"{split}.pth lies there, run python -m mixbench.data.pascal_context {root}"
            )
        names = listing.read_text(encoding="utf-8").split()
        images = [place / "JPEGImages" / f"{name}.jpg" for name in names]
        splits[split] = _maps(images, place / MAPS, place / "JPEGImages")
    numbers = _numbers({number: number for number in range(len(PASCAL_CONTEXT))})
    return _data("pascal-context", root, splits, PASCAL_CONTEXT, numbers)


def _coco(root: Path) -> LabelledData:
    file = root / SEMANTIC / "categories.json"
    try:
        named = {int(each["id"]): str(each["name"]) for each in read_json(file)["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} names no categories: {reason(error)}") from None
    numbers = _numbers({number: place for place, number in enumerate(sorted(named))})
    numbers[0] = IGNORED
    splits = {}
    for split in ("train", "val"):
        images = _images(root / f"{split}2017")
        splits[split] = _maps(images, root / SEMANTIC / f"{split}2017", root / f"{split}2017")
    classes = tuple(named[number] for number in sorted(named))
    return _data(root.resolve().name, root, splits, classes, numbers)


def _folder(root: Path) -> LabelledData:
    if not (root / NAMES).is_file():
        raise ValueError(f"{root} has no labels of pixels that are known: expected {LAYOUTS}")
    lines = (root / NAMES).read_text(encoding="utf-8").rstrip().splitlines()
    classes = tuple(line.strip() for line in lines)
    if "" in classes:
        raise ValueError(f"{root / NAMES} line {classes.index('') + 1} is empty: name the class")
    splits = {
        split: _maps(_images(root / split), root / FOLDER / split, root / split)
        for split in ("train", "val")
    }
    numbers = _numbers({number: number for number in range(len(classes))})
    return _data(root.resolve().name, root, splits, classes, numbers)


def _images(folder: Path) -> list[Path]:
    """The images below a folder, sorted; ValueError without any."""
    found = sorted(file for file in folder.rglob("*") if file.name.lower().endswith(EXTENSIONS))
    if not found:
        raise ValueError(f"{folder} holds no images ({', '.join(EXTENSIONS)})")
    return found


def _maps(images: Sequence[Path], folder: Path, beside: Path) -> list[tuple[Path, Path]]:
    """Each image with its label map, of the same path in `folder`; ValueError where one lacks."""
    pairs = [(image, (folder / image.relative_to(beside)).with_suffix(ENDING)) for image in images]
    if not pairs:
        raise ValueError(f"no image is listed for {folder}")
    for image in images:
        if not image.is_file():
            raise ValueError(f"{image} is listed, and there is no such file")
    lonely = [(image, labels) for image, labels in pairs if not labels.is_file()]
    if lonely:
        image, labels = lonely[0]
        raise ValueError(
            f"{len(lonely)} of {len(pairs)} images have no label file, such as {image}: expected "
            f"{labels}"
        )
    return pairs


def _numbers(classes: dict[int, int]) -> np.ndarray:
    """The table of LabelMaps, by the number in a file."""
    table = np.full(2**16, -1, np.int16)
    for number, label in classes.items():
        table[number] = label
    table[IGNORED] = IGNORED
    return table


def _data(
    name: str,
    root: Path,
    splits: dict[str, list[tuple[Path, Path]]],
    classes: tuple[str, ...],
    numbers: np.ndarray,
) -> LabelledData:
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise ValueError(
            f"{root} names {len(classes)} classes: segmentation takes 2 to {MOST_CLASSES}"
        )
    if len(set(classes)) < len(classes):
        twice = next(each for each in classes if classes.count(each) > 1)
        raise ValueError(f"{root} names the class {twice!r} twice: give each a name of its own")
    train, val = (LabelMaps(splits[split], numbers, root) for split in ("train", "val"))
    return LabelledData(name, train, val, classes)


def pixels_by_class(maps: LabelMaps, num_classes: int) -> np.ndarray:
    """The pixels of each class over all label maps, (K,); every map is read.

    ValueError as of `LabelMaps.mask`.
    """
    counts = np.zeros(IGNORED + 1, np.int64)
    for index in range(len(maps.labels)):
        counts += np.bincount(np.asarray(maps.mask(index)).ravel(), minlength=IGNORED + 1)
    return counts[:num_classes]


def with_most_pixels(data: LabelledData, pixels: np.ndarray, count: int) -> LabelledData:
    """Data of the `count` classes that have most of `pixels`, (K,); others become IGNORED.

    The classes keep their order; of equal ones the first are taken.
    """
    kept = np.sort(np.argsort(-pixels, kind="stable")[:count])
    labels = np.full(IGNORED + 1, IGNORED, np.int16)
    labels[kept] = np.arange(len(kept))
    numbers = data.train.numbers
    numbers = np.where(numbers < 0, numbers, labels[np.maximum(numbers, 0)])
    train, val = (LabelMaps(maps.pairs, numbers, maps.root) for maps in (data.train, data.val))
    classes = tuple(data.classes[number] for number in kept)
    return dataclasses.replace(data, train=train, val=val, classes=classes)
