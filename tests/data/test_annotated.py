"""Images with masks in the layouts of COCO, Pascal VOC and folders, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from mixbench.data.annotated import of_instances, open_annotated, open_label_maps
from tests.support.boxes import voc
from tests.support.coco import box, photograph, write_coco


@pytest.fixture
def coco(tmp_path):
    return write_coco(tmp_path)


def test_coco(coco, capsys):
    union, classes = open_annotated(f"coco:{coco}", "union", 32)
    assert classes == () and len(union.labels) == 2 and capsys.readouterr().out == ""
    assert [union.image_name(i) for i in (0, 1)] == ["000000000007.jpg", "000000000009.jpg"]
    assert union.load(0).size == (30, 20) and union.load(0).mode == "RGB"
    mask = np.asarray(union.mask(0))
    objects = box(0, 0, 5, 5) | box(10, 10, 20, 30)
    assert np.array_equal(mask == 1, objects)
    assert np.array_equal(mask == 255, box(0, 0, 8, 8) & ~objects)
    assert np.array_equal(np.asarray(union.mask(1)) == 1, box(3, 3, 4, 9))
    largest, _ = open_annotated(f"coco:{coco}", "largest", 32)
    assert np.array_equal(np.asarray(largest.mask(0)) == 1, box(10, 10, 20, 30))


def test_photographs_of_another_size_than_their_annotations_are_refused(coco):
    [file] = coco.rglob("000000000009.jpg")
    Image.open(file).resize((60, 40)).save(file)
    with pytest.raises(ValueError, match=r"9.jpg has 60x40 pixels, .* says 30x20: correct one"):
        open_annotated(f"coco:{coco}", "union", 32)


def test_voc(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    photograph(root / "JPEGImages" / "a.jpg")
    numbers = np.zeros((20, 30), np.uint8)
    numbers[:4, :4], numbers[10:, 10:], numbers[4, :4] = 1, 2, 255
    for kind in ("SegmentationObject", "SegmentationClass"):
        (root / kind).mkdir()
        image = Image.fromarray(numbers if kind == "SegmentationObject" else numbers * 0, "P")
        image.putpalette(list(range(256)) * 3)
        image.save(root / kind / "a.png")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    union, _ = open_annotated(f"voc:{tmp_path}", "union", 32)
    mask = np.asarray(union.mask(0))
    assert np.array_equal(mask == 1, (numbers == 1) | (numbers == 2))
    assert np.array_equal(mask == 255, numbers == 255)
    largest, _ = open_annotated(f"voc:{tmp_path}", "largest", 32)
    assert np.array_equal(np.asarray(largest.mask(0)) == 1, numbers == 2)


def test_folders(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "b"):
            photograph(tmp_path / split / name / "1.png")
    numbers = np.zeros((20, 30), np.uint8)
    numbers[:3, :3], numbers[5:, 5:] = 3, 9
    (tmp_path / "masks" / "val" / "a").mkdir(parents=True)
    Image.fromarray(numbers).save(tmp_path / "masks" / "val" / "a" / "1.png")
    union, classes = open_annotated(f"folder:{tmp_path}", "union", 32)
    assert classes == ("a", "b") and [union.has_mask(i) for i in (0, 1)] == [True, False]
    largest, _ = open_annotated(f"folder:{tmp_path}", "largest", 32)
    assert np.array_equal(np.asarray(largest.mask(0)) == 1, numbers == 9)
    assert largest.mask(1) is None and largest.load(1).size == (30, 20)


def test_the_largest_is_the_first_of_equals_and_unknown_stays():
    unknown = box(0, 0, 20, 30)
    mask = of_instances([box(0, 0, 2, 2), box(4, 4, 6, 6)], "largest", unknown)
    assert np.array_equal(mask == 1, box(0, 0, 2, 2)) and (mask[5, 5] == 255)
    assert not of_instances([], "largest", ~unknown).any()


def test_what_is_not_there_is_named(tmp_path):
    for text, words in (
        (
            "cocoa",
            "--masks must be one of scenes, scenes:LOW,HIGH, coco:DIR, voc:DIR, folder:DIR, not "
            "'cocoa'",
        ),
        ("coco:", "must be one of"),
        (f"coco:{tmp_path / 'no'}", "there is no folder"),
        (f"coco:{tmp_path}", "is not COCO: expected annotations/instances_val2017.json"),
        (f"voc:{tmp_path}", "is not Pascal VOC: expected VOCdevkit/VOC2012/"),
    ):
        with pytest.raises(ValueError, match=words):
            open_annotated(text, "union", 32)


def test_coco_without_objects(coco):
    file = coco / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"] = [each for each in content["annotations"] if each["iscrowd"]]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has no object that is no crowd"):
        open_annotated(f"coco:{coco}", "union", 32)


def test_label_maps_have_classes_of_voc_and_one_elsewhere(tmp_path):
    numbers = np.zeros((20, 30), np.uint8)
    numbers[:4, :4], numbers[10:, 10:], numbers[4, :4] = 15, 2, 255
    pixels = np.zeros((20, 30, 3), np.uint8)
    source, classes = open_label_maps(f"voc:{voc(tmp_path / 'voc', [pixels], [numbers])}", 32)
    assert classes == () and np.array_equal(np.asarray(source.mask(0)), numbers)
    for folder, array in (("val", pixels), ("masks/val", numbers)):
        (tmp_path / folder / "a").mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / folder / "a" / "1.png")
    Image.fromarray(pixels).save(tmp_path / "val" / "a" / "2.png")
    source, classes = open_label_maps(f"folder:{tmp_path}", 32)
    mask = np.asarray(source.mask(0))
    assert classes == ("a",) and source.mask(1) is None
    assert np.array_equal(mask, np.select([numbers == 255, numbers > 0], [255, 1], 0))
    scenes, _ = open_label_maps("scenes", 32)
    assert set(np.unique(np.asarray(scenes.mask(0)))) == {0, 1}
    with pytest.raises(ValueError, match=r"expected VOCdevkit/VOC2012/ .* SegmentationClass/"):
        open_label_maps(f"voc:{tmp_path}", 32)
