"""Images of every kind: loaded to the pixels that they hold, or refused by name."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.fuzz.ends import ACCEPT, Case, assert_right, broken_rules, changed, in_a_process, tree
from tests.fuzz.image_files import gradient, image_files
from tests.fuzz.loading import load

SAMPLE = range(2, len(image_files()), len(image_files()) // 40)


def wrong_pixels(end, file):
    """What is wrong with the pixels that were printed, as sentences."""
    if end.status != 0:
        return []
    shown = json.loads(end.stdout.splitlines()[-1])
    if shown["mode"] != "RGB":
        return [f"wrong result: an image of mode {shown['mode']}"]
    if file.pixels is None:
        return []
    height, width = file.pixels.shape[:2]
    pixels = np.array(shown["pixels"])
    if tuple(shown["size"]) != (width, height) or pixels.shape != file.pixels.shape:
        return [f"wrong result: size {shown['size']}, {pixels.shape}, not {(width, height)}"]
    off = np.abs(pixels - file.pixels).max()
    return [f"wrong result: a pixel is {off} levels off"] if off > file.off else []


def check(file, folder):
    for split in ("train", "val"):
        for name in ("a", "b"):
            (folder / "photos" / split / name).mkdir(parents=True)
            Image.fromarray(gradient()).save(folder / "photos" / split / name / "1.png")
    (folder / "photos" / "train" / "a" / file.name).write_bytes(file.content)
    before = tree(folder)
    case = Case((), file.expect, (file.name,))
    end = in_a_process(load, "photos", f"train/a/{file.name}", folder=folder, limit=case.limit)
    broken = broken_rules(end, case) or wrong_pixels(end, file)
    if file.expect != ACCEPT and "is not among the images" in end.stderr:
        broken = []
    assert_right([*broken, *changed(before, tree(folder))], file, end)


@pytest.mark.fuzz
@pytest.mark.parametrize("number", range(len(image_files())))
def test_every_image_file(number, tmp_path):
    check(image_files()[number], tmp_path / "case")


@pytest.mark.parametrize("number", SAMPLE)
def test_some_image_files(number, tmp_path):
    check(image_files()[number], tmp_path / "case")
