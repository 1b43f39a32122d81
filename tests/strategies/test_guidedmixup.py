"""GuidedMixup against numpy and scipy, figures worked out by hand, and its pairs."""

import numpy as np
import pytest
import torch

from baselines.reference import guidedmixup as literal
from mixbench import create_strategy
from mixbench.services.spectral import gaussian_blur, grey, spectral_residual, spectral_saliency
from mixbench.strategies.guidedmixup import greedy_cycle, saliency_mask
from tests.support.pictures import mix, normalised, scene


def test_a_mask_by_hand():
    of_a, of_b = torch.tensor([[[0.2, 0.3, 0.1, 0.4]], [[0.6, 0.1, 0.1, 0.2]]])
    mask = saliency_mask(of_a[None], of_b[None])
    expected = torch.tensor([0.25, 0.75, 0.5, 2 / 3])
    torch.testing.assert_close(mask.flatten(), expected)
    assert float(mask.mean()) == pytest.approx(0.541667, abs=1e-6)
    nothing = torch.zeros(1, 1, 4)
    assert saliency_mask(nothing, nothing).flatten().tolist() == [0.5] * 4


def test_a_cycle_by_hand():
    distances = torch.tensor([[0, 5, 2, 1], [5, 0, 4, 3], [2, 4, 0, 6], [1, 3, 6, 0.0]])
    partner = greedy_cycle(distances)
    assert partner.tolist() == [2, 0, 3, 1]
    assert float(distances[range(4), partner].sum()) == 16  # the mirror's is 10


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 20])
def test_cycles_against_the_literal_form(rows, no_waits):
    for seed in range(5):
        points = torch.randint(4, (rows, 2), generator=torch.Generator().manual_seed(seed)).double()
        distances = torch.cdist(points, points)  # many ties
        with no_waits():
            partner = greedy_cycle(distances)
        assert partner.tolist() == literal.partners(distances.numpy())
        row, cycle = 0, []
        for _ in range(rows):
            cycle.append(row)
            row = int(partner[row])
        assert sorted(cycle) == [*range(rows)] and row == 0


