"""Boxes of files and of masks, by hand and against torchvision, and what of an image is shown."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import masks_to_boxes

from mixbench.data.boxes import open_boxes, read_boxes, shown_window
from mixbench.data.scenes import draw_scene
from mixbench.data.sources import UnreadableImage
from mixbench.data.transforms import eval_transform, squash_transform
from mixbench.mix import hashed_seed
from mixbench.recipe import load_recipe
from tests.support.boxes import image_net

# pixels from 1, the last within: xmin, ymin, xmax, ymax; then by hand top, left, bottom, right
WRITTEN = [[(1, 1, 30, 20)], [(11, 6, 20, 10), (1, 1, 1, 1)], [(0, 0, 5, 7)]]
BY_HAND = [[(0, 0, 20, 30)], [(5, 10, 10, 20), (0, 0, 1, 1)], [(0, 0, 7, 5)]]


def test_files_of_boxes_by_hand(tmp_path):
    source, classes = open_boxes(f"imagenet:{image_net(tmp_path, WRITTEN)}", 32, False)
    assert classes == ("n01440764", "n02102040") and len(source.labels) == 3
    names = [source.image_name(index) for index in range(3)]
    order = [int(name[-10:-5]) - 1 for name in names]  # by class, then by number
    assert order == [0, 2, 1]
    found = [source.boxes(index, 20, 30) for index in range(3)]
    assert found == [BY_HAND[number] for number in order]
    other, _ = open_boxes(f"imagenet:{image_net(tmp_path / 'b', WRITTEN[::-1])}", 32, False)
    assert other.fingerprint != source.fingerprint


def test_images_without_a_file_are_named_or_left_out(tmp_path):
    root = image_net(tmp_path, WRITTEN)
    file = root / "bbox" / "val" / "ILSVRC2012_val_00000002.xml"
    file.unlink()
    with pytest.raises(ValueError, match=r"1 of 3 images have no file of boxes, such as .*02\.xml"):
        open_boxes(f"imagenet:{root}", 32, False)
    source, _ = open_boxes(f"imagenet:{root}", 32, True)
    assert [len(source.boxes(index, 20, 30)) for index in range(3)] == [1, 1, 0]
    for each in file.parent.iterdir():
        each.unlink()
    with pytest.raises(ValueError, match="3 of 3 images have no file of boxes"):
        open_boxes(f"imagenet:{root}", 32, True)


def test_boxes_of_another_images_size_are_refused_or_left_out(tmp_path):
    root = image_net(tmp_path, WRITTEN)
    source, _ = open_boxes(f"imagenet:{root}", 32, False)
    with pytest.raises(UnreadableImage, match=r"is of an image of 30 x 20 pixels, and .* has 32 x"):
        source.boxes(0, 32, 32)
    source, _ = open_boxes(f"imagenet:{root}", 32, True)
    assert source.boxes(0, 32, 32) == [] and source.boxes(0, 20, 30) == BY_HAND[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation>", "no element found"),
        ("nothing", "syntax error"),
        ("<a><bndbox><xmin>1</xmin></bndbox></a>", "its bndbox has no ymin"),
        ("<a><bndbox><xmin>x</xmin></bndbox></a>", "could not convert string to float"),
        (
            "<a><bndbox><xmin>3</xmin><ymin>1</ymin><xmax>2</xmax><ymax>5</ymax></bndbox></a>",
            "no pixel is within 3..2 x 1..5",
        ),
    ],
)
def test_what_is_no_file_of_boxes_is_named(text, words, tmp_path):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(UnreadableImage, match=f"cannot read boxes .*a.xml: .*{words}"):
        read_boxes(tmp_path / "a.xml")


def test_numbers_of_a_file_may_have_a_point(tmp_path):
    box = "<xmin>3.0</xmin><ymin>1</ymin><xmax>4.0</xmax><ymax>5</ymax>"
    (tmp_path / "a.xml").write_text(f"<a><object><bndbox>{box}</bndbox></object></a>")
    assert read_boxes(tmp_path / "a.xml") == (None, [(0, 2, 5, 4)])


def test_an_instance_has_the_box_around_it(tmp_path):
    rng = np.random.default_rng(0)
    numbers = np.zeros((20, 30), np.uint8)
    numbers[2:9, 3:11] = np.where(rng.uniform(size=(7, 8)) < 0.5, 1, 0)
    numbers[10:19, 12:29] = np.where(rng.uniform(size=(9, 17)) < 0.3, 7, 0)
    numbers[0, :] = 255  # nobody knows
    for folder, pixels in (("val", np.zeros((20, 30, 3), np.uint8)), ("masks/val", numbers)):
        (tmp_path / folder / "a").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / folder / "a" / "1.png")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "val" / "a" / "2.png")
    source, _ = open_boxes(f"folder:{tmp_path}", 32, False)
    theirs = masks_to_boxes(torch.from_numpy(np.stack([numbers == 1, numbers == 7])))
    expected = [(y0, x0, y1 + 1, x1 + 1) for x0, y0, x1, y1 in theirs.tolist()]
    assert source.boxes(0, 20, 30) == expected and source.boxes(1, 20, 30) == []
    with pytest.raises(
        UnreadableImage, match=r"1.png has 60 x 40 pixels, and its masks .* 30 x 20"
    ):
        source.boxes(0, 40, 60)


def test_scenes_have_the_boxes_that_they_were_drawn_with():
    source, _ = open_boxes("scenes", 32, False)
    for index in range(20):
        scene = draw_scene(hashed_seed("label error"), index, 32)
        assert source.boxes(index, 32, 32) == [scene.box]


def test_unknown_kinds_are_named(tmp_path):
    kinds = "scenes, scenes:LOW,HIGH, imagenet:DIR, coco:DIR, voc:DIR, folder:DIR"
    with pytest.raises(ValueError, match=f"--boxes must be one of {kinds}, not 'x'"):
        open_boxes("x", 32, False)
    with pytest.raises(ValueError, match=r"--boxes imagenet:.*: there is no folder"):
        open_boxes(f"imagenet:{tmp_path / 'no'}", 32, False)


@pytest.mark.parametrize("made", [eval_transform, squash_transform])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (80, 200), (201, 90), (97, 131)])
def test_the_window_is_where_the_shown_pixels_lie(made, height, width):
    """An image's pixels say where they are, and what is shown of them where it begins and ends."""
    recipe = load_recipe(
        "quick",
        {"image_size": 40, "crop_pct": 0.8, "mean": (0, 0, 0), "std": (1, 1, 1)}
        | {"interpolation": "bilinear", "patch_size": 4},
    )
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, rows * 0], -1).astype(np.uint8)
    transform = made(recipe)
    shown = transform(Image.fromarray(image)) * 255 + 0.5  # a pixel's middle
    top, left, bottom, right = shown_window(transform, height, width)
    middles = (np.arange(40) + 0.5) / 40
    inner = slice(4, -4)  # filters look beyond an image's edge
    assert np.allclose(shown[0, inner, 20], (top + middles * (bottom - top))[inner], atol=0.6)
    assert np.allclose(shown[1, 20, inner], (left + middles * (right - left))[inner], atol=0.6)
    if made is squash_transform:
        assert (top, left, bottom, right) == (0, 0, height, width)
