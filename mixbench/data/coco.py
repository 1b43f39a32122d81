"""COCO's layout: `<split>/` with images, and `annotations/instances_<split>.json`.

Masks of objects are kept as COCO packs them, run lengths in a few bytes, and are drawn when an
image is asked for.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mixbench.data.folders import listing_hash, sizes
from mixbench.data.images import image_size, open_image
from mixbench.data.sources import Source
from mixbench.errors import reason
from mixbench.files import read_json

TRAIN, VAL = "train2017", "val2017"
LEAST = 1.0  # pixels that a box is wide and high within the image, where it is not degenerate


def mask_tools() -> Any:
    """pycocotools' masks; ValueError names what to install."""
    try:
        from pycocotools import mask
    except ImportError:
        raise ValueError(
            "COCO's masks need pycocotools: pip install 'mixbench[det]', or take other images"
        ) from None
    return mask


class CocoImage(NamedTuple):
    """An image that an annotation file lists; height and width are in pixels."""

    id: int
    file: Path
    height: int
    width: int


class Category(NamedTuple):
    """A category that an annotation file lists."""

    id: int
    name: str


class _Annotation(NamedTuple):
    image: int  # its place among the images by id
    label: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    code: bytes
    usable: bool


@dataclass(frozen=True, eq=False)
class Annotations:
    """What an annotation file says of N objects, image by image.

    A label is 1 for the category with the lowest id, then 2, ..., K. A code is a mask's run
    lengths as COCO packs them. Usable is what is no crowd, has a mask that is not empty, and a box
    that is at least LEAST wide and high within the image.
    """

    root: Path
    file: Path
    digest: str  # of the file's bytes
    images: tuple[CocoImage, ...]  # by id
    categories: tuple[Category, ...]  # by id
    rows: np.ndarray  # (N,) int64, ascending: the image
    labels: np.ndarray  # (N,) int64
    boxes: np.ndarray  # (N, 4) float64, left, top, width and height in pixels, as in the file
    areas: np.ndarray  # (N,) float64, in pixels, as in the file
    crowd: np.ndarray  # (N,) bool
    usable: np.ndarray  # (N,) bool
    codes: np.ndarray  # (N,) of bytes

    def of_image(self, row: int) -> slice:
        """The annotations of image `row`."""
        first, end = np.searchsorted(self.rows, (row, row + 1))
        return slice(int(first), int(end))

    def masks(self, row: int, of: np.ndarray | slice) -> np.ndarray:
        """The masks (n, H, W) bool of some annotations of image `row`."""
        size = [self.images[row].height, self.images[row].width]
        return unpacked([{"size": size, "counts": code} for code in self.codes[of]], size)

    def of_labels(self, labels: Sequence[int]) -> Annotations:
        """Those of some labels, which become 1, 2, ... in the order of `labels`."""
        renamed = np.zeros(len(self.categories) + 1, np.int64)
        renamed[list(labels)] = np.arange(1, len(labels) + 1)
        kept = renamed[self.labels] > 0
        arrays = ("rows", "boxes", "areas", "crowd", "usable", "codes")
        return dataclasses.replace(
            self,
            categories=tuple(self.categories[label - 1] for label in labels),
            labels=renamed[self.labels][kept],
            **{name: getattr(self, name)[kept] for name in arrays},
        )


