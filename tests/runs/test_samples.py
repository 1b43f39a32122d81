"""What is kept of single images survives the disk, and takes little room."""

from dataclasses import replace

import numpy as np
import pytest

from mixbench.runs.samples import (
    GalleryEntry,
    read_correct,
    read_gallery,
    read_images,
    read_lam,
    write_gallery,
    write_images,
    write_lam,
)
from tests.support.rows import image_results, write_correct


@pytest.mark.parametrize("count", [0, 1, 8, 1001])
def test_results_of_images_survive_the_disk(tmp_path, count):
    rng = np.random.default_rng(0)
    right, names = rng.random(count) < 0.5, [f"val/{i}.png" for i in range(count)]
    made = image_results(right, names)
    write_images(tmp_path / "a" / "images.npz", made)
    read = read_images(tmp_path / "a" / "images.npz")
    for name in ("label", "predicted"):
        assert np.array_equal(getattr(read, name), getattr(made, name))
    for name in ("confidence", "nll", "brier"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name).astype(np.float32))
    assert np.array_equal(read.bitmap.right, right) and read.names == made.names


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": np.array([-1, 0])}, "a class is negative"),
        ({"predicted": np.array([-2, 0])}, "a class is negative"),
        ({"brier": np.zeros(3)}, "brier is not 2 values of float32"),
        ({"names": b"a\0b\0c"}, "3 names are not those of 2 images"),
    ],
)
def test_what_is_no_result_of_images_is_said(tmp_path, changes, words):
    path = tmp_path / "images.npz"
    write_images(path, replace(image_results([True, False]), **changes))
    with pytest.raises(ValueError, match=f"images.npz does not hold results of images: .*{words}"):
        read_images(path)


def test_numbers_of_another_kind_are_no_results(tmp_path):
    path, share = tmp_path / "images.npz", np.full(2, 0.5, np.float32)
    np.savez(path, label=share, predicted=share, confidence=share, nll=share, brier=share)
    with pytest.raises(ValueError, match="label is not 2 values of int32"):
        read_images(path)


def test_a_prediction_of_nothing_is_no_hit(tmp_path):
    results = replace(image_results([True, True]), predicted=np.array([0, -1]))
    write_images(tmp_path / "images.npz", results)
    assert read_images(tmp_path / "images.npz").bitmap.right.tolist() == [True, False]


@pytest.mark.parametrize("count", [0, 1, 8, 1001])
def test_bitmaps_of_older_runs_are_read(tmp_path, count):
    flags = np.random.default_rng(0).random(count) < 0.5
    write_correct(tmp_path / "a" / "correct.npz", flags)
    assert np.array_equal(read_correct(tmp_path / "a" / "correct.npz").right, flags)
    (tmp_path / "bad.npz").write_bytes(b"no bitmap")
    with pytest.raises(ValueError, match="not a bitmap"):
        read_correct(tmp_path / "bad.npz")
    write_correct(tmp_path / "names.npz", [True, False], ["a", "b", "c"])
    with pytest.raises(ValueError, match="3 names are not those of 2 images"):
        read_correct(tmp_path / "names.npz")


def test_results_take_little_room(tmp_path):
    right = np.random.default_rng(0).random(50_000) < 0.5
    write_images(tmp_path / "images.npz", image_results(right, map(str, range(50_000))))
    assert (tmp_path / "images.npz").stat().st_size < 50_000 * 20


def test_shares_survive_the_disk(tmp_path):
    area, used = np.random.default_rng(0).random((2, 30))
    write_lam(tmp_path / "lam.csv", area, used)
    shares = read_lam(tmp_path / "lam.csv")
    assert shares.shape == (30, 2)
    np.testing.assert_allclose(shares[:, 0], area, atol=5e-6)
    np.testing.assert_allclose(shares[:, 1], used, atol=5e-6)
    write_lam(tmp_path / "lam.csv", np.array([]), np.array([]))
    assert read_lam(tmp_path / "lam.csv").shape == (0, 2)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        write_lam(tmp_path / "lam.csv", area, used[1:])


def test_the_gallerys_index_survives_the_disk(tmp_path):
    names = ("image_a", "image_b", "mixed", "mask", "map", "map_name", "class_a", "class_b")
    texts = {name: f"{name}.png" for name in names}
    entry = GalleryEntry(strategy="cutmix", lam_area=0.25, lam_used=0.5, **texts)
    write_gallery(tmp_path, [entry])
    with pytest.raises(ValueError, match=r"there is no picture 'image_a.png' beside it"):
        read_gallery(tmp_path)
    for name in texts.values():
        (tmp_path / name).touch()
    assert read_gallery(tmp_path) == [entry] and read_gallery(tmp_path / "empty") == []
