"""Label maps on the disk: three layouts, and what is wrong with them in a sentence."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from mixbench.data.label_maps import (
    IGNORED,
    PASCAL_CONTEXT,
    open_labelled,
    pixels_by_class,
    with_most_pixels,
)
from mixbench.data.sources import UnreadableImage
from tests.support.coloured import CLASSES, COLOURS, write_folder, write_pascal_context


def coco(root, numbers):
    """COCO's layout with the categories 1, 7 and 200; every pixel of an image has one number."""
    categories = [{"id": number, "name": f"c{number}"} for number in (200, 1, 7)]
    for split in ("train2017", "val2017"):
        for folder in (root / split, root / "semantic" / split):
            folder.mkdir(parents=True)
        for number in numbers:
            Image.new("RGB", (6, 4)).save(root / split / f"{number:012}.jpg")
            Image.new("L", (6, 4), number).save(root / "semantic" / split / f"{number:012}.png")
    (root / "semantic" / "categories.json").write_text(json.dumps({"categories": categories}))
    return root


def test_a_folder_has_the_colour_of_each_label(tmp_path):
    data = open_labelled(write_folder(tmp_path / "x"))
    assert (data.name, data.classes, len(data.train.labels)) == ("x", CLASSES, 8)
    for index in range(4):
        image, labels = np.asarray(data.val.load(index)), np.asarray(data.val.mask(index))
        distance = np.abs(image.astype(int) - COLOURS[labels].astype(int))
        assert labels.max() == 3 and distance.max() <= 20


def test_pascal_context_has_its_classes_and_splits(tmp_path):
    data = open_labelled(write_pascal_context(tmp_path))
    assert len(PASCAL_CONTEXT) == len(set(PASCAL_CONTEXT)) == 60
    assert (data.name, data.classes) == ("pascal-context", PASCAL_CONTEXT)
    assert (len(data.train.labels), len(data.val.labels)) == (3, 2)
    assert data.val.image_name(0).endswith("JPEGImages/2008_000003.jpg")
    file = tmp_path / "VOCdevkit/VOC2010/SegmentationClassContext/2008_000003.png"
    assert np.array_equal(np.asarray(data.val.mask(0)), np.asarray(Image.open(file)))


def test_cocos_numbers_are_classes_in_their_order_and_0_is_ignored(tmp_path):
    data = open_labelled(coco(tmp_path, (0, 1, 7, 200)))
    assert data.classes == ("c1", "c7", "c200")
    values = [set(np.unique(data.train.mask(index))) for index in range(4)]
    assert values == [{IGNORED}, {0}, {1}, {2}]


def test_pixels_are_counted_by_class_and_the_most_are_kept(tmp_path):
    data = open_labelled(write_folder(tmp_path))
    maps = [np.asarray(data.train.mask(index)) for index in range(8)]
    counts = np.array([sum((each == label).sum() for each in maps) for label in range(4)])
    assert np.array_equal(pixels_by_class(data.train, 4), counts)
    kept = with_most_pixels(data, np.array([5, 9, 1, 7]), 2)
    assert kept.classes == ("green", "grey") and kept.fingerprint != data.fingerprint
    renamed = np.full(256, IGNORED)
    renamed[[1, 3]] = 0, 1
    for index, labels in enumerate(maps):
        assert np.array_equal(np.asarray(kept.train.mask(index)), renamed[labels])


def test_a_palette_counts_by_its_numbers(tmp_path):
    root = write_folder(tmp_path)
    file = root / "masks/val/0.png"
    labels = np.asarray(Image.open(file))
    image = Image.fromarray(labels, "P")
    image.putpalette([9, 9, 9, 200, 0, 7, 200, 0, 7, 9, 9, 9])
    image.save(file)
    assert np.array_equal(np.asarray(open_labelled(root).val.mask(0)), labels)


def test_other_content_has_another_fingerprint(tmp_path):
    root = write_folder(tmp_path)
    before = open_labelled(root).fingerprint
    assert open_labelled(root).fingerprint == before
    (root / "classes.txt").write_text("red\ngreen\nblue\nyellow\n")
    assert open_labelled(root).fingerprint != before


def remove(file):
    return lambda root: (root / file).unlink()


def paint(number):
    return lambda root: Image.new("L", (56, 40), number).save(root / "masks/val/0.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("masks/val/0.png"), "1 of 4 images have no label file, such as .*val/0.png"),
        (remove("classes.txt"), "has no labels of pixels that are known: expected VOCdevkit"),
        (
            lambda root: (root / "classes.txt").write_text("red\n"),
            "names 1 classes: segmentation takes 2 to 255",
        ),
        (
            lambda root: (root / "classes.txt").write_text("a\n\nb\n"),
            "classes.txt line 2 is empty: name the class",
        ),
        (
            lambda root: (root / "classes.txt").write_text("a\nb\na\nc\n"),
            "names the class 'a' twice",
        ),
        (paint(4), "0.png has the label 4, which is none of the classes: name it in classes.txt"),
        (
            lambda root: Image.new("L", (56, 41)).save(root / "masks/val/0.png"),
            "0.png has 56x41 pixels, and its image 56x40",
        ),
        (
            lambda root: Image.new("RGB", (56, 40)).save(root / "masks/val/0.png"),
            "cannot read the labels .*0.png: .*channels R, G, B",
        ),
        (
            lambda root: (root / "masks/val/0.png").write_bytes(b"PNG"),
            "cannot read the labels .*0.png",
        ),
    ],
)
def test_what_is_wrong_is_said(damage, message, tmp_path):
    root = write_folder(tmp_path)
    damage(root)
    with pytest.raises((ValueError, UnreadableImage), match=message):
        pixels_by_class(open_labelled(root).val, 4)


def test_16_bits_are_not_cut(tmp_path):
    root = write_folder(tmp_path)
    numbers = np.full((40, 56), 258, np.uint16)  # 2 in its last byte
    Image.fromarray(numbers).save(root / "masks/val/0.png")
    with pytest.raises(ValueError, match=re.escape("has the label 258")):
        open_labelled(root).val.mask(0)


def test_255_never_counts(tmp_path):
    root = write_folder(tmp_path)
    paint(255)(root)
    assert pixels_by_class(open_labelled(root).val, 4).sum() == 3 * 56 * 40


def test_pascal_context_without_its_lists(tmp_path):
    root = write_pascal_context(tmp_path)
    (root / "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt").unlink()
    with pytest.raises(ValueError, match=r"expected .*SegmentationContext/val\.txt"):
        open_labelled(root)


def test_a_listed_image_that_is_not_there(tmp_path):
    root = write_pascal_context(tmp_path)
    (root / "VOCdevkit/VOC2010/JPEGImages/2008_000001.jpg").unlink()
    with pytest.raises(ValueError, match=r"2008_000001\.jpg is listed, and there is no such file"):
        open_labelled(root)