def read_annotations(root: Path, split: str) -> Annotations:
    """The annotations of a split; ValueError says what is missing or wrong, and where."""
    file = root / "annotations" / f"instances_{split}.json"
    if not file.is_file():
        raise ValueError(f"{root} is not COCO: expected {file.relative_to(root)} and {split}/")
    mask_tools()
    content = read_json(file)
    categories = _listed(
        file, content, "categories", lambda each: Category(int(each["id"]), str(each["name"]))
    )
    images = _listed(
        file,
        content,
        "images",
        lambda each: CocoImage(
            int(each["id"]),
            root / split / str(each["file_name"]),
            int(each["height"]),
            int(each["width"]),
        ),
    )
    for kind, ids in (("image", images), ("category", categories)):
        _check_once(file, f"{kind} id", [each.id for each in ids])
    _check_once(file, "category name", [each.name for each in categories])
    for kind in ("images", "categories"):
        if not content[kind]:
            raise ValueError(f"{file} lists no {kind}")
    images, categories = sorted(images), sorted(categories)
    places = {image.id: place for place, image in enumerate(images)}
    labels = {category.id: place + 1 for place, category in enumerate(categories)}
    found = _listed(
        file, content, "annotations", lambda each: _annotation(each, images, places, labels)
    )
    found.sort(key=lambda each: each.image)  # stable: the file's order within an image
    codes = np.empty(len(found), object)
    codes[:] = [each.code for each in found]
    return Annotations(
        root=root,
        file=file,
        digest=sha256(file.read_bytes()).hexdigest(),
        images=tuple(images),
        categories=tuple(categories),
        rows=np.array([each.image for each in found], np.int64),
        labels=np.array([each.label for each in found], np.int64),
        boxes=np.array([each.box for each in found], np.float64).reshape(-1, 4),
        areas=np.array([each.area for each in found], np.float64),
        crowd=np.array([each.crowd for each in found], bool),
        usable=np.array([each.usable for each in found], bool),
        codes=codes,
    )


def _listed(file: Path, content: Any, name: str, read: Callable[[Any], Any]) -> list[Any]:
    """What `read` makes of each entry of a list in a file; ValueError names the entry."""
    entries = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError(f"{file} has no list of {name}: expected images, annotations, categories")
    result = []
    for place, entry in enumerate(entries):
        try:
            result.append(read(entry))
        except Exception as error:  # what a file holds may be anything, for pycocotools too
            number = entry.get("id") if isinstance(entry, Mapping) else None
            which = f"number {place + 1}" if number is None else f"with the id {number}"
            words = f"it has no {error}" if isinstance(error, KeyError) else reason(error)
            raise ValueError(f"{file}, of the {name} the one {which}: {words}") from None
    return result


def _check_once(file: Path, what: str, values: Sequence[int | str]) -> None:
    """ValueError where one of `values` comes twice."""
    for value, times in Counter(values).most_common(1):
        if times > 1:
            raise ValueError(f"{file} lists the {what} {value!r} twice: give each its own")


def _annotation(
    entry: Mapping[str, Any],
    images: Sequence[CocoImage],
    places: Mapping[int, int],
    labels: Mapping[int, int],
) -> _Annotation:
    """An entry of a file; KeyError where a key is missing, ValueError where a value is wrong."""
    if entry["image_id"] not in places:
        raise ValueError(f"the image {entry['image_id']} is not among the file's images")
    if entry["category_id"] not in labels:
        raise ValueError(f"the category {entry['category_id']} is not among the file's categories")
    place, crowd = places[entry["image_id"]], bool(entry.get("iscrowd", 0))
    image = images[place]
    box = np.asarray(entry["bbox"], np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"its bbox is left, top, width and height, not {entry['bbox']}")
    code, pixels = packed(entry["segmentation"], image.height, image.width)
    left, top, right, bottom = clipped(box[None], image.height, image.width)[0]
    large = min(right - left, bottom - top) >= LEAST
    area = float(entry.get("area", pixels))
    usable = bool(large and pixels and not crowd)
    left, top, width, height = box.tolist()
    label = labels[entry["category_id"]]
    return _Annotation(place, label, (left, top, width, height), area, crowd, code, usable)


