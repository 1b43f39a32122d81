"""Puzzle-Mix against its literal NumPy form, brute force, maximum flow, assignment, and closed forms."""

import copy
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines.reference import puzzlemix as literal
from mixbench import MixContext, create_strategy, make_context, puzzle, step_rng
from mixbench.mix import beta, randint
from mixbench.puzzle.energy import block_saliency, mask_energy
from mixbench.puzzle.mask import mask_cost, solve_mask
from mixbench.puzzle.transport import move_blocks, transport
from mixbench.strategies.puzzlemix import BLOCKS, block_numbers, cell_size
from mixbench.testing import MEAN, STD, check_strategy

MEAN, STD = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
DEFAULTS = {"num_labels": 3, "beta": 1.2, "gamma": 0.5, "eta": 0.2, "cell": 2}


@pytest.fixture
def cut(monkeypatch):
    """Let the dual solver take small grids too."""
    monkeypatch.setattr(puzzle, "EXACT_STATES", 0)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def problem(batch, n, num_labels, seed=0, weight=1.0, dtype=torch.float64):
    rng = generator(seed)
    unary = torch.randn(batch, n, n, num_labels, generator=rng, dtype=dtype)
    vertical = torch.rand(batch, n - 1, n, generator=rng, dtype=dtype) * weight
    return unary, vertical, torch.rand(batch, n, n - 1, generator=rng, dtype=dtype) * weight


def smooth(*shape, seed, blur):
    """Noise blurred over `blur` pixels, scaled to [0, 1] in each image, like the large shapes of photographs."""
    noise = torch.randn(
        *shape[:-2], shape[-2] + blur - 1, shape[-1] + blur - 1, generator=generator(seed)
    )
    blurred = F.avg_pool2d(noise, blur, 1)
    low, high = blurred.amin((-2, -1), keepdim=True), blurred.amax((-2, -1), keepdim=True)
    return (blurred - low) / (high - low)


def photographs(batch, seed, height=64, width=64):
    """Images normalised, labels, and a gradient that is large on a blob of each image."""
    pixels = smooth(batch, 3, height, width, seed=seed, blur=9)
    blob = smooth(batch, 1, height, width, seed=seed + 1, blur=15) ** 4
    gradient = blob * torch.randn(batch, 3, height, width, generator=generator(seed + 2)) * 1e-4
    return (pixels - MEAN) / STD, torch.arange(batch) % 5, gradient


def energies(batch, n, alpha, seed=0, num_labels=3):
    images, _, gradient = photographs(batch, seed)
    return mask_energy(
        block_saliency(gradient, n), images, STD, alpha, **{**DEFAULTS, "num_labels": num_labels}
    )


def all_labels(n, num_labels, batch=1):
    every = torch.tensor(list(itertools.product(range(num_labels), repeat=n * n)))
    return every.reshape(-1, 1, n, n).expand(-1, batch, -1, -1)


