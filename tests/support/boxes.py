"""Folders of images with truths, in the layouts of ImageNet's boxes and Pascal VOC's classes."""

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n02102040")
TEXT = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"


def image_net(root, boxes, height=20, width=30, pixels=None):
    """`val/<wnid>/ILSVRC2012_val_0000000N.JPEG`, classes in turn, with `bbox/val/`.

    Boxes are lists of (xmin, ymin, xmax, ymax) as the files have them; the folder.
    """
    (root / "bbox" / "val").mkdir(parents=True)
    for number, each in enumerate(boxes, 1):
        stem, wnid = f"ILSVRC2012_val_{number:08}", WNIDS[(number - 1) % 2]
        (root / "val" / wnid).mkdir(parents=True, exist_ok=True)
        image = np.zeros((height, width, 3), np.uint8) if pixels is None else pixels[number - 1]
        Image.fromarray(image).save(root / "val" / wnid / f"{stem}.JPEG", format="PNG")
        objects = "".join(
            f"<object><name>{wnid}</name><bndbox>{TEXT.format(*box)}</bndbox></object>"
            for box in each
        )
        size = f"<size><width>{image.shape[1]}</width><height>{image.shape[0]}</height></size>"
        file = root / "bbox" / "val" / f"{stem}.xml"
        file.write_text(f"<annotation><filename>{stem}</filename>{size}{objects}</annotation>")
    return root


def voc(root, images, labels):
    """`VOCdevkit/VOC2012` with palette images of classes and no instances; the folder."""
    base = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / name).mkdir(parents=True)
    names = [f"2007_{number:06}" for number in range(len(images))]
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("\n".join(names) + "\n")
    for name, pixels, numbers in zip(names, images, labels, strict=True):
        Image.fromarray(pixels).save(base / "JPEGImages" / f"{name}.jpg", format="PNG")
        palette = Image.fromarray(numbers).convert("P")
        palette.putdata(numbers.ravel().tolist())
        palette.putpalette(list(range(255, -1, -1)) * 3)  # colours are not the numbers
        palette.save(base / "SegmentationClass" / f"{name}.png")
    return root
