"""MaskMix against a pixel loop, figures worked out by hand, and its draws."""

import pytest
import torch

from baselines.reference import maskmix as literal
from mixbench import step_rng
from mixbench.mix import beta
from mixbench.strategies.maskmix import cells_mask, first_cells
from tests.support.pictures import mix


def test_cells_by_hand():
    """lam 0.3 of 16 cells is 5, 0.3125 of the pixels; the lowest scores come first."""
    assert literal.cells([*range(16)], 0.3) == {0, 1, 2, 3, 4}
    cells = first_cells(torch.tensor([[0.9, 0.1, 0.5, 0.1], [0.0, 0.3, 0.2, 0.1]]), 2)
    assert cells.tolist() == [[0, 1, 0, 1], [1, 0, 0, 1]]


def test_a_grid_that_does_not_divide_the_image():
    """40 px in cells of 14, 14 and 12 px, the diagonal: 536 of 1,600 pixels, not a third."""
    mask = cells_mask(torch.eye(3)[None], 40, 40)
    assert float(mask.mean()) == pytest.approx(0.335, abs=1e-6)
    assert mask[0, 0].equal(torch.from_numpy(literal.mask(40, 40, 3, {0, 4, 8})).float())


@pytest.mark.parametrize(
    ("size", "grid"), [((32, 32), 4), ((33, 47), 4), ((32, 48), 7), ((5, 9), 5)]
)
def test_draws(size, grid):
    """lam for the batch, then a score for each cell of each image."""
    images = torch.randn(5, 3, *size, generator=torch.Generator().manual_seed(0))
    shares = set()
    for step in range(12):
        rng = step_rng(0, step)
        lam, scores = beta(rng, 1.0), torch.rand(5, grid**2, generator=rng)
        mixed = mix(f"maskmix(grid={grid})", images, step=step)
        assert mixed.mask.shape == (5, 1, *size)
        for row in range(5):
            of_a = literal.cells(scores[row].tolist(), lam)
            share = torch.from_numpy(literal.mask(*size, grid, of_a)).float()
            assert mixed.mask[row, 0].equal(share)
            expected = torch.where(share.bool(), images[row], images[4 - row])
            assert mixed.images[row].equal(expected)
        shares.add(len(of_a))
        assert size != (32, 32) or mixed.lam.tolist() == [len(of_a) / 16] * 5
    assert len(shares) > 5


def test_images_smaller_than_the_grid_are_refused():
    with pytest.raises(ValueError, match=r"maskmix grid must be at most .* side, 3 px, not 4"):
        mix("maskmix", torch.randn(2, 3, 3, 8))