def least_by_flow(unary, vertical, horizontal):
    """The least energy of one problem in whole numbers by scipy's maximum flow on Ishikawa's graph; weights divide by (L-1)^2."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import maximum_flow

    n, _, num_labels = unary.shape
    node = np.arange(n * n * (num_labels - 1)).reshape(
        n, n, num_labels - 1
    )  # on the sink's side: label > k
    source, sink, forbidden = node.size, node.size + 1, 10**9
    arcs, constant = [], int(unary[:, :, 0].sum())
    for r, c in np.ndindex(n, n):
        for k, step in enumerate(np.diff(unary[r, c])):
            if step > 0:
                arcs.append((source, node[r, c, k], step))
            else:
                constant += int(step)
                arcs.append((node[r, c, k], sink, -step))
        arcs += [(node[r, c, k], node[r, c, k + 1], forbidden) for k in range(num_labels - 2)]
    edges = [((r, c), (r + 1, c), vertical[r, c]) for r, c in np.ndindex(n - 1, n)]
    edges += [((r, c), (r, c + 1), horizontal[r, c]) for r, c in np.ndindex(n, n - 1)]
    for one, other, weight in edges:
        unit = weight // (num_labels - 1) ** 2
        for k, m in itertools.product(range(num_labels - 1), repeat=2):
            if k <= m:  # second differences of d^2: 1 at 0, then 2
                for i, j in ((one, other), (other, one)):
                    arcs.append((node[i][k], node[j][m], unit * (1 if k == m else 2)))
    heads, tails, capacity = np.array(arcs, dtype=np.int64).T
    graph = coo_array(
        (capacity.astype(np.int32), (heads, tails)), shape=(node.size + 2,) * 2
    ).tocsr()
    return constant + maximum_flow(graph, source, sink).flow_value


def whole(unary, vertical, horizontal, scale):
    """The problem in whole numbers, near enough to scale times itself."""
    square = (unary.shape[-1] - 1) ** 2
    return (unary * scale).round(), *(
        (edges * scale / square).round() * square for edges in (vertical, horizontal)
    )


# The mask.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "num_labels"), [(1, 4), (2, 2), (2, 3), (2, 4), (3, 2), (3, 3)])
def test_dynamic_programming_equals_brute_force(n, num_labels, dtype):
    for weight in (0.0, 0.3, 3.0):
        terms = problem(7, n, num_labels, weight=weight, dtype=dtype)
        labels, energy, bound = solve_mask(*terms)
        least = mask_cost(all_labels(n, num_labels, 7), *terms).min(0).values
        assert torch.allclose(energy, least, rtol=1e-12, atol=1e-12) and torch.equal(bound, energy)
        for b in range(7):
            assert literal.cost(
                labels[b].numpy(), *(t[b].double().numpy() for t in terms)
            ) == pytest.approx(energy[b].item(), rel=1e-12)


@pytest.mark.parametrize(("n", "num_labels"), [(2, 2), (2, 3), (2, 4), (3, 2), (3, 3)])
def test_dual_solver_equals_brute_force_on_small_grids(cut, n, num_labels):
    for weight in (0.0, 0.3, 3.0):
        terms = problem(7, n, num_labels, weight=weight)
        _, energy, bound = solve_mask(*terms)
        least = mask_cost(all_labels(n, num_labels, 7), *terms).min(0).values
        assert torch.allclose(energy, least, rtol=1e-12, atol=1e-12)
        assert (bound <= least).all() and torch.allclose(bound, least, atol=1e-5)


@pytest.mark.parametrize(("n", "num_labels"), [(4, 3), (4, 4), (8, 2), (6, 3)])
def test_dynamic_programming_equals_maximum_flow(n, num_labels):
    terms = whole(*problem(4, n, num_labels, seed=n), 1000)
    assert num_labels**n <= puzzle.EXACT_STATES
    _, energy, _ = solve_mask(*terms)
    assert energy.tolist() == [
        least_by_flow(*(t[b].long().numpy() for t in terms)) for b in range(4)
    ]


@pytest.mark.parametrize(("n", "num_labels"), [(8, 3), (16, 2), (16, 3), (8, 4)])
def test_dual_solver_is_within_its_certificate_and_near_the_optimum(n, num_labels):
    """On energies as photographs give them: bound <= optimum <= energy, and the mean gap at most 1e-4."""
    gaps, distances = [], []
    for alpha in (0.2, 0.5, 0.9):
        terms = whole(*(t.double() for t in energies(4, n, alpha, num_labels=num_labels)), 1e7)
        labels, energy, bound = solve_mask(*terms)
        least = torch.tensor(
            [least_by_flow(*(t[b].long().numpy() for t in terms)) for b in range(4)]
        ).double()
        assert len(labels.unique()) > 1
        assert (
            (bound <= least).all()
            and (least <= energy).all()
            and torch.equal(energy, mask_cost(labels, *terms))
        )
        gaps.append(((energy - least) / least).mean())
        distances.append(((least - bound) / least).mean())
    assert sum(gaps) / 3 <= 1e-5 and sum(distances) / 3 <= 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "kind",
    [
        "huge edges",
        "tiny edges",
        "no edges",
        "equal",
        "heavy tails",
        "tiny",
        "huge",
        "sparse",
        "zero",
    ],
)
def test_certificate_holds_for_odd_energies(kind, dtype):
    unary, vertical, horizontal = problem(3, 8, 3, seed=5)
    unary, vertical, horizontal = {
        "huge edges": (unary, vertical * 1e9, horizontal * 1e9),
        "tiny edges": (unary, vertical * 1e-12, horizontal * 1e-12),
        "no edges": (unary, vertical * 0, horizontal * 0),
        "equal": (unary * 0 + 0.7, vertical, horizontal),
        "heavy tails": (unary**-3, vertical, horizontal),
        "tiny": (unary * 1e-25, vertical * 1e-25, horizontal * 1e-25),
        "huge": (unary * 1e20, vertical * 1e20, horizontal * 1e20),
        "sparse": (unary, vertical * (vertical > 0.7), horizontal * (horizontal > 0.7)),
        "zero": (unary * 0, vertical * 0, horizontal * 0),
    }[kind]
    terms = [t.to(dtype) for t in (unary, vertical, horizontal)]
    before = [t.clone() for t in terms]
    labels, energy, bound = solve_mask(*terms)
    assert all(torch.equal(t, old) for t, old in zip(terms, before, strict=True))
    assert labels.dtype == torch.int64 and labels.min() >= 0 and labels.max() <= 2
    exact = [t.double() for t in terms]
    assert torch.equal(energy, mask_cost(labels, *exact))
    assert (bound <= energy).all()
    others = [torch.full_like(labels, k) for k in range(3)] + [exact[0].argmin(3)]
    others += [torch.randint(3, labels.shape, generator=generator(k)) for k in range(20)]
    assert all((energy <= mask_cost(other, *exact)).all() for other in others)
    if kind in ("no edges", "tiny edges", "equal", "zero"):
        assert torch.allclose(energy, exact[0].amin(3).sum((1, 2)), rtol=1e-6) and torch.allclose(
            bound, energy, rtol=1e-6
        )


@pytest.mark.parametrize("num_labels", [2, 3])
def test_any_flow_gives_a_bound(num_labels):
    """Whatever the dual solver returns: flows beyond the capacities, against the one way arcs, and none."""
    unary, vertical, horizontal = problem(5, 3, num_labels)
    least = mask_cost(all_labels(3, num_labels, 5), unary, vertical, horizontal).min(0).values
    weight = torch.zeros(2, 1, 3, 3, 5, dtype=torch.float64)
    weight[0, 0, :, :-1], weight[1, 0, :-1] = horizontal.permute(1, 2, 0), vertical.permute(1, 2, 0)
    weight = weight.flatten(2, 3) / (num_labels - 1) ** 2
    arcs = (num_labels - 1) ** 2
    for scale in (0.0, 0.1, 1.0, 100.0):
        flow = torch.randn(2, arcs, 9, 5, generator=generator(1), dtype=torch.float64) * scale
        assert (puzzle._bound(unary, weight, flow, 3) <= least).all()
    assert torch.allclose(puzzle._bound(unary, weight, flow * 0, 3), unary.amin(3).sum((1, 2)))
    stiffer = puzzle._flow(
        unary.diff(dim=3).permute(3, 1, 2, 0).flatten(1, 2).contiguous(), weight * 5, 3
    )[1]
    assert (puzzle._bound(unary, weight * 5, stiffer, 3) > least + 0.1).any()
    assert (puzzle._bound(unary, weight, stiffer, 3) <= least).all()


def test_swapping_the_labels_of_the_optimum_is_symmetric(cut):
    """Mirrored labels, rows or columns give the same energy: a wrong arc or offset would not."""
    unary, vertical, horizontal = problem(4, 5, 4, weight=0.5)
    _, energy, _ = solve_mask(unary, vertical, horizontal)
    assert torch.allclose(solve_mask(unary.flip(3), vertical, horizontal)[1], energy)
    assert torch.allclose(
        solve_mask(unary.flip(1), vertical.flip(1), horizontal.flip(1))[1], energy
    )
    assert torch.allclose(solve_mask(unary.transpose(1, 2), horizontal.mT, vertical.mT)[1], energy)


def test_a_large_batch_is_solved_image_by_image():
    terms = energies(puzzle.CACHE_IMAGES + 3, 8, 0.5)
    together = solve_mask(*terms)
    for b in (0, puzzle.CACHE_IMAGES - 1, puzzle.CACHE_IMAGES, puzzle.CACHE_IMAGES + 2):
        alone = solve_mask(*(t[b : b + 1] for t in terms))
        assert torch.equal(alone[0][0], together[0][b]) and torch.allclose(
            alone[2][0], together[2][b]
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda u, v, h: (u[:, :1], v, h),
        lambda u, v, h: (u[..., :1], v, h),
        lambda u, v, h: (u, h, v),
        lambda u, v, h: (u, v, h[:1]),
        lambda u, v, h: (u, -v, h),
        lambda u, v, h: (u, v, h * math.nan),
    ],
)
def test_wrong_energies_are_refused(change):
    with pytest.raises(ValueError, match=r"unary|vertical|horizontal"):
        solve_mask(*change(*problem(2, 3, 3)))


# The energy.


def test_energy_equals_the_literal_form():
    images, _, gradient = photographs(3, seed=1, height=48, width=32)
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
            for one, other in zip(ours, theirs, strict=True):
                assert np.allclose(one[a], other, rtol=1e-4, atol=1e-8)


def test_reparametrised_energy_equals_the_four_costs_of_each_edge():
    images, _, gradient = photographs(2, seed=2, height=16, width=16)
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
    images, _, gradient = photographs(4, seed=3)
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
    images, _, gradient = photographs(2, seed=4)
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
    images, _, gradient = photographs(2, seed=5)
    saliency = block_saliency(gradient, 8)
    masks = [
        solve_mask(*mask_energy(saliency, images, STD, alpha, **DEFAULTS))[0]
        for alpha in (0.3, 0.7)
    ]
    assert torch.equal(masks[0], 2 - masks[1].flip(0)) and len(masks[0].unique()) > 1


def test_equal_images_have_equal_edges():
    images, _, gradient = photographs(1, seed=6)
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


# The transport.


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

    images, _, gradient = photographs(8, seed=7)
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


# The strategy.


def context(gradient, step=0):
    return MixContext(
        rng=step_rng(0, step), mean=MEAN, std=STD, input_gradient=lambda images, labels: gradient
    )


@pytest.mark.parametrize(
    "spec",
    [
        "puzzlemix",
        "puzzlemix(num_labels=2, transport=False)",
        "puzzlemix(num_labels=4, neigh_size=4, clean_lam=0.5)",
        "puzzlemix(adv_p=1.0)",
        "transmix(base=puzzlemix)",
        "alternate(first=puzzlemix, second=mixup)",
    ],
)
def test_puzzlemix_passes_the_kit(spec):
    check_strategy(create_strategy(spec), moves_pixels=True)


@pytest.mark.parametrize(
    "spec", ["puzzlemix(transport=False)", "puzzlemix(transport=False, num_labels=2)"]
)
def test_without_transport_every_pixel_is_where_it_was(spec):
    check_strategy(create_strategy(spec))


@pytest.mark.parametrize(
    "fields", [{}, {"num_labels": 2, "transport_eps": 0.05}, {"num_labels": 4, "transport": False}]
)
def test_mix_equals_the_literal_form(fields):
    """Draws replayed, then image by image: pixels, mask and lam."""
    images, labels, gradient = photographs(3, seed=8, height=64, width=32)
    strategy = create_strategy(f"puzzlemix({', '.join(f'{k}={v}' for k, v in fields.items())})")
    pixels, seen = (images * STD + MEAN).double().numpy(), set()

    def solve(*terms):  # held to brute force and maximum flow above
        return solve_mask(*(torch.from_numpy(t)[None] for t in terms))[0][0].numpy()

    for step in range(8):
        mixed = strategy.mix(images, labels, context(gradient, step))
        rng = step_rng(0, step)
        n = BLOCKS[randint(rng, 4)]
        alpha = beta(rng, 1.0)
        seen.add(n)
        for a in range(3):
            b = 2 - a
            expected, mask, lam = literal.puzzlemix(
                pixels[a],
                pixels[b],
                *(gradient[k].double().numpy() for k in (a, b)),
                alpha,
                n,
                num_labels=strategy.num_labels,
                cell=cell_size(64 // n, 32 // n, 2),
                transport_eps=strategy.transport_eps if strategy.transport else None,
                solve=literal.brute_force if n == 2 else solve,
            )
            assert np.allclose(mixed.mask[a, 0], mask, atol=1e-6)
            assert mixed.lam[a].item() == pytest.approx(lam, abs=1e-6)
            assert np.allclose((mixed.images * STD + MEAN)[a], expected, atol=1e-5)
        assert mixed.partner.tolist() == [2, 1, 0]
    assert len(seen) > 2


def test_block_numbers_are_those_that_divide():
    assert block_numbers(224, 224, 2) == [2, 4, 8, 16] and block_numbers(32, 32, 4) == [2, 4, 8, 16]
    assert block_numbers(224, 224, 4) == [2, 4, 8]  # the official code fails at 16
    assert block_numbers(224, 160, 2) == [2, 4, 8, 16] and block_numbers(36, 48, 2) == [2]
    assert block_numbers(230, 230, 2) == [2] and cell_size(115, 115, 2) == 1
    for size in ((33, 32), (32, 35)):
        with pytest.raises(
            ValueError,
            match=rf"{size[0]}x{size[1]}.*{size[0] + size[0] % 2}x{size[1] + size[1] % 2}",
        ):
            block_numbers(*size, 2)


@pytest.mark.parametrize(
    "spec",
    [
        "alpha=0",
        "num_labels=5",
        "gamma=1.5",
        "neigh_size=0",
        "transport_eps=-1",
        "adv_p=2",
        "clean_lam=-1",
        "beta=-1",
    ],
)
def test_wrong_parameters_are_refused(spec):
    with pytest.raises(ValueError, match=rf"puzzlemix {spec.split('=')[0]} must be"):
        create_strategy(f"puzzlemix({spec})")


def test_pixels_stay_finite_whatever_the_gradient():
    images, labels, gradient = photographs(4, seed=9, height=32, width=32)
    for bad in (gradient * 0, gradient * math.nan, (gradient * 1e-6).half()):
        for spec in ("puzzlemix", "puzzlemix(adv_p=1.0)"):
            mixed = create_strategy(spec).mix(images, labels, context(bad))
            assert mixed.images.isfinite().all() and mixed.lam.isfinite().all()


def test_adversarial_noise_is_bounded_and_climbs():
    images, labels, gradient = photographs(4, seed=10, height=32, width=32)
    gradient = gradient.abs() + 1e-9
    largest = 0.0
    for step in range(8):
        clean = create_strategy("puzzlemix(transport=False)").mix(
            images, labels, context(gradient, step)
        )
        noisy = create_strategy("puzzlemix(transport=False, adv_p=1.0)").mix(
            images, labels, context(gradient, step)
        )
        assert torch.equal(clean.mask, noisy.mask)
        pixels = noisy.images * STD + MEAN
        change = pixels - (clean.images * STD + MEAN)
        assert pixels.min() >= -1e-5 and pixels.max() <= 1 + 1e-5
        assert (
            change.min() >= -1e-5 and change.max() <= 10 / 255 + 1e-5
        )  # adv_eps + 2 outweighs any random start
        largest = max(largest, change.max().item())
    assert largest > 7 / 255
    half = [
        create_strategy("puzzlemix(transport=False, adv_p=0.5)").mix(
            images, labels, context(gradient, step)
        )
        for step in range(12)
    ]
    plain = [
        create_strategy("puzzlemix(transport=False)").mix(images, labels, context(gradient, step))
        for step in range(12)
    ]
    same = [torch.equal(a.images, b.images) for a, b in zip(half, plain, strict=True)]
    assert 0 < sum(same) < 12


class Small(torch.nn.Module):
    """Linear, with batch norm and dropout, so that a careless saliency pass shows."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.head = (
            torch.nn.BatchNorm2d(3),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(3 * 16 * 16, 5),
        )
        self.norm.bias.requires_grad_(False)

    def forward(self, images):
        return self.head(self.drop(self.norm(images)).flatten(1))


