"""Published annotations of Pascal Context become the PNGs and lists that are read."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mixbench.data.label_maps import open_labelled
from mixbench.data.pascal_context import convert

TRAIN, VAL = (2008000002, 2010006086), (2008000007,)


def published(root, labels, zipped=True):
    """PyTorch-Encoding's files of these label maps by number, and their photographs."""
    place = root / "VOCdevkit" / "VOC2010"
    (place / "JPEGImages").mkdir(parents=True)
    for split, numbers in (("train", TRAIN), ("val", VAL)):
        maps = {number: Image.fromarray(labels[number]) for number in reversed(numbers)}
        file = place / f"{split}.pth"
        torch.save(maps, file, _use_new_zipfile_serialization=zipped)
        for number in numbers:
            name = f"{number // 10**6}_{number % 10**6:06}"
            height, width = labels[number].shape
            Image.new("RGB", (width, height)).save(place / "JPEGImages" / f"{name}.jpg")
    return place


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    known = [*range(60), 255]
    return {number: rng.choice(known, (9, 12)).astype(np.uint8) for number in (*TRAIN, *VAL)}


@pytest.mark.parametrize("zipped", [True, False])  # the published files are of an early torch
def test_maps_are_read_back_as_they_were(zipped, labels, tmp_path):
    published(tmp_path, labels, zipped)
    with pytest.raises(ValueError, match=r"python -m mixbench\.data\.pascal_context"):
        open_labelled(tmp_path)
    assert convert(tmp_path) == {"train": 2, "val": 1}
    data = open_labelled(tmp_path)
    names = [image.name for image, _ in data.train.pairs]
    assert names == ["2008_000002.jpg", "2010_006086.jpg"]
    for source, numbers in ((data.train, TRAIN), (data.val, VAL)):
        for index, number in enumerate(numbers):
            assert np.array_equal(np.asarray(source.mask(index)), labels[number])


class Runs:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize("content", [{2008000007: Runs()}, {2008000007: 3}, [1], "gone", "damaged"])
def test_what_is_no_label_map_is_refused_and_nothing_runs(content, labels, tmp_path, capsys):
    place = published(tmp_path, labels)
    file = place / "val.pth"
    if content == "gone":
        file.unlink()
    elif content == "damaged":
        file.write_bytes(b"damaged")
    else:
        torch.save(content, file)
    with pytest.raises(ValueError, match=r"val\.pth"):
        convert(tmp_path)
    assert "code ran" not in capsys.readouterr().out
    assert not (place / "ImageSets").exists()


def test_a_number_of_no_class_is_refused(labels, tmp_path):
    labels[VAL[0]][0, 0] = 60
    published(tmp_path, labels)
    with pytest.raises(ValueError, match="2008_000007 is no label map of 60 classes"):
        convert(tmp_path)


def test_it_is_a_command(labels, tmp_path):
    published(tmp_path, labels)
    command = [sys.executable, "-m", "mixbench.data.pascal_context"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2 images to train, 1 images to val\n")
    assert subprocess.run(command, capture_output=True).returncode == 1
