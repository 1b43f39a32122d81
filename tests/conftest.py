"""Fixtures that several rooms share."""

import itertools

import pytest

from tests.support.photographs import picture


@pytest.fixture(scope="session")
def photographs():
    """Writes an image folder: root/train/<class>/ and root/val/<class>/ with so many images each.

    They have many sizes; each folder's number 1 is grey and its number 2 has a palette, and every
    third is a JPEG, the others PNG.
    """

    def write(root, train=13, val=2, classes=("a", "b")):
        seeds = itertools.count()
        for split, count in (("train", train), ("val", val)):
            for name in classes:
                (root / split / name).mkdir(parents=True)
                for i in range(count):
                    image = picture(next(seeds), 40 + 7 * i, 60 - 2 * i)
                    image = image.convert({1: "L", 2: "P"}.get(i, "RGB"))
                    image.save(root / split / name / f"{i}.{'png' if i % 3 else 'jpg'}")
        return root

    return write
