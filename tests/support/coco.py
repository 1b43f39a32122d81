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
