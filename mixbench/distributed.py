"""What torchrun asks for: who am I, do all of us go on, and sums and means over all processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process among all of a run; alone, every function of it costs nothing."""

    rank: int = 0
    size: int = 1
    # a gloo group: errors are exchanged between the hosts, so that no device is waited for
    host: Any = None

    def agree(self, error: str | None) -> str | None:
        """The first error of any process, the same everywhere; None where all of them go on."""
        if self.size == 1:
            return error
        flag = torch.tensor(error is not None, dtype=torch.int32)
        dist.all_reduce(flag, group=self.host)
        if not flag:
            return None
        errors: list[str | None] = [None] * self.size
        dist.all_gather_object(errors, error, group=self.host)
        rank, first = next((rank, text) for rank, text in enumerate(errors) if text is not None)
        return f"{first} (rank {rank})"

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes, of the shape of `value`, which is changed."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def lowest(self, value: Tensor) -> Tensor:
        """The least over all processes, of the shape of `value`, which is changed."""
        if self.size > 1:
            dist.all_reduce(value, dist.ReduceOp.MIN)
        return value

    def flat_gradients(self, model: nn.Module) -> Tensor | None:
        """All gradients in one vector, to be averaged; None alone.

        Differs: DistributedDataParallel exchanges gradients inside backward, where a strategy that
        raises on one rank would leave the others waiting. What can fail on one rank comes before
        `agree`, the exchange after it.
        """
        if self.size == 1:
            return None
        return torch.nn.utils.parameters_to_vector(
            [p.grad for p in model.parameters() if p.grad is not None]
        )

    def average_gradients(self, model: nn.Module, flat: Tensor | None) -> None:
        """Replace the gradients by the mean over all processes of `flat_gradients`."""
        if flat is not None:
            self.total(flat).div_(self.size)
            torch.nn.utils.vector_to_parameters(
                flat, [p.grad for p in model.parameters() if p.grad is not None]
            )


def join(device_type: str) -> World:
    """Join the processes that torchrun started, or be alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if device_type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo"))


def leave(world: World) -> None:
    """End what `join` began."""
    if world.size > 1:
        dist.destroy_process_group()
