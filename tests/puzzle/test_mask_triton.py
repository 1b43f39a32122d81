"""The mask's kernel of a GPU: in Triton's interpreter, and compiled, without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mixbench.puzzle import mask as solver
from mixbench.puzzle.mask import mask_cost, solve_mask


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
    """Up to the order of sums; Triton's interpreter must be chosen before Triton is imported."""
    usable_triton()
    monkeypatch.setattr(solver, "STEPS", 30)
    problems = [drawn_flow_problem(*case) for case in KERNEL_CASES]
    torch.save(problems, tmp_path / "problems.pt")
    script = """if True:
        import sys, torch
        from mixbench.puzzle.mask_triton import flow
        cases, folder = eval(sys.argv[1]), sys.argv[2]
        problems = torch.load(folder + "/problems.pt")
        solved = [
            flow(*problem, n, 30 * max(levels, 2), 1.25 / (8 * levels))
            for problem, (levels, n, _) in zip(problems, cases)
        ]
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
        expected_x, expected_flow = solver._flow(*problem, n)
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
    solver._triton_flow.cache_clear()
    with pytest.warns(
        UserWarning, match="thousands of launches instead of one: Triton cannot be used"
    ):
        assert solver._triton_flow(torch.device("cpu")) is None


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
    on_gpu = [term.cuda() for term in terms]
    assert solver._triton_flow(on_gpu[0].device) is not None
    solve_mask(*on_gpu)  # compiles the kernel
    torch.cuda.set_sync_debug_mode("error")
    try:
        solved, energy, bound = solve_mask(*on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = solve_mask(*terms)[1]
    torch.testing.assert_close(energy.cpu(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(mask_cost(solved.cpu(), *terms), energy.cpu())
    assert (bound <= energy).all() and ((energy - bound) <= 1e-3 * energy.abs()).all()
