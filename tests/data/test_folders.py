"""Image folders: what is listed, what is refused, and that looking does not import torch."""

import subprocess
import sys

import pytest

from mixbench.data.datasets import DATASETS, open_data
from mixbench.data.folders import check_folder, check_splits, open_folder
from mixbench.data.sources import balanced


def test_listing(photographs, tmp_path):
    root = photographs(tmp_path / "pets", train=4, val=3, classes=("dog", "cat"))
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    data = open_folder(root)
    assert (data.name, data.classes) == ("pets", ("cat", "dog"))
    assert data.train.labels == [0] * 4 + [1] * 4 and data.val.labels == [0] * 3 + [1] * 3
    assert data.train.size(1) == data.train.load(1).size == (47, 58)
    assert data.train.load(1).mode == data.train.load(2).mode == "RGB"
    again = open_folder(root)
    assert again.train.fingerprint == data.train.fingerprint != data.val.fingerprint
    (root / "train" / "cat" / "0.jpg").rename(root / "train" / "cat" / "9.jpg")
    assert open_folder(root).train.fingerprint != data.train.fingerprint


def test_what_is_missing_is_named(photographs, tmp_path):
    root = photographs(tmp_path / "data", train=2)
    assert check_folder(root) == ("a", "b")
    with pytest.raises(ValueError, match=r"data directory not found: .*nowhere"):
        check_splits(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="a has no train/ folder"):
        check_splits(root / "train" / "a")
    (root / "train" / "zebra").mkdir()
    with pytest.raises(ValueError, match="different classes: 'zebra' is in train/ alone"):
        check_folder(root)
    (root / "val" / "zebra").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*zebra holds no images \(\.jpg, "):
        open_folder(root)
    (tmp_path / "empty" / "train").mkdir(parents=True)
    (tmp_path / "empty" / "val").mkdir()
    with pytest.raises(ValueError, match="has no class folders: put the images in train/<class>/"):
        check_folder(tmp_path / "empty")


def test_a_class_whose_link_leads_nowhere_is_not_lost(photographs, tmp_path):
    root = photographs(tmp_path / "data", train=2)
    for split in ("train", "val"):
        (root / split / "c").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"train/c is no folder of images, or a link that leads"):
        open_folder(root)


def test_files_beside_the_class_folders_are_told(photographs, tmp_path):
    root = photographs(tmp_path / "data", train=2)
    (root / "train" / "lost.jpg").write_bytes(b"none")
    (root / "val" / "readme").write_text("none")
    (root / "val" / ".hidden").write_text("none")
    assert open_folder(root).remarks == (
        "left out: 2 files that are no images by name (1 .jpg, 1 without an ending)",
    )


def test_accents_that_look_alike_are_told_apart(photographs, tmp_path):
    root = photographs(tmp_path / "data", train=2, classes=("cafe\u0301", "tea"))
    (root / "val" / "cafe\u0301").rename(root / "val" / "caf\u00e9")
    with pytest.raises(ValueError, match=r"write the accents of 'caf.*' with other characters"):
        open_folder(root)


def test_a_subset_is_of_its_source(photographs, tmp_path):
    source = open_folder(photographs(tmp_path / "data", train=6)).train
    few = balanced(source, 4)
    assert sorted(few.labels) == [0, 0, 1, 1] and few.fingerprint == f"{source.fingerprint}[4]"
    for place, index in enumerate(few.indices):
        assert few.size(place) == source.size(index)
        assert few.load(place).tobytes() == source.load(index).tobytes()
    assert balanced(source, 12) is balanced(source, None) is source


def test_scenes_are_the_default():
    data = open_data(image_size=8, limit_val=20)
    assert data.name == next(iter(DATASETS)) == "scenes"
    assert (len(data.train.labels), len(data.val.labels)) == (3000, 20)
    assert data.val.load(0).size == data.val.size(0) == (8, 8)


def test_looking_is_light():
    code = (
        "import sys, mixbench.data.folders, mixbench.data.datasets, mixbench.data.index\n"
        "print([name for name in ('torch', 'numpy', 'timm') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
