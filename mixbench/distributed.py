"""What torchrun asks for: who am I, do all of us go on, and sums and means over all processes."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from mixbench.errors import Ending, OtherEnded, ending, reason
from mixbench.visible import shortened
from mixbench.watch import PATIENCE, Watch, accept, connect, end_process, process_count

if TYPE_CHECKING:
    from torch import Tensor, nn

COMING = timedelta(minutes=30)  # for the others to come: they may list millions of images before
LEAVING = timedelta(minutes=1)  # for the others to hear of a mistake
EXCHANGE = timedelta(days=7)  # of the others' own work; `Watch` sees who is gone, not a clock
STATISTICS = ("running_mean", "running_var")  # what such buffers of a model are called


@dataclass(frozen=True)
class World:
    """This process among all of a run; alone, every function of it costs nothing."""

    rank: int = 0
    size: int = 1
    # a gloo group: errors are exchanged between the hosts, so that no device is waited for
    host: Any = None
    watch: Watch | None = None

    def agree(self, error: str | None) -> str | None:
        """The first error of any process, the same everywhere; None where all of them go on."""
        if self.size == 1:
            return error
        flag = torch.tensor(error is not None, dtype=torch.int32)
        with exchange():
            dist.all_reduce(flag, group=self.host)
        if not flag:
            return None
        errors = self._gathered(error)
        rank, first = next((rank, text) for rank, text in enumerate(errors) if text is not None)
        return f"{first} (rank {rank})"

    def check_same(self, facts: Mapping[str, str]) -> None:
        """ValueError in every process where two of them differ in a fact, which it names."""
        if self.size == 1:
            return
        first, *others = self._gathered(dict(facts))
        for rank, other in enumerate(others, 1):
            for name in first:
                if first[name] != other.get(name):
                    raise ValueError(
                        f"rank {rank} differs from rank 0 in {name}: "
                        f"{shortened(str(other.get(name)))}, not {shortened(first[name])}; give "
                        "every process the same command, files, data and versions"
                    )

    def _gathered(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        values = [None] * self.size
        with exchange():
            dist.all_gather_object(values, value, group=self.host)
        return values

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes, of the shape of `value`, which is changed."""
        if self.size > 1:
            with exchange():
                dist.all_reduce(value)
        return value

    def lowest(self, value: Tensor) -> Tensor:
        """The least over all processes, of the shape of `value`, which is changed."""
        if self.size > 1:
            with exchange():
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
        at_times = _used_at_times(model)
        used = [parameter.grad is not None for parameter in at_times]
        for parameter in at_times:
            if parameter.grad is None:  # another process may have used it
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.nn.utils.parameters_to_vector(gradients)
        return torch.cat([flat, flat.new_tensor(used)]) if used else flat

    def average_gradients(self, model: nn.Module, flat: Tensor | None) -> None:
        """Replace the gradients by the mean over all processes of `flat_gradients`."""
        if flat is None:
            return
        self.total(flat).div_(self.size)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        torch.nn.utils.vector_to_parameters(flat, gradients)
        at_times = _used_at_times(model)
        if at_times:
            for parameter, share in zip(at_times, flat[-len(at_times) :].tolist(), strict=True):
                if not share:  # no process used it: as alone, the optimizer leaves it as it is
                    parameter.grad = None

    def average_statistics(self, model: nn.Module) -> None:
        """Replace what layers such as BatchNorm have seen by its mean over all processes.

        Each process sees images of its own, and so would evaluate and keep another network.
        Source: timm's distribute_bn.
        """
        running = [
            buffer
            for name, buffer in model.named_buffers()
            if name.rpartition(".")[2] in STATISTICS
        ]
        if self.size == 1 or not running:
            return
        mean = self.total(torch.cat([buffer.flatten() for buffer in running])) / self.size
        sizes = [buffer.numel() for buffer in running]
        for buffer, part in zip(running, mean.split(sizes), strict=True):
            buffer.copy_(part.view_as(buffer))


