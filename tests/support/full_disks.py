"""Runs of the command on a disk that has no room for files above a size."""

import os
import resource
import signal
import sys

from tests.support import kills


def _command(argv, size, output):
    os.dup2(output.fileno(), 1)  # a pipe: a file would be as full as the others
    os.dup2(output.fileno(), 2)
    import torch

    torch.set_num_threads(1)
    from mixbench.cli import main

    if size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    sys.exit(main(argv))


def run(argv, size=None):
    """The exit status of a command that can write files of at most `size` bytes, and its text."""
    receiver, sender = kills.PROCESSES.Pipe(duplex=False)
    process = kills.PROCESSES.Process(target=_command, args=(argv, size, sender))
    process.start()
    sender.close()
    text = b""
    while part := os.read(receiver.fileno(), 65536):
        text += part
    process.join()
    return process.exitcode, text.decode()
