"""The drawn data: deterministic, with masks, on backgrounds that say nothing of the class."""

import numpy as np
import pytest

from mixbench.data.scenes import CLASSES, draw_scene


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
