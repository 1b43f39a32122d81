"""GridMix against a pixel loop, figures worked out by hand, and its draws."""

import pytest
import torch

from baselines.reference import gridmix as literal
from mixbench import create_strategy, step_rng
from mixbench.mix import beta, randint, send
from mixbench.strategies.gridmix import lattice, paste_lattice
from tests.support.pictures import mix

FIGURES = [  # H, W, cells across, lam: cell, hole, pixels of B, area
    ((8, 8), 2, 0.75, (4, 2), 16, 0.75),
    ((32, 32), 6, 0.5, (6, 4), 484, 0.527344),
    ((32, 32), 6, 0.0, (6, 5), 729, 0.288086),
    ((32, 32), 2, 1.0, (16, 1), 4, 0.996094),
    ((32, 48), 3, 0.5, (16, 11), 726, 0.527344),
]


@pytest.mark.parametrize(("size", "count", "lam", "sides", "of_b", "area"), FIGURES)
def test_by_hand(size, count, lam, sides, of_b, area):
    images = torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(0))
    assert lattice(size[1], count, lam) == sides
    mixed, mask = paste_lattice(images, send([sides], images))
    assert int((mask == 0).sum()) == of_b
    assert float(mask.mean()) == pytest.approx(area, abs=1e-6)
    share = torch.from_numpy(literal.mask(*size, count, lam)).float()
    assert mask[0, 0].equal(share)
    assert mixed.equal(torch.where(share.bool(), images, images.flip(0)))


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (5, 64), (40, 12)])
def test_draws(size):
    """lam, then the number of cells across the width; one lattice a batch."""
    images = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(0))
    counts = set()
    for step in range(30):
        rng = step_rng(0, step)
        lam, count = beta(rng, 0.5), 2 + randint(rng, 5)
        counts.add(count)
        mixed = mix("gridmix(alpha=0.5)", images, step=step)
        share = torch.from_numpy(literal.mask(*size, count, lam)).float()
        assert mixed.mask.equal(share[None, None])
        assert mixed.images.equal(torch.where(share.bool(), images, images.flip(0)))
        assert 0 < float(mixed.lam[0]) < 1
    assert counts == {2, 3, 4, 5, 6}


def test_narrow_images_are_refused():
    assert mix("gridmix", torch.randn(2, 3, 4, 12)).images.shape == (2, 3, 4, 12)
    with pytest.raises(ValueError, match="at most half the images' width, 11 px, not 6"):
        mix("gridmix", torch.randn(2, 3, 32, 11))


def test_low_above_high_is_refused():
    with pytest.raises(ValueError, match="gridmix low must be at most high, not 7 and 6"):
        create_strategy("gridmix(low=7)")
