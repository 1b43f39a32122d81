"""What is kept of single images survives the disk, and takes little room."""

import numpy as np
import pytest

from mixbench.runs.samples import (
    GalleryEntry,
    read_correct,
    read_gallery,
    read_lam,
    write_correct,
    write_gallery,
    write_lam,
)


@pytest.mark.parametrize("count", [0, 1, 8, 1001])
def test_bitmaps_survive_the_disk(tmp_path, count):
    flags = np.random.default_rng(0).random(count) < 0.5
    write_correct(tmp_path / "a" / "correct.npz", flags)
    assert np.array_equal(read_correct(tmp_path / "a" / "correct.npz").right, flags)
    (tmp_path / "bad.npz").write_bytes(b"no bitmap")
    with pytest.raises(ValueError, match="not a bitmap"):
        read_correct(tmp_path / "bad.npz")
    write_correct(tmp_path / "names.npz", [True, False], ["a", "b", "c"])
    with pytest.raises(ValueError, match="3 names are not those of 2 images"):
        read_correct(tmp_path / "names.npz")


def test_bitmaps_are_an_eighth_of_a_byte_an_image(tmp_path):
    write_correct(tmp_path / "c.npz", np.random.default_rng(0).random(50_000) < 0.5)
    assert 50_000 / 8 <= (tmp_path / "c.npz").stat().st_size < 50_000 / 8 + 1000


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
