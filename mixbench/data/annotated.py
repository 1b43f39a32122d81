"""Images with masks of their objects, to hold labels against: scenes, COCO, Pascal VOC, folders."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from mixbench.data.coco import VAL, check_sizes, read_annotations
from mixbench.data.folders import listing_hash, open_split, sizes
from mixbench.data.images import open_image
from mixbench.data.masks import ENDING, FOLDER, UNKNOWN, check_objects, is_object, read_mask
from mixbench.data.scene_area import SCENES as DRAWN
from mixbench.data.scene_area import area_of, is_scenes
from mixbench.data.scenes import CLASSES, SceneSource
from mixbench.data.sources import Source, Subset
from mixbench.mix import hashed_seed

KINDS = ("scenes", "scenes:LOW,HIGH", "coco:DIR", "voc:DIR", "folder:DIR")
OBJECTS = ("union", "largest")
SCENES = 500  # of which the label error is


class Annotated(Source):
    """Photographs whose classes are not the model's, each with its instances' masks."""

    def __init__(self, files: Sequence[Path], objects: str, masks: Sequence[tuple[str, int]]):
        """`masks` name what the masks are read from, each with a number that its content has."""
        self.files, self.objects = list(files), objects
        self.labels = [0] * len(self.files)
        self.fingerprint = listing_hash([*sizes(self.files), *masks])

    def load(self, index: int) -> Image.Image:
        return open_image(self.files[index])

    def image_name(self, index: int) -> str:
        return self.files[index].name

    def has_mask(self, index: int) -> bool:
        return True

    def mask(self, index: int) -> Image.Image:
        instances, unknown = self.instances(index)
        return Image.fromarray(of_instances(instances, self.objects, unknown))

    @abstractmethod
    def instances(self, index: int) -> tuple[list[np.ndarray], np.ndarray]:
        """The masks (H, W) bool of the objects in image `index`, and where nobody knows."""


def of_instances(instances: Sequence[np.ndarray], objects: str, unknown: np.ndarray) -> np.ndarray:
    """Instances (H, W) bool as a mask (H, W) uint8: 1 on their union or on the largest of them."""
    mask = np.where(unknown, UNKNOWN, 0).astype(np.uint8)
    chosen = list(instances)
    if objects == "largest" and chosen:
        chosen = [max(chosen, key=np.count_nonzero)]  # of equal ones the first
    for instance in chosen:
        mask[instance] = 1
    return mask


def instances_of(numbers: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The masks (H, W) bool of each number of a mask (H, W), and where nobody knows."""
    known = [number for number in np.unique(numbers) if 0 < number != UNKNOWN]
    return [numbers == number for number in known], numbers == UNKNOWN


class Coco(Annotated):
    """A split of COCO's instances, `<split>/` and `annotations/instances_<split>.json`.

    Images without an object are left out; crowds are where nobody knows.
    """

    def __init__(self, root: Path, objects: str, split: str = VAL):
        self._annotations = read_annotations(root, split)
        self._rows = np.unique(self._annotations.rows[~self._annotations.crowd])
        file = self._annotations.file
        if not len(self._rows):
            raise ValueError(f"{file} has no object that is no crowd")
        files = [self._annotations.images[row].file for row in self._rows]
        super().__init__(files, objects, [(file.name, int(self._annotations.digest[:16], 16))])
        check_sizes(self._annotations, self._rows)

    def instances(self, index: int) -> tuple[list[np.ndarray], np.ndarray]:
        row = int(self._rows[index])
        chosen = self._annotations.of_image(row)
        masks, crowd = self._annotations.masks(row, chosen), self._annotations.crowd[chosen]
        return list(masks[~crowd]), masks[crowd].any(0)


