"""Puzzle-Mix's mask against brute force, maximum flow, and its certificate."""

import itertools
import math

import numpy as np
import pytest
import torch

from baselines.reference import puzzlemix as literal
from mixbench.puzzle import mask as solver
from mixbench.puzzle.mask import mask_cost, solve_mask
from tests.support.energies import all_labels, energies, generator, problem


@pytest.fixture
def cut(monkeypatch):
    """Let the dual solver take small grids too."""
    monkeypatch.setattr(solver, "EXACT_STATES", 0)


def least_by_flow(unary, vertical, horizontal):
    """The least energy of a problem in whole numbers, by scipy's maximum flow on Ishikawa's graph.

    The weights divide by (L-1)^2.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import maximum_flow

    n, _, num_labels = unary.shape
    levels = num_labels - 1
    node = np.arange(n * n * levels).reshape(n, n, levels)  # on the sink's side: label > k
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
    for first, second, weight in edges:
        unit = weight // (num_labels - 1) ** 2
        for k, m in itertools.product(range(num_labels - 1), repeat=2):
            if k <= m:  # second differences of d^2: 1 at 0, then 2
                for i, j in ((first, second), (second, first)):
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
    assert num_labels**n <= solver.EXACT_STATES
    _, energy, _ = solve_mask(*terms)
    assert energy.tolist() == [
        least_by_flow(*(t[b].long().numpy() for t in terms)) for b in range(4)
    ]


@pytest.mark.parametrize(("n", "num_labels"), [(8, 3), (16, 2), (16, 3), (8, 4)])
def test_dual_solver_is_within_its_certificate_and_near_the_optimum(n, num_labels):
    """On energies as photographs give them: bound <= optimum <= energy, mean gap below 1e-4."""
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
    """Whatever the dual solver returns: flows beyond the capacities, against one-way arcs, none."""
    unary, vertical, horizontal = problem(5, 3, num_labels)
    least = mask_cost(all_labels(3, num_labels, 5), unary, vertical, horizontal).min(0).values
    weight = torch.zeros(2, 1, 3, 3, 5, dtype=torch.float64)
    weight[0, 0, :, :-1], weight[1, 0, :-1] = horizontal.permute(1, 2, 0), vertical.permute(1, 2, 0)
    weight = weight.flatten(2, 3) / (num_labels - 1) ** 2
    arcs = (num_labels - 1) ** 2
    for scale in (0.0, 0.1, 1.0, 100.0):
        flow = torch.randn(2, arcs, 9, 5, generator=generator(1), dtype=torch.float64) * scale
        assert (solver._bound(unary, weight, flow, 3) <= least).all()
    assert torch.allclose(solver._bound(unary, weight, flow * 0, 3), unary.amin(3).sum((1, 2)))
    stiffer = solver._flow(
        unary.diff(dim=3).permute(3, 1, 2, 0).flatten(1, 2).contiguous(), weight * 5, 3
    )[1]
    assert (solver._bound(unary, weight * 5, stiffer, 3) > least + 0.1).any()
    assert (solver._bound(unary, weight, stiffer, 3) <= least).all()


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
    terms = energies(solver.CACHE_IMAGES + 3, 8, 0.5)
    together = solve_mask(*terms)
    for b in (0, solver.CACHE_IMAGES - 1, solver.CACHE_IMAGES, solver.CACHE_IMAGES + 2):
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
