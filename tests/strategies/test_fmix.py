"""FMix against numpy's FFT, figures worked out by hand, and its draws."""

import numpy as np
import pytest
import torch

from baselines.reference import fmix as literal
from mixbench import step_rng
from mixbench.mix import beta, randint, send, uniform
from mixbench.strategies.fmix import highest, low_frequencies, shares
from tests.support.pictures import mix


def mask_of(picture, lam, up, max_soft=0.0):
    counts = torch.tensor([shares(picture.numel(), lam, up, max_soft)])
    return highest(picture, counts)[0, 0]


@pytest.mark.parametrize(
    ("up", "max_soft", "values", "area"),
    [
        (False, 0.0, [1] * 4, 0.25),
        (True, 0.0, [1] * 5, 0.3125),
        (True, 0.2, [1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0], 0.3125),
    ],
)
def test_shares_by_hand(up, max_soft, values, area):
    """Sixteen pixels of which each is darker than the last, lam 0.3."""
    ranks = torch.arange(15.0, -1, -1).reshape(4, 4)
    mask = mask_of(ranks, 0.3, up, max_soft)
    expected = torch.tensor([*values, *[0] * (16 - len(values))]).float()
    torch.testing.assert_close(mask.flatten(), expected)
    assert float(mask.mean()) == pytest.approx(area, abs=1e-6)


def test_a_spectrum_by_hand():
    noise = torch.zeros(2, 4, 4)
    noise[0, 0, 0] = noise[0, 1, 1] = noise[0, 3, 1] = noise[1, 1, 1] = 1
    picture = low_frequencies(noise, 3.0)
    row = torch.tensor([6.828427, 2.585786, 1.171573, 5.414214])
    torch.testing.assert_close(picture[0], row, rtol=1e-6, atol=1e-6)
    bits = ["".join(str(int(value)) for value in row) for row in mask_of(picture, 6 / 16, False)]
    assert bits == ["1001", "0010", "0110", "1000"]


def normals(size):
    return np.random.default_rng(0).standard_normal((2, *size)).astype(np.float32)


def test_a_picture_of_numpys_normals():
    noise = normals((32, 32))
    picture = low_frequencies(torch.from_numpy(noise), 3.0)
    assert divmod(int(picture.argmax()), 32) == (9, 22)
    mask = mask_of(picture, 409 / 1024, False)
    assert mask.sum() == 409 and mask.sum(1)[:4].tolist() == [0, 7, 15, 20]


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (1, 7), (48, 32)])
@pytest.mark.parametrize("decay", [0.0, 3.0, 10.0])
def test_numpys_transform(size, decay):
    noise = normals(size)
    ours = low_frequencies(torch.from_numpy(noise), decay)
    theirs = literal.picture(*noise.astype(float), decay)
    assert np.abs(ours.numpy() - theirs).max() <= 1e-6 * max(np.ptp(theirs), np.abs(theirs).max())
    for lam, up in ((0.3, True), (0.5, False), (0.0, True), (1.0, False)):
        expected = literal.mask(theirs, lam, up, 0.0)
        assert mask_of(ours, lam, up).equal(torch.from_numpy(expected).float())


@pytest.mark.parametrize(("lam", "max_soft"), [(0.3, 0.1), (0.5, 0.5), (0.0, 0.1), (1.0, 0.5)])
def test_soft_edges_fall_in_equal_steps(lam, max_soft):
    picture = low_frequencies(torch.from_numpy(normals((33, 47))), 3.0)
    expected = literal.mask(picture.numpy(), lam, True, max_soft)
    torch.testing.assert_close(
        mask_of(picture, lam, True, max_soft), torch.from_numpy(expected).float()
    )


def test_a_turned_spectrum_gives_the_turned_picture():
    """Width and height are alike; the released code's pictures have two width frequencies."""
    noise = torch.from_numpy(normals((33, 48)))
    turned = low_frequencies(noise.transpose(1, 2), 3.0)
    torch.testing.assert_close(turned.T, low_frequencies(noise, 3.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 5)])
@pytest.mark.parametrize("max_soft", [0.0, 0.3])
def test_draws(size, max_soft):
    """lam, the coin that rounds, the seed of the noise; one mask a batch."""
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    for step in range(8):
        rng = step_rng(0, step)
        lam, up = beta(rng, 1.0), uniform(rng) < 0.5
        generator = torch.Generator().manual_seed(randint(rng, 2**63 - 1))
        noise = torch.randn(2, *size, generator=generator).double().numpy()
        share = literal.mask(literal.picture(*noise, 3.0), lam, up, max_soft)
        mixed = mix(f"fmix(max_soft={max_soft})", images, step=step)
        share = torch.from_numpy(share).float()
        torch.testing.assert_close(mixed.mask, share[None, None])
        torch.testing.assert_close(mixed.images, share * images + (1 - share) * images.flip(0))


def test_autocast_leaves_the_mask_alone():
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    plain = mix("fmix", images)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = mix("fmix", images)
    assert lowered.mask.equal(plain.mask) and lowered.images.equal(plain.images)


def test_noise_is_sent_without_a_wait(gpu):
    noise = send(torch.randn(2, 4, 4), torch.empty(1, 3, 4, 4, device="cuda"))
    assert noise.device.type == "cuda" and noise.dtype == torch.float32 and not gpu.waits
