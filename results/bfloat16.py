"""Run a command of mixbench in bfloat16 on a CPU that has no instructions for it.

python -m results.bfloat16 COMMAND [OPTIONS]

There torch takes some 40 times as long for a product in bfloat16 as for one in float32. Here the
operands are rounded to bfloat16, multiplied and summed in float32, and the sum is rounded: a
product of two bfloat16 numbers is exact in float32, so that nothing but the order of the sum is
another than by the instructions (AVX512_BF16), whose rows such rows can stand beside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from mixbench.cli import main as mixbench

PRODUCTS = {  # what autocast runs in bfloat16, and networks here use
    *(F.linear, F.conv2d, F.scaled_dot_product_attention, torch.einsum),
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__),
}


class SummedInFloat32(TorchFunctionMode):
    """Products under bfloat16 autocast on a CPU are computed in float32, and so are gradients."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        args, kwargs = tree_map_only(Tensor, _rounded, (args, kwargs))
        with torch.autocast("cpu", enabled=False):
            return func(*args, **kwargs).bfloat16()


def _rounded(operand: Tensor) -> Tensor:
    """The nearest bfloat16 numbers, as float32; its gradient is rounded too."""
    return operand.bfloat16().float() if operand.is_floating_point() else operand


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of mixbench; its exit status."""
    with SummedInFloat32():
        return mixbench(list(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