def test_saliency_pass_leaves_the_model_as_it_was():
    images, labels, _ = photographs(4, seed=11, height=16, width=16)
    model = Small().train()
    model.drop.eval()
    F.cross_entropy(model(images), labels).backward()
    state = copy.deepcopy(model.state_dict())
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    flags = [(m.training) for m in model.modules()], [p.requires_grad for p in model.parameters()]
    strategy = create_strategy("puzzlemix")
    mixed = strategy.mix(
        images, labels, make_context(strategy, model, images, seed=0, step=0, mean=MEAN, std=STD)
    )
    assert not mixed.images.requires_grad and not images.requires_grad and images.grad is None
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(
        torch.equal(p.grad, grads[name]) for name, p in model.named_parameters() if name in grads
    )
    assert flags == (
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
    )


def step_of(spec, model):
    """The loss of one training step as train.py takes it."""
    from mixbench.training.learner import Learner
    from mixbench.training.objective import forward_pass, mixed_loss

    images, labels, _ = photographs(2, seed=12, height=32, width=32)
    strategy = create_strategy(spec)
    learner = Learner(
        strategy=strategy, mixing=strategy, model=model, net=forward_pass(model, None, False)
    )
    return mixed_loss(
        learner,
        strategy,
        images,
        labels,
        num_classes=10,
        smoothing=0.1,
        amp=False,
        seed=0,
        step=1,
        mean=MEAN,
        std=STD,
    ).loss


