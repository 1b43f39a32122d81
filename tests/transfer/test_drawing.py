"""Pictures of objects show each where it is, under its class's colour and name."""

import io

import numpy as np
import pytest
from PIL import Image

from mixbench.transfer import drawing
from mixbench.transfer.drawing import (
    OBJECT_SHARE,
    SHOWN,
    Place,
    outlined,
    palette,
    side_by_side,
)
from mixbench.transfer.tasks import GAP

CLASSES = ("ant", "cow", "bus")
WIDTH, HEIGHT = 600, 400
BLANK = Image.new("RGB", (WIDTH, HEIGHT), (100, 100, 100))


@pytest.fixture(autouse=True)
def height(monkeypatch):
    """Pictures as high as BLANK, so that a pixel of a box is one of the picture."""
    monkeypatch.setattr(drawing, "OBJECTS_HEIGHT", HEIGHT)


def drawn(*objects, scores=None, classes=CLASSES):
    """The picture (H, W, 3) of objects (label, (top, left, bottom, right)) on grey."""
    boxes = np.array([(left, top, right, bottom) for _, (top, left, bottom, right) in objects])
    masks = np.zeros((len(objects), HEIGHT, WIDTH), bool)
    for mask, (_, (top, left, bottom, right)) in zip(masks, objects, strict=True):
        mask[top + 20 : bottom - 20, left + 20 : right - 20] = True
    labels = np.array([label for label, _ in objects], np.int64)
    picture = outlined(
        BLANK,
        boxes.reshape(-1, 4).astype(np.float32),
        labels,
        masks,
        classes,
        None if scores is None else np.array(scores),
    )
    return np.asarray(picture).astype(int)


def colour(label):
    return palette(len(CLASSES))[label - 1].astype(int)


def test_an_object_has_its_colour_a_box_and_a_name():
    pixels = drawn((2, (100, 200, 300, 400)))
    veiled = (1 - OBJECT_SHARE) * 100 + OBJECT_SHARE * colour(2)
    assert np.abs(pixels[121:279, 221:379] - veiled).max() <= 2
    for line in (pixels[100, 200:400], pixels[299, 200:400], pixels[100:300, 200]):
        assert (line == colour(2)).all()
    assert (pixels[150:250, 203:219] == 100).all()  # in the box, and not of the mask
    assert (pixels[301:] == 100).all() and (pixels[:, 401:] == 100).all()
    name = pixels[81:100, 200:230]  # above the box
    letters = (name != colour(2)).any(-1)
    assert 0.05 < letters.mean() < 0.6 and (name[0] == colour(2)).all()
    assert (pixels[:80] == 100).all()


def test_names_differ_by_class_and_score():
    at = (100, 200, 300, 400)
    names = [drawn((2, at), scores=scores)[81:100, 200:300] for scores in (None, [0.5], [0.75])]
    assert not np.array_equal(names[0], names[1]) and not np.array_equal(names[1], names[2])


def test_what_scores_low_is_not_drawn():
    low = drawn((2, (100, 200, 300, 400)), scores=[SHOWN - 0.01])
    assert (low == 100).all()
    both = [(1, (100, 20, 300, 180)), (2, (100, 300, 300, 500))]
    assert np.array_equal(drawn(*both, scores=[0.9, 0.2]), drawn(both[0], scores=[0.9]))


def test_nothing_is_the_photograph():
    assert (drawn() == 100).all()
    small = outlined(
        Image.new("RGB", (30, 20)),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int64),
        np.zeros((0, 20, 30), bool),
        CLASSES,
    )
    assert small.size == (600, 400)


def test_boxes_and_masks_grow_with_the_photograph():
    mask = np.zeros((1, 20, 30), bool)
    mask[0, 5:15, 4:14] = True
    box = np.array([[4, 5, 14, 15]], np.float32)
    image = Image.new("RGB", (30, 20), (100, 100, 100))
    pixels = np.asarray(outlined(image, box, np.array([1]), mask, CLASSES)).astype(int)
    assert (pixels[100, 80:280] == colour(1)).all() and (pixels[299, 80:280] == colour(1)).all()
    veiled = (1 - OBJECT_SHARE) * 100 + OBJECT_SHARE * colour(1)
    assert np.abs(pixels[120:280, 100:260] - veiled).max() <= 2
    assert (pixels[310:] == 100).all()


def test_a_small_object_is_drawn_over_a_large_one():
    small, large = (1, (150, 250, 250, 350)), (2, (50, 100, 350, 500))
    pixels = drawn(small, large)
    assert np.array_equal(pixels, drawn(large, small))
    both = (1 - OBJECT_SHARE) * 100 + OBJECT_SHARE * colour(2)
    both = (1 - OBJECT_SHARE) * both + OBJECT_SHARE * colour(1)
    assert np.abs(pixels[200, 300] - both).max() <= 3


def test_names_do_not_cover_each_other():
    at = (100, 200, 300, 400)
    one, two, many = drawn((1, at)), drawn((1, at), (2, at)), drawn(*[(1, at)] * 9)
    assert np.array_equal(one[:100], two[:100])  # the first name stays, the second is elsewhere
    assert (two[102:118, 203:230] == colour(2)).all(-1).mean() > 0.4
    free = many[130:260, 203:219]  # nine would fill it
    assert (free == 100).all()


@pytest.mark.parametrize("corners", [(0, 0, 60, 60), (0, 540, 60, 600), (0, 0, 400, 600)])
def test_names_stay_in_the_picture(corners):
    pixels = drawn((1, corners), classes=("a long name of a class", "b", "c"))
    name = pixels[: corners[2], max(corners[1] - 200, 0) :]
    assert (name == colour(1)).all(-1).any(1).sum() >= 19
    dark_or_light = (pixels.max(-1) < 20) | (pixels.min(-1) > 235)
    assert dark_or_light.sum() > 100  # its letters


def test_places_that_meet():
    place = Place(0, 0, 10, 10)
    assert place.meets(Place(9, 9, 20, 20)) and place.meets(place)
    assert not place.meets(Place(10, 0, 20, 10)) and not place.meets(Place(0, 10, 10, 20))


def test_letters_of_other_scripts_are_drawn():
    assert (drawn((1, (100, 200, 300, 400)), classes=("猫", "b", "c")) != 100).any()


def test_rows_are_as_high_as_asked_and_columns_as_wide_as_the_widest():
    narrow = BLANK.resize((300, 400))
    sheet = Image.open(io.BytesIO(side_by_side([[BLANK, narrow], [narrow, narrow]], HEIGHT)))
    assert sheet.size == (2 * WIDTH + GAP, 2 * HEIGHT + GAP)
    grey = np.asarray(sheet)[:, :, 0] == 100
    assert grey[:HEIGHT, WIDTH + GAP : WIDTH + GAP + 300].all()
    assert not grey[HEIGHT + GAP :, 300 : WIDTH + GAP].any()
    assert Image.open(io.BytesIO(side_by_side([[BLANK], [BLANK]]))).height == 2 * 160 + GAP


def test_more_classes_than_a_label_map_has_numbers_have_colours():
    colours = palette(300)
    assert colours.shape == (300, 3) and colours[255].any() and not palette(60)[255].any()
    assert len(np.unique(colours[:60], axis=0)) == 60
