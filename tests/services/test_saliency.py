"""Saliency against OpenCV and its recorded answers."""

import hashlib
import sys
import types

import numpy as np
import pytest
import torch

from mixbench.data.scenes import draw_scene
from mixbench.services.saliency import _to_bytes, fine_grained, official_saliency, opencv_saliency
from tests.support.pictures import (
    noise,
    normalised,
    of_opencv,
    opencv_detector,
    scene,
)

SIZES = [(32, 32), (64, 48), (97, 131), (160, 240), (224, 224), (2, 2), (1, 9), (7, 1)]


@pytest.fixture(scope="module")
def detector():
    return opencv_detector()


def ring():
    """A patch that is bright against the dark ring around it and dark against the bright rest.

    OpenCV's sum passes 255 there.
    """
    y, x = np.mgrid[:96, :96]
    radius = np.hypot(y - 48, x - 48)
    gray = np.where(radius < 3, 128, np.where(radius < 10, 0, 255)).astype(np.uint8)
    return torch.from_numpy(gray).expand(1, 3, 96, 96).contiguous()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pictures", [noise, scene])
def test_fine_grained_equals_opencv(size, pictures, detector):
    pixels = pictures(size)
    ours = fine_grained(pixels)
    assert ours.dtype == torch.float32 and ours.shape == (len(pixels), *size)
    assert np.array_equal(ours.numpy(), of_opencv(detector, pixels.flip(1)))
    assert torch.equal(opencv_saliency(pixels), ours)


def test_bytes_wrap_as_in_opencv(detector):
    ours = fine_grained(ring())
    assert np.array_equal(ours.numpy(), of_opencv(detector, ring().flip(1)))
    assert 0.2 < float(ours[0, 48, 48]) < 0.9, "without a wrap this pixel would be the brightest"


@pytest.mark.parametrize(
    ("size", "peak", "total", "digest"),
    [
        ((32, 32), (0, 3), 108961, "5ac632b8a29bf39e"),
        ((64, 48), (11, 47), 255707, "9bc90dcf8ae3ef4b"),
        ((224, 224), (122, 38), 3516477, "60f516448c4e7ad4"),
        ((97, 131), (41, 37), 1068753, "46acf84d6c2a9d9d"),
    ],
)
def test_recorded_answers_of_opencv(size, peak, total, digest):
    """Recorded with OpenCV 4.2.0 and 5.0.0."""
    y, x = np.mgrid[: size[0], : size[1]]
    blue, green, red = (
        (7 * x + 13 * y) % 256,
        (x * x // 9 + 3 * y) % 256,
        ((x - size[1] // 3) ** 2 + (y - size[0] // 2) ** 2) // 5 % 256,
    )
    pixels = torch.from_numpy(np.stack([red, green, blue]).astype(np.uint8))[None]
    saliency = (fine_grained(pixels)[0] * 255).round().to(torch.uint8).numpy()
    assert np.unravel_index(saliency.argmax(), size) == peak
    assert int(saliency.sum(dtype=np.int64)) == total
    assert hashlib.sha256(saliency.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("size", [(300, 400), (620, 450)])
def test_large_images_round_as_opencv_does(size, detector):
    """OpenCV's float32 sums lose digits above 256 x 256."""
    bright = noise(size, batch=1).clamp(min=190)
    drawn = torch.from_numpy(draw_scene(0, 3, max(size)).image).permute(2, 0, 1)[
        None, :, : size[0], : size[1]
    ]
    for pixels in (noise(size, batch=1, seed=1), bright, drawn.contiguous()):
        expected = detector.computeSaliency(
            pixels[0].flip(0).permute(1, 2, 0).contiguous().numpy()
        )[1]
        assert np.array_equal(
            (fine_grained(pixels)[0] * 255).round().numpy(), np.rint(expected * 255)
        )


def test_a_square_stands_out():
    pixels = torch.full((1, 3, 64, 64), 60, dtype=torch.uint8)
    pixels[:, :, 20:28, 30:38] = 230
    saliency = fine_grained(pixels)[0]
    assert saliency[20:28, 30:38].mean() > 1.5 * saliency.mean()


def test_flat_images_have_no_saliency():
    for value in (0, 128, 255):
        assert not fine_grained(torch.full((2, 3, 20, 33), value, dtype=torch.uint8)).any()
    assert fine_grained(noise((1, 1))).isfinite().all()


def test_batches_change_nothing():
    pixels = scene((40, 56), 9)
    assert torch.equal(
        fine_grained(pixels), torch.cat([fine_grained(pixel[None]) for pixel in pixels])
    )


def test_bytes_of_every_quotient():
    """255 * float32(sum / maximum) in exact arithmetic, for every sum up to every maximum."""
    for peak in range(1, 1531):
        sums = torch.arange(peak + 1, dtype=torch.int32)
        exact = 255.0 * (np.arange(peak + 1, dtype=np.float32) / np.float32(peak)).astype(
            np.float64
        )
        assert np.array_equal(_to_bytes(sums[None, None])[0, 0].numpy(), np.trunc(exact)), peak


def test_only_uint8_rgb():
    with pytest.raises(ValueError, match=r"uint8 RGB .* torch.float32"):
        fine_grained(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"uint8 RGB .*\(1, 1, 8, 8\)"):
        fine_grained(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("size", [(64, 48), (97, 131), (224, 224)])
def test_official_saliency_is_opencv_fed_floats(size, detector):
    images = normalised(scene(size))
    theirs = of_opencv(detector, images)  # not flipped: the released code hands over red for blue
    differ = (official_saliency(images).numpy() != theirs).mean()
    assert differ <= 1e-4, (
        "equal but for the rounding of OpenCV's sums; exact on a processor with fused multiply-add"
    )
    true = fine_grained(scene(size)).numpy()
    assert abs(np.corrcoef(theirs.ravel(), true.ravel())[0, 1]) < 0.3, (
        "the released code's map is no saliency"
    )


def test_no_opencv_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"opencv-contrib-python, and libgl1 and libglib2\.0-0"):
        opencv_saliency(noise((8, 8)))


@pytest.mark.parametrize("module", [{}, {"saliency": types.SimpleNamespace()}])
def test_an_opencv_without_the_detector_is_explained(monkeypatch, module):
    """opencv-python over opencv-contrib-python leaves a module with nothing in it."""
    cv2 = types.SimpleNamespace(__version__="9.9", **module)
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    with pytest.raises(ValueError, match=r"9\.9 has no saliency detector.*opencv-contrib-python"):
        opencv_saliency(noise((8, 8)))


def test_saliency_reads_nothing_back(no_waits):
    pixels = scene((32, 32), 5)
    with no_waits():
        fine_grained(pixels)
        official_saliency(normalised(pixels))
