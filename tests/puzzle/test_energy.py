"""Puzzle-Mix's energy against its literal NumPy form and closed forms."""

import math

import numpy as np
import pytest
import torch

from baselines.reference import puzzlemix as literal
from mixbench.puzzle.energy import block_saliency, mask_energy
from mixbench.puzzle.mask import mask_cost, solve_mask
from tests.support.energies import DEFAULTS, MEAN, STD, all_labels, generator, smooth_batch


def test_energy_equals_the_literal_form():
    images, _, gradient = smooth_batch(3, seed=1, height=48, width=32)
    pixels = (images * STD + MEAN).double().numpy()
    for n, num_labels, alpha in ((2, 2, 0.3), (4, 3, 0.7), (8, 4, 0.5)):
        ours = mask_energy(
            block_saliency(gradient, n),
            images,
            STD,
            alpha,
            **{**DEFAULTS, "num_labels": num_labels},
        )
        for a, b in ((0, 2), (1, 1), (2, 0)):
            saliency = [literal.block_saliency(gradient[k].double().numpy(), n) for k in (a, b)]
            assert np.allclose(block_saliency(gradient, n)[a], saliency[0], rtol=1e-5)
            theirs = literal.energy(*saliency, pixels[a], pixels[b], alpha, num_labels=num_labels)
            for term, expected in zip(ours, theirs, strict=True):
                assert np.allclose(term[a], expected, rtol=1e-4, atol=1e-8)


def test_reparametrised_energy_equals_the_four_costs_of_each_edge():
    images, _, gradient = smooth_batch(2, seed=2, height=16, width=16)
    unary, vertical, horizontal = mask_energy(
        block_saliency(gradient, 2), images, STD, 0.3, **{**DEFAULTS, "num_labels": 2}
    )
    pixels = (images * STD + MEAN).double().numpy()
    smoothness = 1.2 / 2 / 16
    costs = literal.pairwise(pixels[0], pixels[1], 2, 2, smoothness * 0.5)
    s_a, s_b = (literal.block_saliency(gradient[k].double().numpy(), 2) for k in (0, 1))
    offsets = []
    for labels in all_labels(2, 2)[:, 0].numpy():
        share = 1 - labels  # of A
        direct = (share * s_b + (1 - share) * s_a).sum() + sum(
            0.2 / 4 * literal.prior(k, 2, 0.3) for k in labels.ravel()
        )
        for r, c in np.ndindex(2, 2):
            if r == 0:
                direct += costs[share[0, c], share[1, c]][0][0, c] + smoothness * (
                    share[0, c] != share[1, c]
                )
            if c == 0:
                direct += costs[share[r, 0], share[r, 1]][1][r, 0] + smoothness * (
                    share[r, 0] != share[r, 1]
                )
        reparametrised = mask_cost(
            torch.from_numpy(labels)[None], unary[:1], vertical[:1], horizontal[:1]
        )
        offsets.append(direct - reparametrised.item())
    assert np.ptp(offsets) < 1e-6 and costs[0, 1][0].min() > 1e-3


def test_without_smoothness_each_block_shows_the_more_salient_image():
    images, _, gradient = smooth_batch(4, seed=3)
    saliency = block_saliency(gradient, 4)
    for alpha in (0.5, 0.9):
        terms = mask_energy(
            saliency, images, STD, alpha, num_labels=2, beta=0.0, gamma=0.0, eta=0.2, cell=2
        )
        shown = solve_mask(*terms)[0] == 0  # A
        assert torch.equal(
            shown, saliency.flip(0) - saliency < 0.2 / 16 * math.log(alpha / (1 - alpha))
        )
        assert 0 < shown.float().mean() < 1
    assert 0.2 / 4 * math.log(9) == pytest.approx(0.109861, abs=1e-6)


@pytest.mark.parametrize(
    ("alpha", "label", "least"), [(0.2, 2, 1.08926), (0.5, 1, 1.13863), (0.8, 0, 1.08926)]
)
@pytest.mark.parametrize("n", [2, 8])
def test_stiff_masks_follow_the_prior_alone(alpha, label, least, n):
    images, _, gradient = smooth_batch(2, seed=4)
    terms = mask_energy(
        block_saliency(gradient, n),
        images,
        STD,
        alpha,
        num_labels=3,
        beta=1e7,
        gamma=0.0,
        eta=0.2,
        cell=2,
    )
    labels, energy, _ = solve_mask(*terms)
    assert (labels == label).all()
    assert energy.tolist() == pytest.approx([least] * 2, abs=2e-5)


def test_exchanging_the_images_mirrors_the_mask():
    images, _, gradient = smooth_batch(2, seed=5)
    saliency = block_saliency(gradient, 8)
    masks = [
        solve_mask(*mask_energy(saliency, images, STD, alpha, **DEFAULTS))[0]
        for alpha in (0.3, 0.7)
    ]
    assert torch.equal(masks[0], 2 - masks[1].flip(0)) and len(masks[0].unique()) > 1


def test_equal_images_have_equal_edges():
    images, _, gradient = smooth_batch(1, seed=6)
    _, vertical, horizontal = mask_energy(block_saliency(gradient, 8), images, STD, 0.5, **DEFAULTS)
    assert torch.allclose(vertical, torch.tensor(1.2 / 8 / 16)) and torch.allclose(
        horizontal, torch.tensor(1.2 / 8 / 16)
    )


def test_saliency_survives_bad_gradients():
    gradient = torch.randn(6, 3, 8, 8, generator=generator(0))
    good = block_saliency(gradient, 4)
    for scale in (1e-30, 1e30, -3.0):
        assert torch.allclose(block_saliency(gradient * scale, 4), good, rtol=1e-5)
    gradient[0], gradient[1, 0, 0, 0], gradient[2, 0, 0, 0] = 0, math.nan, math.inf
    broken = block_saliency(gradient, 4)
    assert torch.equal(broken[:3], torch.full((3, 4, 4), 1 / 16)) and torch.equal(
        broken[3:], good[3:]
    )