def vit():
    import timm

    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=96,
        depth=4,
        num_heads=3,
        num_classes=10,
    )


def test_clean_lam_adds_the_loss_of_the_unmixed_batch():
    model = vit()
    images, labels, _ = photographs(2, seed=12, height=32, width=32)
    mixed, both = step_of("puzzlemix", model), step_of("puzzlemix(clean_lam=0.7)", model)
    assert all(p.grad is None for p in model.parameters())
    clean = F.cross_entropy(model(images), labels, label_smoothing=0.1)
    assert both.item() == pytest.approx(mixed.item() + 0.7 * clean.item(), rel=1e-5)


def test_a_step_costs_as_much_as_one_forward_and_one_input_gradient_more():
    from torch.utils.flop_counter import FlopCounterMode

    flops = {}
    for spec in ("cutmix", "puzzlemix"):
        model = vit()
        with FlopCounterMode(display=False) as counter:
            step_of(spec, model).backward()
        flops[spec] = counter.get_total_flops()
    assert 1.5 < flops["puzzlemix"] / flops["cutmix"] < 1.71


def test_an_inf_or_nan_pixel_harms_no_other_row():
    images, labels, _ = photographs(4, seed=3, height=32, width=32)
    for bad in (math.inf, math.nan):
        spoiled = images.clone()
        spoiled[0, 1, 3, 4] = bad
        strategy = create_strategy("puzzlemix")
        for step in range(6):
            mixed = strategy.mix(
                spoiled,
                labels,
                make_context(strategy, vit(), spoiled, seed=1, step=step, mean=MEAN, std=STD),
            )
            assert mixed.images[1:3].isfinite().all() and mixed.lam.isfinite().all()