def _used_at_times(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of a strategy's part, which not every process needs in every step."""
    part = getattr(model, "mixing", None)
    return [] if part is None else [p for p in part.parameters() if p.requires_grad]


@contextmanager
def exchange() -> Iterator[None]:
    """An exchange with the other processes; OtherEnded where one of them is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise OtherEnded(1, "error: another process is gone, and did not say why") from error


# Beginning and end.


def join(device_type: str) -> World:
    """Join the processes that torchrun started, or be alone without it.

    OtherEnded where one of them made a mistake before.
    """
    if process_count() == 1:
        return World()
    if device_type == "cuda":
        _take_device()
    store, rank, size = _meet(COMING)
    _greet(store, rank, size, None, COMING)
    backend = "nccl" if device_type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=EXCHANGE)
    host = dist.new_group(backend="gloo", timeout=EXCHANGE)
    return World(rank, size, host, _watch(store, rank, size))


def _take_device() -> None:
    """Make this process's GPU the current one; ValueError where there are fewer than processes."""
    number, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= devices:
        raise ValueError(
            f"this machine has {devices} GPUs, too few for process {number + 1} on it: lower "
            "--nproc-per-node"
        )
    torch.cuda.set_device(number)


def _meet(patience: timedelta) -> tuple[dist.Store, int, int]:
    """The store that all processes reach, this one's rank, and their number."""
    try:
        return next(dist.rendezvous("env://", timeout=patience))
    except RuntimeError as error:
        raise OSError(
            f"the other processes did not come ({reason(error, 100)}): look at their logs"
        ) from None


def _greet(
    store: dist.Store, rank: int, size: int, mistake: Ending | None, patience: timedelta
) -> None:
    """Say that this process begins, or what ended it; OtherEnded where that ended another."""
    store.set(f"greeting {rank}", f"{mistake.status} {mistake.sentence}" if mistake else "0 ")
    deadline = time.monotonic() + patience.total_seconds()
    for other in range(size):
        with _stopped_waiting_for(other):
            while not store.check([f"greeting {other}"]):
                if time.monotonic() > deadline:
                    raise OSError(f"rank {other} did not come: look at its log")
                time.sleep(0.05)
    greetings = [store.get(f"greeting {other}").decode() for other in range(size)]
    ended = [other for other, greeting in enumerate(greetings) if greeting != "0 "]
    if not ended:
        return
    # the process that holds the store leaves last
    store.add("heard", 1)
    deadline = time.monotonic() + PATIENCE
    while rank == 0 and store.add("heard", 0) < size and time.monotonic() < deadline:
        time.sleep(0.05)
    status, _, line = greetings[ended[0]].partition(" ")
    raise OtherEnded(int(status), f"{line} (rank {ended[0]})")


@contextmanager
def _stopped_waiting_for(rank: int) -> Iterator[None]:
    """Say whom this process waited for when torchrun ends it, which it does when another died."""

    def stop(*_: object) -> None:
        raise OtherEnded(1, f"error: stopped while waiting for rank {rank}: its process died")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def decline(mistake: Ending) -> None:
    """Tell the other processes, which wait in `join`, of a mistake that ends this one."""
    with suppress(OtherEnded, OSError, ValueError, RuntimeError):
        store, rank, size = _meet(LEAVING)
        _greet(store, rank, size, mistake, LEAVING)


def _watch(store: dist.Store, rank: int, size: int) -> Watch:
    """The watch over all processes, whose first listens where the others find it."""
    if rank:
        port, token = store.get("watch").decode().split()
        return Watch(rank, connect(os.environ["MASTER_ADDR"], int(port), token, rank))
    with socket.create_server(("", 0), backlog=size) as server:
        token = os.urandom(8).hex()
        store.set("watch", f"{server.getsockname()[1]} {token}")
        server.settimeout(COMING.total_seconds())
        return Watch(rank, accept(server, size, token))


@contextmanager
def together(world: World) -> Iterator[None]:
    """What all processes do: an exception in one of them ends every one, with a line each."""
    if world.watch is None:
        yield
        return
    try:
        yield
    except BaseException as error:
        result = ending(error)
        if isinstance(error, OtherEnded):
            world.watch.wait()
        world.watch.leave(result.status, result.sentence)
        if result.fault:
            traceback.print_exception(error)
        end_process(result.status, result.sentence)
    leave(world)


def leave(world: World) -> None:
    """End what `join` began."""
    if world.watch is not None:
        world.watch.leave()
        dist.destroy_process_group()