class Voc(Annotated):
    """The validation images of Pascal VOC 2012 with masks, in `VOCdevkit/VOC2012` of a folder."""

    folder: ClassVar[str] = "SegmentationObject"

    def __init__(self, root: Path, objects: str):
        from torchvision.datasets import VOCSegmentation

        try:
            voc = VOCSegmentation(str(root), image_set="val")
        except RuntimeError:
            raise ValueError(
                f"{root} is not Pascal VOC: expected VOCdevkit/VOC2012/ with JPEGImages/, "
                f"{self.folder}/ and ImageSets/Segmentation/val.txt"
            ) from None
        self._masks = [Path(mask).parents[1] / self.folder / Path(mask).name for mask in voc.masks]
        super().__init__([Path(image) for image in voc.images], objects, sizes(self._masks))

    def instances(self, index: int) -> tuple[list[np.ndarray], np.ndarray]:
        return instances_of(np.asarray(read_mask(self._masks[index])))


class VocClasses(Voc):
    """As Voc, with the number of a class on each pixel in place of an object's."""

    folder: ClassVar[str] = "SegmentationClass"

    def mask(self, index: int) -> Image.Image:
        return read_mask(self._masks[index])


class Largest(Subset):
    """A source whose mask is the number with most pixels alone."""

    def __init__(self, source: Source):
        super().__init__(source, range(len(source.labels)))

    def mask(self, index: int) -> Image.Image | None:
        mask = super().mask(index)
        if mask is None:
            return None
        instances, unknown = instances_of(np.asarray(mask))
        return Image.fromarray(of_instances(instances, "largest", unknown))


class Merged(Subset):
    """A source whose mask is 1 on every object."""

    def __init__(self, source: Source):
        super().__init__(source, range(len(source.labels)))
        self.fingerprint = source.fingerprint

    def mask(self, index: int) -> Image.Image | None:
        mask = super().mask(index)
        if mask is None:
            return None
        numbers = np.asarray(mask)
        return Image.fromarray(np.where(is_object(mask), 1, numbers).astype(np.uint8))


def open_annotated(text: str, objects: str, image_size: int) -> tuple[Source, tuple[str, ...]]:
    """The source that --masks names, and the classes of its labels; () where they have none.

    'scenes' are drawn at image_size pixels. ValueError names what was expected and what is there.
    """
    kind, root = kind_and_folder(text, "--masks", KINDS)
    if kind == DRAWN:
        scenes = SceneSource("label error", SCENES, image_size, area_of(text))
        scenes.stream = hashed_seed("label error")  # the column's
        return scenes, CLASSES
    if kind == "coco":
        return Coco(root, objects), ()
    if kind == "voc":
        return Voc(root, objects), ()
    source, classes = open_split(root, "val")
    check_objects(source, "val")
    masks = sorted((root / FOLDER / "val").rglob(f"*{ENDING}"))
    source.fingerprint = listing_hash([(source.fingerprint, 0), *sizes(masks)])
    return (source if objects == "union" else Largest(source)), classes


def open_label_maps(text: str, image_size: int) -> tuple[Source, tuple[str, ...]]:
    """As open_annotated; a mask has VOC's classes, of other kinds 1 on any object; 255: unknown."""
    kind, root = kind_and_folder(text, "--masks", KINDS)
    if kind == "voc":
        return VocClasses(root, "union"), ()
    source, classes = open_annotated(text, "union", image_size)
    return (Merged(source) if kind == "folder" else source), classes


def kind_and_folder(text: str, flag: str, kinds: Sequence[str]) -> tuple[str, Path]:
    """The parts of a text such as `coco:DIR`; ValueError where it is none of `kinds`.

    Drawn scenes have no folder.
    """
    if is_scenes(text):
        area_of(text)
        return DRAWN, Path()
    kind, colon, place = text.partition(":")
    known = kind + (":DIR" if colon else "")
    if known not in kinds or bool(colon) != bool(place):
        raise ValueError(f"{flag} must be one of {', '.join(kinds)}, not {text!r}")
    if colon and not Path(place).is_dir():
        raise ValueError(f"{flag} {text}: there is no folder {place}")
    return kind, Path(place)


def annotated_name(text: str) -> str:
    """What people call the images that --masks names: the kind, and the last folder."""
    kind, colon, place = text.partition(":")
    return f"{kind}{colon}{Path(place).resolve().name if place else ''}"
