"""COCO's layout for detection, held against pycocotools; and what is refused."""

import builtins
import re

import numpy as np
import pytest
from PIL import Image

from mixbench.data.coco import LeftOut, open_detection, packed, run_lengths, with_most_instances
from mixbench.data.sources import UnreadableImage
from tests.support.coco import (
    CLASSES,
    annotation,
    annotations_of,
    box,
    polygon,
    write_annotations,
    write_detection,
)

tools = pytest.importorskip("pycocotools.mask")


@pytest.fixture
def root(tmp_path):
    return write_detection(tmp_path / "x")


def test_objects_are_those_of_the_file(root):
    data = open_detection(root)
    assert (data.name, data.classes) == ("x", CLASSES)
    names = [data.train.image_name(index) for index in range(len(data.train.labels))]
    assert names == [f"train2017/{i:012}.jpg" for i in (10, 11, 14)]
    first = data.train.instances(0)
    assert first.boxes.tolist() == [[0, 0, 10, 10], [12, 5, 30, 20]]
    assert first.labels.tolist() == [1, 3]
    assert np.array_equal(first.masks, [box(0, 0, 10, 10), box(5, 12, 20, 30)])
    assert (first.boxes.dtype, first.labels.dtype, first.masks.dtype) == ("f4", "i8", "?")
    last = data.train.instances(2)
    assert last.labels.tolist() == [2, 3]
    assert np.array_equal(last.masks, [box(1, 1, 19, 29), box(3, 3, 9, 9)])
    assert data.train.load(0).size == data.train.size(0) == (30, 20)


def test_what_is_left_out_is_counted(root):
    data = open_detection(root)
    assert data.train.left_out == LeftOut(images=2, crowds=2, degenerate=3)
    assert data.val.left_out == LeftOut(images=0, crowds=1, degenerate=0)
    assert data.train.counts.tolist() == [1, 1, 3] and data.val.counts.tolist() == [1, 1, 1]
    nothing = data.val.instances(2)
    assert nothing.boxes.shape == (0, 4) and nothing.labels.shape == (0,)
    assert nothing.masks.shape == (0, 20, 30)


def test_boxes_end_at_the_image(root):
    content = annotations_of(root, "val2017")
    content["annotations"][0]["bbox"] = [-3, 2.5, 200, 9]
    write_annotations(root, "val2017", content)
    assert open_detection(root).val.instances(1).boxes.tolist() == [[0, 2.5, 30, 11.5]]


def test_truth_is_what_the_file_says_also_of_crowds(root, capsys):
    from pycocotools.coco import COCO

    truth, file = COCO(), COCO(str(root / "annotations" / "instances_val2017.json"))
    truth.dataset = open_detection(root).val.truth()
    truth.createIndex()
    assert sorted(truth.imgs) == [21, 22, 23] and truth.getCatIds() == [1, 18, 90]
    assert len(truth.anns) == len(file.anns) == 4
    for image in (21, 22):
        for ours, theirs in zip(truth.imgToAnns[image], file.imgToAnns[image], strict=True):
            for key in ("image_id", "category_id", "bbox", "area", "iscrowd"):
                assert ours[key] == theirs[key]
            assert np.array_equal(truth.annToMask(ours), file.annToMask(theirs))


def test_the_most_frequent_classes_are_kept(root):
    data = open_detection(root)
    kept = with_most_instances(data, 2)  # ant and cow have one each, ant is the first
    assert kept.classes == ("ant", "bus") and kept.train.counts.tolist() == [1, 3]
    assert [kept.train.instances(index).labels.tolist() for index in range(3)] == [[1, 2], [2], [2]]
    assert kept.fingerprint != data.fingerprint == open_detection(root).fingerprint
    assert kept.val.fingerprint != data.val.fingerprint  # of the same files
    truth = kept.val.truth()
    ids = [each["category_id"] for each in truth["annotations"]]
    assert ids == [1, 1, 90] and len(truth["images"]) == len(kept.val.labels) == 3
    assert [each["iscrowd"] for each in truth["annotations"]] == [0, 1, 0]
    one = with_most_instances(kept, 1)
    assert one.classes == ("bus",) and one.val.instances(1).labels.tolist() == [1]
    assert one.train.left_out == LeftOut(images=2, crowds=1, degenerate=0)


def test_other_annotations_have_another_fingerprint(root):
    before = open_detection(root).fingerprint
    content = annotations_of(root, "train2017")
    content["annotations"][0]["bbox"][0] += 1
    write_annotations(root, "train2017", content)
    assert open_detection(root).fingerprint != before


def test_run_lengths_are_pycocotools():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.01, 0.5, 1.0):
        mask = (rng.random((90, 70)) < share).astype(np.uint8)
        mask[20:, 30:50] |= 1  # long runs take several characters
        code = tools.encode(np.asfortranarray(mask))["counts"]
        counts = run_lengths(code)
        flat = np.repeat(np.arange(len(counts)) % 2, counts)
        assert np.array_equal(flat, mask.flatten(order="F"))
        assert packed({"size": [90, 70], "counts": code.decode()}, 90, 70) == (code, mask.sum())
        assert packed({"size": [90, 70], "counts": counts}, 90, 70) == (code, mask.sum())


def change(split="train2017", **values):
    """Changes of the first annotation; None removes a key."""

    def damage(root):
        content = annotations_of(root, split)
        first = content["annotations"][0]
        first.update(values)
        for key in [key for key, value in first.items() if value is None]:
            del first[key]
        write_annotations(root, split, content)

    return damage


def replace(key, value, split="val2017"):
    def damage(root):
        write_annotations(root, split, {**annotations_of(root, split), key: value})

    return damage