# The kernel of a GPU: in Triton's interpreter, and compiled, without a GPU.


def drawn_flow_problem(levels, n, batch):
    rng = torch.Generator().manual_seed(levels)
    weight = torch.zeros(2, 1, n, n, batch)
    weight[0, 0, :, :-1] = 2 * torch.rand(n, n - 1, batch, generator=rng)
    weight[1, 0, :-1] = (
        3
        * torch.rand(n - 1, n, batch, generator=rng)
        * (torch.rand(n - 1, n, batch, generator=rng) > 0.3)
    )
    return torch.randn(levels, n * n, batch, generator=rng), weight.flatten(2, 3)


def usable_triton():
    triton = pytest.importorskip("triton", reason="triton is not installed: pip install triton")
    if not hasattr(triton.language, "gather"):
        pytest.skip(
            "Triton 3.2, of torch 2.6, has no gather: there the masks are solved by the loop"
        )
    return triton


KERNEL_CASES = [(1, 5, 2), (2, 3, 2), (2, 8, 1), (3, 4, 2)]  # levels, n, batch


def test_the_kernel_equals_the_loop(tmp_path, monkeypatch):
    """Up to the order of sums, in Triton's interpreter, which must be chosen before Triton is imported."""
    usable_triton()
    monkeypatch.setattr(puzzle, "STEPS", 30)
    problems = [drawn_flow_problem(*case) for case in KERNEL_CASES]
    torch.save(problems, tmp_path / "problems.pt")
    script = """if True:
        import sys, torch
        from mixbench.puzzle.mask_triton import flow
        cases, folder = eval(sys.argv[1]), sys.argv[2]
        problems = torch.load(folder + "/problems.pt")
        solved = [flow(*p, n, 30 * max(levels, 2), 1.25 / (8 * levels)) for p, (levels, n, _) in zip(problems, cases)]
        torch.save(solved, folder + "/solved.pt")"""
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    subprocess.run(
        [sys.executable, "-c", script, str(KERNEL_CASES), str(tmp_path)],
        check=True,
        env=environment,
    )
    for problem, (levels, n, batch), (x, flow) in zip(
        problems, KERNEL_CASES, torch.load(tmp_path / "solved.pt"), strict=True
    ):
        expected_x, expected_flow = puzzle._flow(*problem, n)
        assert flow.shape == (2, levels**2, n * n, batch) and expected_flow.abs().max() > 0.1
        torch.testing.assert_close(x, expected_x, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(flow, expected_flow, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("levels, warps", [(2, 4), (3, 8)])
def test_the_kernel_compiles_for_gpus(capability, levels, warps):
    triton = usable_triton()
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("interpreting: nothing is compiled")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mixbench.puzzle.mask_triton import _loop

    constants = {"steps": 240, "levels": levels, "arcs": levels**2}
    constants |= {
        "LEVELS": triton.next_power_of_2(levels),
        "ARCS": triton.next_power_of_2(levels**2),
        "N": 256,
    }
    kinds = {"batch": "i32", "n": "i32", "step": "fp32"}
    signature = {
        name: "constexpr" if name in constants else kinds.get(name, "*fp32")
        for name in _loop.arg_names
    }
    made = triton.compile(
        ASTSource(_loop, signature, constants),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps},
    )
    assert made.asm["cubin"] and made.metadata.shared <= 48 * 1024


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton works here")
def test_a_machine_where_triton_does_not_work_is_told():
    puzzle._triton_flow.cache_clear()
    with pytest.warns(
        UserWarning, match="thousands of launches instead of one: Triton cannot be used"
    ):
        assert puzzle._triton_flow(torch.device("cpu")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("labels", [2, 3, 4])
@pytest.mark.parametrize("n", [8, 16])
def test_a_gpu_solves_masks_as_well_without_a_wait(n, labels):
    rng = torch.Generator().manual_seed(n)
    terms = (
        torch.rand(32, n, n, labels, generator=rng),
        torch.rand(32, n - 1, n, generator=rng),
        torch.rand(32, n, n - 1, generator=rng),
    )
    there = [term.cuda() for term in terms]
    assert puzzle._triton_flow(there[0].device) is not None
    solve_mask(*there)  # compiles the kernel
    torch.cuda.set_sync_debug_mode("error")
    try:
        found, energy, bound = solve_mask(*there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = solve_mask(*terms)[1]
    torch.testing.assert_close(energy.cpu(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(mask_cost(found.cpu(), *terms), energy.cpu())
    assert (bound <= energy).all() and ((energy - bound) <= 1e-3 * energy.abs()).all()