def waves(height, width):
    """The image (1, 3, H, W) of waves whose saliency was computed by others too."""
    y, x = np.mgrid[:height, :width]
    blue, green = (7 * x + 13 * y) % 256, (x * x // 9 + 3 * y) % 256
    red = (((x - width // 3) ** 2 + (y - height // 2) ** 2) // 5) % 256
    return np.stack([red, green, blue], -1).astype(np.uint8)


def tensor_of(*images):
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def test_saliency_by_figures():
    image = waves(32, 32)
    for saliency in (literal.saliency(image), spectral_saliency(tensor_of(image))[0].numpy()):
        assert divmod(int(saliency.argmax()), 32) == (0, 31)
        assert saliency.max() * 1024 == pytest.approx(3.572071, abs=5e-6)
        assert saliency.min() * 1024 == pytest.approx(0.251546, abs=5e-6)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (4, 9), (128, 96)])
def test_saliency_against_the_literal_form(size):
    images = torch.cat([scene(size, 2), tensor_of(waves(*size))])
    ours = spectral_saliency(images).numpy()
    theirs = np.stack([literal.saliency(image) for image in images.permute(0, 2, 3, 1).numpy()])
    assert np.abs(ours - theirs).max() * theirs[0].size < 1e-4


@pytest.mark.parametrize("size", [(64, 64), (224, 224), (64, 96)])
def test_the_same_functions_are_opencvs_detector(size):
    """With OpenCV's settings: 64 px, no epsilon, blurred once, squared, the highest is 1."""
    cv2 = pytest.importorskip("cv2", reason="needs opencv-contrib-python")
    if not hasattr(cv2, "saliency"):
        pytest.skip("this OpenCV has no saliency module: needs opencv-contrib-python")
    image = scene(size, 1)[0].permute(1, 2, 0).numpy()
    image = np.ascontiguousarray(image[..., ::-1])
    _, theirs = cv2.saliency.StaticSaliencySpectralResidual_create().computeSaliency(image)
    whole = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)  # rounded to whole numbers
    small = cv2.resize(whole, (64, 64), interpolation=cv2.INTER_LINEAR_EXACT)
    images = torch.from_numpy(small)[None].double()
    residual = spectral_residual(images, epsilon=0.0, border="reflect")
    maps = gaussian_blur(residual, 5, 8.0)[0].square().numpy()
    ours = cv2.resize(maps / maps.max(), size[::-1])
    assert np.abs(ours - theirs).max() < 0.005
    assert np.corrcoef(ours.flatten(), theirs.flatten())[0, 1] > 0.99999


def test_brightness_is_opencvs():
    cv2 = pytest.importorskip("cv2", reason="needs opencv-contrib-python")
    pixels = scene((20, 30), 1)
    theirs = cv2.cvtColor(pixels[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
    assert np.abs(grey(pixels)[0].numpy() * 255 - theirs).max() < 0.51


@pytest.mark.parametrize("value", [0, 77, 255])
def test_flat_images_are_alike_everywhere(value):
    saliency = spectral_saliency(torch.full((1, 3, 24, 40), value, dtype=torch.uint8))
    # another machine's FFT leaves 2e-5 of rounding
    torch.testing.assert_close(saliency * 960, torch.ones(1, 24, 40), rtol=0, atol=1e-3)


@pytest.mark.parametrize("pairing", ["greedy", "mirror"])
def test_pixels_and_labels(pairing):
    pixels = scene((48, 40), 5)
    images = normalised(pixels)
    maps = np.stack([literal.saliency(image) for image in pixels.permute(0, 2, 3, 1).numpy()])
    mixed = mix(f"guidedmixup(pairing={pairing})", images)
    apart = np.linalg.norm((maps[:, None] - maps[None]).reshape(5, 5, -1), axis=2)
    partner = literal.partners(apart) if pairing == "greedy" else [4, 3, 2, 1, 0]
    assert mixed.partner.tolist() == partner
    share = torch.from_numpy(maps / (maps + maps[partner])).float()[:, None]
    torch.testing.assert_close(mixed.mask, share, rtol=1e-4, atol=1e-4)
    expected = share * images + (1 - share) * images[partner]
    torch.testing.assert_close(mixed.images, expected, rtol=1e-3, atol=1e-3)
    assert pairing == "greedy" or mixed.images[2].allclose(images[2])


def test_single_images_stay():
    images = normalised(scene((32, 48), 1))
    mixed = mix("guidedmixup", images)
    torch.testing.assert_close(mixed.images, images)
    assert mixed.partner.tolist() == [0] and mixed.lam.tolist() == [0.5]


def test_photographs_are_made_small_for_the_spectrum():
    pixels = scene((200, 140), 2)
    saliency = spectral_saliency(pixels)
    assert saliency.shape == (2, 200, 140)
    torch.testing.assert_close(saliency.sum((1, 2)), torch.ones(2))
    small = torch.nn.functional.interpolate(
        pixels.float(), (128, 128), mode="bilinear", antialias=True
    )
    small = spectral_saliency(small)
    large = torch.nn.functional.interpolate(small[:, None], (200, 140), mode="bilinear")[:, 0]
    for ours, theirs in zip(saliency, large, strict=True):
        assert np.corrcoef(ours.flatten().numpy(), theirs.flatten().numpy())[0, 1] > 0.97


def test_tiny_images_are_refused():
    with pytest.raises(ValueError, match="at least 4 x 4 px, not 3 x 8"):
        mix("guidedmixup", normalised(scene((3, 8), 2)))


def test_mistakes_are_explained():
    with pytest.raises(ValueError, match="greedy, mirror, not 'random'"):
        create_strategy("guidedmixup(pairing=random)")
