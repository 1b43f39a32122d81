"""The drawn data: deterministic, with masks, on backgrounds that say nothing of the class."""

import hashlib

import numpy as np
import pytest

from mixbench.data.datasets import check_dataset, open_data
from mixbench.data.scenes import CLASSES, draw_scene

SMALL = (0.02, 0.06)


def test_deterministic_in_any_order():
    first = [draw_scene(1, i).image for i in range(20)]
    again = [draw_scene(1, i).image for i in reversed(range(20))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], draw_scene(2, 0).image)


@pytest.mark.parametrize("size", [32, 64, 224])
def test_mask_and_box_agree(size):
    for index in range(30):
        scene = draw_scene(3, index, size)
        top, left, bottom, right = scene.box
        assert (
            scene.image.shape == (size, size, 3)
            and scene.image.dtype == np.uint8
            and scene.label == index % len(CLASSES)
        )
        inside = np.zeros_like(scene.mask)
        inside[top:bottom, left:right] = True
        assert not scene.mask[~inside].any()
        assert (
            scene.mask[top].any()
            and scene.mask[bottom - 1].any()
            and scene.mask[:, left].any()
            and scene.mask[:, right - 1].any()
        )
        assert 0.02 < scene.mask.mean() < 0.45


def test_backgrounds_say_nothing_of_the_class():
    colors = np.array([s.image[~s.mask].mean(0) for s in (draw_scene(4, i) for i in range(600))])
    by_class = colors.reshape(60, 10, 3)
    between, within = by_class.mean(0).var(0), by_class.var(0).mean(0)
    assert (between < 3 * within / 60).all()


def test_objects_stand_out():
    gaps = [
        np.abs(s.image[s.mask].mean(0) - s.image[~s.mask].mean(0)).max()
        for s in (draw_scene(5, i) for i in range(100))
    ]
    assert np.median(gaps) > 40


def test_without_an_area_nothing_changed():
    """The digits are of these scenes before there were areas."""
    pixels = hashlib.sha256()
    for index in range(20):
        scene = draw_scene(7, index, (32, 64)[index % 2])
        pixels.update(scene.image.tobytes() + scene.mask.tobytes())
    assert pixels.hexdigest()[:16] == "c66c92d7be68f450"
    assert open_data().train.fingerprint == "scenes-train-3000-32"
    assert open_data(dataset="scenes:0.12,0.5").identity == open_data().identity


def test_objects_have_the_area_asked_for():
    """Shapes fill 35 to 90 % of their square, whose side is the square root of the area."""
    masks = [draw_scene(3, index, 64, SMALL).mask for index in range(200)]
    shares = np.array([mask.mean() for mask in masks])
    assert (shares > 0.3 * SMALL[0]).all() and (shares < SMALL[1]).all()
    assert shares.max() > 0.5 * SMALL[1] > 0.5 * SMALL[0] > shares.min()
    squares = [draw_scene(3, 10 * index + 1, 64, (0.04, 0.04)).mask for index in range(20)]
    expected = 0.75**2 * 0.04 * 64 * 64  # the class square, at any turn
    assert [mask.sum() for mask in squares] == pytest.approx([expected] * 20, rel=0.12)


def test_another_area_leaves_the_rest_of_a_scene_as_it_is():
    for index in range(20):
        large, small = draw_scene(5, index, 64), draw_scene(5, index, 64, SMALL)
        outside = ~(large.mask | small.mask)
        outside &= ~np.isin(np.arange(64), (*small.box, *large.box))[None]  # half covered pixels
        same = (large.image == small.image).all(-1)
        assert same[outside].mean() > 0.9 and large.label == small.label


def test_the_smallest_objects_have_pixels_in_every_class():
    for index in range(200):
        scene = draw_scene(1, index, 32, (0.0040, 0.0040))
        assert 0 < scene.mask.sum() < 16, scene.label
    with pytest.raises(
        ValueError, match=r"scenes of 32 px cannot show objects of 0\.003 .*0\.004 "
    ):
        open_data(dataset="scenes:0.003,0.1", image_size=32)
    open_data(dataset="scenes:0.004,0.1", image_size=32)
    open_data(dataset="scenes:0.0004,0.1", image_size=224)


@pytest.mark.parametrize("area", ["", "0.1", "0.3,0.1", "0,1", "nan,1", "0.1,1.1", "1,2,3", "a,b"])
def test_what_is_no_area_is_refused(area):
    name = f"scenes:{area}"
    for ask in (check_dataset, lambda name: open_data(dataset=name)):
        with pytest.raises(ValueError, match="must be LOW,HIGH with 0 < LOW <= HIGH <= 1"):
            ask(name)


def test_another_area_is_another_data_set():
    small, large = open_data(dataset="scenes:0.02,0.06"), open_data()
    assert small.name == "scenes:0.02,0.06" and small.drawn
    assert small.identity.train != large.identity.train
    assert small.identity.val != large.identity.val
    image = np.asarray(small.val.load(3))
    assert np.array_equal(image, draw_scene(small.val.stream, 3, 32, SMALL).image)
    assert np.array_equal(
        np.asarray(small.val.mask(3)), draw_scene(small.val.stream, 3, 32, SMALL).mask
    )
    # both are kept in memory, and neither is taken for the other
    assert not np.array_equal(image, np.asarray(large.val.load(3)))
