"""Puzzle-Mix's transport against its literal form, hand-worked cases, the best assignment."""

import numpy as np
import pytest
import torch

from baselines.reference import puzzlemix as literal
from mixbench.puzzle.energy import block_saliency, mask_energy
from mixbench.puzzle.mask import solve_mask
from mixbench.puzzle.transport import move_blocks, transport
from tests.support.energies import DEFAULTS, STD, generator, smooth_batch


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["shares", "peaks", "above 1", "holes"])
def test_transport_equals_the_literal_loop_where_it_shows(n, kind):
    rng = generator(n)
    mask = torch.randint(3, (6, n, n), generator=rng).double() / 2
    saliency = torch.rand(6, n, n, generator=rng, dtype=torch.float64) ** (
        8 if kind == "peaks" else 1
    )
    saliency = saliency * 4 if kind == "above 1" else saliency / saliency.sum((1, 2), keepdim=True)
    if kind == "holes":
        saliency = saliency * (torch.rand(6, n, n, generator=rng) > 0.4)
    before = mask.clone(), saliency.clone()
    for eps in (0.05, 0.8, 3.0):
        source = transport(mask, saliency, eps)
        assert source.shape == (6, n * n)
        for b in range(6):
            shown = (mask[b] > 0).flatten()
            assert torch.equal(
                source[b][shown],
                torch.from_numpy(literal.transport(mask[b].numpy(), saliency[b].numpy(), eps))[
                    shown
                ],
            )
    assert torch.equal(mask, before[0]) and torch.equal(saliency, before[1])


def test_a_shown_block_without_saliency_keeps_its_place():
    """The official code leaves such a block grey: its plan has an empty column."""
    mask, saliency = torch.ones(1, 4, 4), torch.full((1, 4, 4), 1 / 15)
    saliency[0, 1, 2] = 0
    assert not literal.transport_plan(mask[0].numpy(), saliency[0].numpy(), 0.8)[:, 6].any()
    assert transport(mask, saliency, 0.8).tolist() == [list(range(16))]
    mask[0, 0, 0] = 0
    assert transport(mask, saliency * 0, 0.0).tolist() == [list(range(16))]


def test_transport_by_hand():
    saliency = torch.tensor([[[0.1, 0.25], [0.25, 0.4]]])
    only_first = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    for eps, source in ((0.0, 3), (0.1, 3), (0.8, 0), (1e6, 0)):
        assert transport(only_first, saliency, eps)[0, 0] == source
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(move_blocks(images, transport(only_first, saliency, 1e6)), images)


def assignment_cost(source, mask, saliency, eps):
    n = mask.shape[-1]
    away = (
        np.array(
            [
                [(i // n - j // n) ** 2 + (i % n - j % n) ** 2 for j in range(n * n)]
                for i in range(n * n)
            ]
        )
        / (n - 1) ** 2
    )
    price = (eps * away - saliency.reshape(-1, 1)) * (mask.ravel() > 0)
    return price, price[source, np.arange(n * n)].sum()


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_transport_is_near_the_best_assignment(n):
    from scipy.optimize import linear_sum_assignment

    images, _, gradient = smooth_batch(8, seed=7)
    saliency = block_saliency(gradient, n)
    mask = 1 - solve_mask(*mask_energy(saliency, images, STD, 0.5, **DEFAULTS))[0].float() / 2
    source, gaps = transport(mask, saliency, 0.8), []
    for s, m, z in zip(source.numpy(), saliency.double().numpy(), mask.numpy(), strict=True):
        price, ours = assignment_cost(s, z, m, 0.8)
        rows, cols = linear_sum_assignment(price)
        best = price[rows, cols].sum()
        assert ours >= best - 1e-9
        gaps.append((ours - best) / abs(best))
    assert np.mean(gaps) <= (1e-6 if n == 2 else 0.03)
    assert n < 16 or not torch.equal(source, torch.arange(n * n).expand(8, -1))


def test_moving_blocks_equals_the_loop_and_keeps_pixels():
    images = torch.randn(3, 2, 12, 20)
    source = torch.stack([torch.randperm(16, generator=generator(k)) for k in range(3)])
    moved = move_blocks(images, source)
    for k in range(3):
        assert np.array_equal(moved[k], literal.move_blocks(images[k].numpy(), source[k].numpy()))
    assert torch.equal(moved.flatten(1).sort(1).values, images.flatten(1).sort(1).values)
    assert torch.equal(move_blocks(images, torch.arange(16).expand(3, -1)), images)


@pytest.mark.parametrize(
    ("mask", "saliency", "eps"),
    [((2, 3, 4), (2, 3, 4), 0.8), ((2, 3, 3), (2, 4, 4), 0.8), ((2, 3, 3), (2, 3, 3), -1.0)],
)
def test_wrong_transports_are_refused(mask, saliency, eps):
    with pytest.raises(ValueError, match=r"mask and saliency|eps"):
        transport(torch.ones(mask), torch.ones(saliency), eps)
