"""Folders of images whose pixels have the colour of their class."""

import numpy as np
from PIL import Image

CLASSES = ("red", "green", "blue", "grey")
COLOURS = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200), (128, 128, 128)], np.uint8)


def coloured(rng, height=40, width=56, cell=8):
    """A photograph and its labels, blocks of random classes, (H, W, 3) and (H, W) uint8."""
    blocks = rng.integers(len(CLASSES), size=(-(-height // cell), -(-width // cell)))
    labels = blocks.repeat(cell, 0).repeat(cell, 1)[:height, :width].astype(np.uint8)
    noise = rng.integers(-20, 21, size=(height, width, 3))
    return (COLOURS[labels] + noise).clip(0, 255).astype(np.uint8), labels


def write_folder(root, train=8, val=4, names=CLASSES, seed=0, **size):
    """root/{train,val}/<n>.png with masks/ and classes.txt."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for folder in (root / split, root / "masks" / split):
            folder.mkdir(parents=True)
        for number in range(count):
            image, labels = coloured(rng, **size)
            Image.fromarray(image).save(root / split / f"{number}.png")
            Image.fromarray(labels).save(root / "masks" / split / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    return root


def write_pascal_context(root, train=3, val=2):
    """Pascal Context's layout, with labels 0 to 59 and 255 in random blocks."""
    place = root / "VOCdevkit" / "VOC2010"
    folders = ("JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext")
    for folder in folders:
        (place / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, names in (("train", range(train)), ("val", range(train, train + val))):
        names = [f"2008_{number:06}" for number in names]
        (place / folders[2] / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            labels = rng.choice([*range(60), 255], size=(6, 8)).repeat(8, 0).repeat(8, 1)
            pixels = rng.integers(256, size=(48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / folders[0] / f"{name}.jpg")
            Image.fromarray(labels.astype(np.uint8)).save(place / folders[1] / f"{name}.png")
    return root
