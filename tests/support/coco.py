"""COCO's layout, and masks and photographs to fill it."""

import json

import numpy as np
import pytest
from PIL import Image


def photograph(path, height=20, width=30, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def box(top, left, bottom, right, height=20, width=30):
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def write_coco(root):
    """Three images: two objects of which one lies over a crowd, one object, none."""
    mask_tools = pytest.importorskip("pycocotools.mask")
    annotations = []

    def add(image, mask, crowd=0):
        code = mask_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": 1,
                "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
                "area": int(mask.sum()),
                "bbox": [0, 0, 1, 1],
                "iscrowd": crowd,
            }
        )

    add(7, box(0, 0, 5, 5))
    add(7, box(10, 10, 20, 30))
    add(7, box(0, 0, 8, 8), crowd=1)
    add(9, box(3, 3, 4, 9))
    images = [{"id": i, "file_name": f"{i:012}.jpg", "height": 20, "width": 30} for i in (9, 7, 11)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    for i in (7, 9, 11):
        photograph(root / "val2017" / f"{i:012}.jpg", seed=i)
    return root


CATEGORIES = [{"id": 90, "name": "bus"}, {"id": 1, "name": "ant"}, {"id": 18, "name": "cow"}]
CLASSES = ("ant", "cow", "bus")  # by id, which is also by label, from 1 on


def polygon(top, left, bottom, right):
    """A rectangle of pixels as COCO has it: x and y of its corners."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(mask):
    """A mask as COCO has crowds: pixels in turn outside and inside, column by column."""
    flat = np.concatenate([[False], mask.flatten(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    ends = [0, *changes.tolist()]
    counts = [end - begin for begin, end in zip(ends, [*changes.tolist(), mask.size], strict=True)]
    return {"size": list(mask.shape), "counts": counts[: None if counts[-1] else -1]}


def packed(mask):
    """A mask as COCO's results have it: run lengths as text."""
    mask_tools = pytest.importorskip("pycocotools.mask")
    code = mask_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": code["size"], "counts": code["counts"].decode()}


def annotation(image, category, corners, form=polygon, crowd=0):
    """An object that fills top, left, bottom, right of a 20x30 image."""
    top, left, bottom, right = corners
    mask = box(*corners)
    return {
        "image_id": image,
        "category_id": category,
        "segmentation": polygon(*corners) if form is polygon else form(mask),
        "area": int(mask.sum()),
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": crowd,
    }


def write_detection(root):
    """Images of 20x30 pixels: five to train, 12 without an object and 13 with a crowd alone.

    Three to validate: 21 with two objects and a crowd, 22 with one, 23 without any.
    """
    flat = {**annotation(10, 18, (2, 2, 8, 8)), "bbox": [2, 2, 6, 0.5]}
    outside = {**annotation(11, 18, (2, 2, 8, 8)), "bbox": [29.5, 2, 6, 6]}
    empty = {**annotation(11, 1, (2, 2, 8, 8)), "segmentation": packed(box(0, 0, 0, 0))}
    train = [
        annotation(11, 90, (4, 6, 14, 20)),
        annotation(10, 1, (0, 0, 10, 10), packed),
        annotation(10, 90, (5, 12, 20, 30), run_lengths),
        annotation(10, 1, (10, 0, 20, 10), run_lengths, crowd=1),
        *(flat, outside, empty),
        annotation(13, 90, (0, 0, 20, 30), run_lengths, crowd=1),
        annotation(14, 18, (1, 1, 19, 29)),
        annotation(14, 90, (3, 3, 9, 9)),
    ]
    val = [
        annotation(22, 90, (2, 2, 12, 22), packed),
        annotation(21, 1, (0, 0, 8, 8)),
        annotation(21, 18, (10, 10, 20, 30), run_lengths),
        annotation(21, 1, (0, 15, 8, 30), run_lengths, crowd=1),
    ]
    (root / "annotations").mkdir(parents=True)
    for split, ids, annotations in (
        ("train2017", (14, 10, 12, 13, 11), train),
        ("val2017", (22, 23, 21), val),
    ):
        content = {
            "images": [
                {"id": i, "file_name": f"{i:012}.jpg", "height": 20, "width": 30} for i in ids
            ],
            "annotations": [{**each, "id": i + 1} for i, each in enumerate(annotations)],
            "categories": CATEGORIES,
        }
        write_annotations(root, split, content)
        for i in ids:
            photograph(root / split / f"{i:012}.jpg", seed=i)
    return root


def annotations_of(root, split):
    return json.loads((root / "annotations" / f"instances_{split}.json").read_text())


def write_annotations(root, split, content):
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
