"""Several processes of one command, as torchrun starts them, without torchrun."""

import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support import kills

LIMIT = 60  # seconds in which all must have ended


@dataclass(frozen=True)
class Ended:
    """How one process ended."""

    status: int  # negative: the signal
    text: str  # what it printed, errors and all
    seconds: float  # after the first of all had ended

    @property
    def errors(self):
        """The lines that begin as those of an ending do."""
        lines = self.text.splitlines()
        return [line for line in lines if line.startswith(("error: ", "stopped: ", "interrupted"))]


def _command(rank, size, port, argv, output):
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with Path(output).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    torch.set_num_threads(1)
    from mixbench.cli import main

    sys.exit(main(argv))


def run(folder, argvs):
    """Run the command once a rank, each with its own arguments; how each of them ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outputs = [folder / f"rank{rank}.txt" for rank in range(len(argvs))]
    processes = [
        kills.PROCESSES.Process(target=_command, args=(rank, len(argvs), port, argv, outputs[rank]))
        for rank, argv in enumerate(argvs)
    ]
    for process in processes:
        process.start()
    ends, deadline = {}, time.monotonic() + LIMIT
    while len(ends) < len(processes) and time.monotonic() < deadline:
        for rank, process in enumerate(processes):
            process.join(0.05)
            if process.exitcode is not None:
                ends.setdefault(rank, time.monotonic())
    for process in processes:
        if process.exitcode is None:
            process.kill()
            process.join()
    first = min(ends.values())
    return [
        Ended(process.exitcode, output.read_text(), ends.get(rank, 1e9) - first)
        for rank, (process, output) in enumerate(zip(processes, outputs, strict=True))
    ]