def clipped(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes (n, 4) of left, top, width and height as left, top, right and bottom in the image."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    return np.clip(corners, 0, [width, height, width, height])


def packed(segmentation: Any, height: int, width: int) -> tuple[bytes, int]:
    """An annotation's mask as COCO packs it, and how many pixels it has.

    ValueError where polygons or run lengths are none, or of another image.
    """
    tools = mask_tools()
    if isinstance(segmentation, Mapping):
        counts, size = segmentation["counts"], list(segmentation["size"])
        if not isinstance(counts, list):
            counts = run_lengths(counts.encode() if isinstance(counts, str) else counts)
        if size != [height, width] or sum(counts) != height * width or min(counts) < 0:
            raise ValueError(
                f"its run lengths are of {sum(counts)} pixels in {size[1]}x{size[0]}, and its "
                f"image has {width}x{height}"
            )
    elif segmentation == []:
        counts = [height * width]
    else:
        return _of_polygons(segmentation, height, width)
    code = tools.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return code["counts"], sum(counts[1::2])


def _of_polygons(segmentation: Any, height: int, width: int) -> tuple[bytes, int]:
    tools, side = mask_tools(), max(height, width)
    for polygon in segmentation:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(
                f"a polygon has {len(polygon)} numbers, and x and y of three points are six"
            )
        numbers = np.asarray(polygon, np.float64)
        if not (np.abs(numbers) <= 2 * side).all():  # also NaN; pycocotools walks along its edges
            raise ValueError(f"a polygon leaves its image of {width}x{height} far behind")
    code = tools.merge(tools.frPyObjects(segmentation, height, width))
    return code["counts"], int(tools.area(code))


def unpacked(codes: Sequence[Mapping[str, Any]], size: Sequence[int]) -> np.ndarray:
    """Masks (n, H, W) bool of run lengths that COCO packed; `size` is H and W."""
    if not codes:
        return np.zeros((0, *size), bool)
    return mask_tools().decode(list(codes)).transpose(2, 0, 1).astype(bool)


def run_lengths(code: bytes) -> list[int]:
    """The run lengths of a mask that COCO packed: six bits a character, differences from the third.

    pycocotools reads what is damaged as whatever lies in memory. Source: rleFrString of its
    maskApi.c. ValueError where the code ends within a number.
    """
    counts: list[int] = []
    value = shift = 0
    for byte in code:
        digit = byte - 48
        if not 0 <= digit < 64:
            raise ValueError(f"its run lengths have the character {chr(byte)!r}")
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & 0x20:
            continue
        if digit & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift or not counts:
        raise ValueError("its run lengths end within a number")
    return counts


@dataclass(frozen=True, eq=False)
class Instances:
    """The objects of an image of H x W pixels."""

    boxes: np.ndarray  # (n, 4) float32, left, top, right and bottom in pixels
    labels: np.ndarray  # (n,) int64, 1..K
    masks: np.ndarray  # (n, H, W) bool


@dataclass(frozen=True)
class LeftOut:
    """How much of a split is no part of it."""

    images: int  # without an object that is usable
    crowds: int
    degenerate: int  # objects without a pixel, or with a box below LEAST


class CocoInstances(Source):
    """Images with their objects; those without a usable one only where `empty`."""

    def __init__(self, annotations: Annotations, empty: bool):
        self.annotations = annotations
        rows = np.arange(len(annotations.images))
        with_one = np.unique(annotations.rows[annotations.usable])
        self.rows = rows if empty else with_one
        self.labels = [0] * len(self.rows)
        self.left_out = LeftOut(
            images=len(rows) - len(self.rows),
            crowds=int(annotations.crowd.sum()),
            degenerate=int((~annotations.crowd & ~annotations.usable).sum()),
        )
        listed = sizes([annotations.images[row].file for row in self.rows])
        chosen = " ".join(str(category.id) for category in annotations.categories)
        self.fingerprint = listing_hash([*listed, (annotations.digest, 0), (chosen, 0)])

    def load(self, index: int) -> Image.Image:
        return open_image(self._image(index).file)

    def size(self, index: int) -> tuple[int, int]:
        image = self._image(index)
        return image.width, image.height

    def image_name(self, index: int) -> str:
        return self._image(index).file.relative_to(self.annotations.root).as_posix()

    def instances(self, index: int) -> Instances:
        """The usable objects of image `index`, in the order of the file."""
        of, row = self.annotations, int(self.rows[index])
        chosen = of.of_image(row)
        chosen = chosen.start + np.flatnonzero(of.usable[chosen])
        image = of.images[row]
        boxes = clipped(of.boxes[chosen], image.height, image.width).astype(np.float32)
        return Instances(boxes, of.labels[chosen], of.masks(row, chosen))

    @property
    def counts(self) -> np.ndarray:
        """The usable objects of each class, (K,)."""
        labels = self.annotations.labels[self.annotations.usable]
        return np.bincount(labels, minlength=len(self.annotations.categories) + 1)[1:]

    def image_id(self, index: int) -> int:
        """The number that COCO's files call image `index` by."""
        return self._image(index).id

    def truth(self) -> dict[str, list[dict[str, Any]]]:
        """What COCO's evaluation compares predictions with: also crowds, which it passes over.

        In the form of COCO's files, with their ids of images and categories.
        """
        of = self.annotations
        sides = [[image.height, image.width] for image in of.images]
        annotations = [
            {
                "id": number + 1,  # 0 would count as no match
                "image_id": of.images[row].id,
                "category_id": of.categories[of.labels[number] - 1].id,
                "bbox": of.boxes[number].tolist(),
                "area": float(of.areas[number]),
                "iscrowd": int(of.crowd[number]),
                "segmentation": {"size": sides[row], "counts": of.codes[number]},
            }
            for number, row in enumerate(of.rows)
        ]
        images = [
            {"id": of.images[row].id, "height": sides[row][0], "width": sides[row][1]}
            for row in self.rows
        ]
        categories = [{"id": each.id, "name": each.name} for each in of.categories]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _image(self, index: int) -> CocoImage:
        return self.annotations.images[self.rows[index]]


@dataclass(frozen=True)
class DetectionData:
    """A training and a validation split with the names of their classes; label k is the k-th."""

    name: str  # what people call it
    train: CocoInstances  # images with an object
    val: CocoInstances  # all images
    classes: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """What tells its content from other data's."""
        return " ".join((self.train.fingerprint, self.val.fingerprint, *self.classes))


def open_detection(root: Path) -> DetectionData:
    """The data in a folder of COCO's layout; ValueError says what is missing or wrong.

    The header of every image is read.
    """
    if not root.is_dir():
        raise ValueError(f"data directory not found: {root}")
    train, val = (read_annotations(root, split) for split in (TRAIN, VAL))
    if train.categories != val.categories:
        differing = sorted(set(train.categories) ^ set(val.categories))[0]
        raise ValueError(
            f"{train.file.name} and {val.file.name} of {root} list different categories, such as "
            f"{differing.name} with the id {differing.id}: both splits need the same"
        )
    data = _data(root.resolve().name, train, val)
    for source in (data.train, data.val):
        check_sizes(source.annotations, source.rows)
    return data


def _data(name: str, train: Annotations, val: Annotations) -> DetectionData:
    for of in (train, val):
        if not of.usable.any():
            names = ", ".join(each.name for each in of.categories[:5])
            raise ValueError(
                f"{of.file} has no usable object of {names}: each of its {len(of.labels)} is a "
                f"crowd, empty, or below {LEAST:g} pixel"
            )
    classes = tuple(category.name for category in train.categories)
    return DetectionData(
        name, CocoInstances(train, empty=False), CocoInstances(val, empty=True), classes
    )


def check_sizes(annotations: Annotations, rows: Iterable[int]) -> None:
    """ValueError where the file of one of these images is of another size than its annotations."""
    for row in rows:
        image = annotations.images[row]
        width, height = image_size(image.file)
        if (width, height) != (image.width, image.height):
            raise ValueError(
                f"{image.file} has {width}x{height} pixels, turned upright, and "
                f"{annotations.file.name} says {image.width}x{image.height}: correct one"
            )


def with_most_instances(data: DetectionData, count: int) -> DetectionData:
    """Data of the `count` classes that have most usable objects in training; others leave.

    The classes keep their order; of equal ones the first are taken. ValueError where validation
    has no object of them.
    """
    order = np.argsort(-data.train.counts, kind="stable")[:count]
    kept = [int(place) + 1 for place in np.sort(order)]
    train, val = (source.annotations.of_labels(kept) for source in (data.train, data.val))
    return _data(data.name, train, val)