def write(text, split="val2017"):
    return lambda root: (root / "annotations" / f"instances_{split}.json").write_text(text)


CROWDS = [annotation(21, 1, (0, 0, 8, 8), crowd=1)]
NOT_OF_IMAGE = "its run lengths are of 10 pixels in 30x20, and its image has 30x20"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: (root / "annotations/instances_train2017.json").unlink(),
            "is not COCO: expected annotations/instances_train2017.json and train2017/",
        ),
        (write("{"), "instances_val2017.json cannot be read"),
        (write("[]"), "instances_val2017.json has no list of categories"),
        (replace("categories", None), "instances_val2017.json has no list of categories"),
        (replace("annotations", None), "instances_val2017.json has no list of annotations"),
        (replace("categories", []), "instances_val2017.json lists no categories"),
        (replace("images", []), "instances_val2017.json lists no images"),
        (replace("images", [{"id": 3}]), "of the images the one with the id 3: it has no 'file_"),
        (replace("images", [7]), "of the images the one number 1: "),
        (
            replace("categories", [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
            "instances_val2017.json lists the category id 1 twice",
        ),
        (
            replace("categories", [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]),
            "instances_val2017.json lists the category name 'a' twice",
        ),
        (
            replace("categories", [{"id": i, "name": f"c{i}"} for i in (1, 18, 90)]),
            "list different categories, such as ant with the id 1: both",
        ),
        (
            replace("annotations", CROWDS),
            "instances_val2017.json has no usable object of ant, cow, bus: each of its 1 is",
        ),
        (replace("annotations", []), "no usable object of ant, cow, bus: each of its 0 is"),
        (change(image_id=99), "with the id 1: the image 99 is not among the file's images"),
        (change(category_id=2), "with the id 1: the category 2 is not among the file's categ"),
        (change(image_id=None), "with the id 1: it has no 'image_id'"),
        (change(bbox=[1, 2, 3]), r"with the id 1: its bbox is left, .*, not \[1, 2, 3\]"),
        (change(bbox=[1, 2, 3, float("nan")]), "with the id 1: its bbox is left"),
        (change(segmentation=None), "with the id 1: it has no 'segmentation'"),
        (change(segmentation=[[1, 2, 3, 4]]), "a polygon has 4 numbers, and x and y of three"),
        (change(segmentation=[[1] * 7]), "a polygon has 7 numbers"),
        (change(segmentation=[[1, 2, 3, 4, 5, 1e9]]), "a polygon leaves its image of 30x20 far"),
        (change(segmentation=[[1, 2, 3, 4, 5, float("nan")]]), "a polygon leaves its image"),
        (change(segmentation="mask.png"), "with the id 1: "),
        (change(segmentation=[1, 2, 3, 4, 5, 6]), "with the id 1: "),
        (change(segmentation={"size": [20, 30], "counts": [4, 6]}), NOT_OF_IMAGE),
        (change(segmentation={"size": [20, 30], "counts": "46"}), NOT_OF_IMAGE),
        (change(segmentation={"size": [30, 20], "counts": [600]}), "600 pixels in 20x30, and"),
        (change(segmentation={"size": [20, 30], "counts": "P"}), "run lengths end within a num"),
        (change(segmentation={"size": [20, 30], "counts": " "}), "run lengths have the charac"),
        (change(segmentation={"size": [20, 30], "counts": [700, -100]}), "run lengths are of 600"),
    ],
)
def test_what_is_wrong_is_said(root, damage, message):
    damage(root)
    with pytest.raises(ValueError, match=message):
        open_detection(root)


def test_images_that_are_missing_damaged_or_of_another_size(root):
    file = root / "train2017" / "000000000010.jpg"
    Image.new("RGB", (30, 21)).save(file)
    with pytest.raises(ValueError, match=r"10.jpg has 30x21 pixels, .*train2017.json says 30x20"):
        open_detection(root)
    file.write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"10.jpg"):
        open_detection(root)
    file.unlink()
    with pytest.raises(UnreadableImage, match=r"10.jpg: it is listed, and there is no such file"):
        open_detection(root)


def test_no_such_folder(tmp_path):
    with pytest.raises(ValueError, match="data directory not found"):
        open_detection(tmp_path / "no")


def test_classes_that_validation_lacks(root):
    content = annotations_of(root, "val2017")
    content["annotations"] = [each for each in content["annotations"] if each["category_id"] != 90]
    write_annotations(root, "val2017", content)
    data = open_detection(root)
    assert data.val.counts.tolist() == [1, 1, 0]
    with pytest.raises(
        ValueError, match=r"val2017.json has no usable object of bus: each of its 0"
    ):
        with_most_instances(data, 1)


def test_an_object_without_polygons_is_empty(root):
    change(segmentation=[])(root)
    assert open_detection(root).train.left_out.degenerate == 4


def test_pycocotools_is_named_where_it_is_missing(root, monkeypatch):
    real = builtins.__import__

    def lacking(name, *args, **kwargs):
        if name.startswith("pycocotools"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(ValueError, match=re.escape("pip install 'mixbench[det]'")):
        open_detection(root)


def test_polygons_cover_the_pixels_within_them():
    code, pixels = packed(polygon(2, 3, 8, 11), 20, 30)
    mask = tools.decode({"size": [20, 30], "counts": code})
    assert pixels == 48 and np.array_equal(mask, box(2, 3, 8, 11))
    two = packed([*polygon(2, 3, 8, 11), *polygon(6, 3, 10, 11)], 20, 30)
    assert two[1] == 64  # together, and not the first alone
