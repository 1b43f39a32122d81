"""The page on Puzzle-Mix's mask: the exact cut by brute force, figures by hand."""

import numpy as np
import pytest
import torch

from baselines import puzzle_mask
from baselines.puzzle_mask import Solved, page
from mixbench.puzzle.mask import mask_cost
from tests.support.energies import all_labels, problem


def test_the_exact_cut_is_the_least_of_all_labelings():
    pytest.importorskip("maxflow")
    energy = problem(6, 2, 3, seed=3)
    costs = mask_cost(all_labels(2, 3, 6), *energy)
    found = mask_cost(puzzle_mask.exact(energy), *energy)
    assert torch.allclose(found, costs.min(0).values)


def test_fewer_steps_leave_the_solver_as_it_is():
    energy = problem(2, 8, 3)
    before = puzzle_mask.ours(energy)
    puzzle_mask.ours_in_fewer_steps(energy)
    assert torch.equal(puzzle_mask.ours(energy), before)


def test_figures_are_medians_ratios_of_rounds_and_gaps():
    solved = [
        Solved(16, "gco, swap", [1.0, 3.0, 2.0], np.array([0.25, 0.0])),
        Solved(16, "mixbench", [2.0, 9.0, 8.0], np.array([1e-9, 0.0])),
    ]
    text = page(solved, "python x.py", "2026-01-01")
    assert "| 16 x 16 | mixbench | 8.0 | 3.00 [2.00, 4.00] | 5.0e-10 | 1.0e-09 | 100 % |" in text
    assert "| 16 x 16 | gco, swap | 2.0 | 1.00 [1.00, 1.00] | 1.2e-01 | 2.5e-01 | 50 % |" in text
