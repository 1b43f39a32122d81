"""Processes of one run that know when another is gone, and then end with a line.

The first process holds a connection to each of the others. The system closes it when a process
dies in whatever way: nobody waits for a time to pass, and no slow process is taken for dead.
"""

from __future__ import annotations

import multiprocessing
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

BYE = "bye"
PATIENCE = 10.0  # seconds in which a broken exchange finds out who is gone
SILENCE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 4))  # of a host that is lost


def process_count() -> int:
    """How many processes torchrun started, this one among them; ValueError for a wrong number."""
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 1:
        raise ValueError(f"WORLD_SIZE must be a whole number above 0, not {size!r}: use torchrun")
    return int(size)


def end_process(status: int, line: str) -> None:
    """Print a line and end this process at once, whatever its threads wait for."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        print(line, file=sys.stderr, flush=True)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(status)


class Watch:
    """The connections of this process, by rank: to all in the first process, else to the first."""

    def __init__(
        self,
        rank: int,
        connections: Mapping[int, socket.socket],
        end: Callable[[int, str], None] = end_process,
    ):
        self._rank, self._connections = rank, dict(connections)
        self._end_process = end
        self._lock = threading.Lock()  # whoever has it says how this process ends
        self._over = False
        for connection in self._connections.values():
            _notice_lost_hosts(connection)
        if hasattr(os, "register_at_fork"):  # a loader's process must not keep them open
            os.register_at_fork(after_in_child=self._close)
        self._thread = threading.Thread(target=self._listen, name="watch", daemon=True)
        self._thread.start()

    def leave(self, status: int = 0, line: str = BYE) -> None:
        """Tell the others that this process ends, with a line for them where that is an error.

        It returns only where no other process has ended this one before.
        """
        with self._lock:
            if not self._over:
                self._over = True
                self._tell(status, line if line == BYE else f"{line} (rank {self._rank})")

    def wait(self) -> None:
        """Wait for the line of a process that is gone, which ends this one; it may not come."""
        time.sleep(PATIENCE)

    def _tell(self, status: int, line: str, but: int | None = None) -> None:
        for rank, connection in self._connections.items():
            if rank != but:
                with suppress(OSError):
                    connection.sendall(f"{status} {line}\n".encode())

    def _listen(self) -> None:
        """Hear of ends until all connections are closed, or one is an error."""
        with selectors.DefaultSelector() as selector:
            texts = dict.fromkeys(self._connections, b"")
            for rank, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select():
                    data = _received(self._connections[key.data])
                    texts[key.data] += data
                    if not data or texts[key.data].endswith(b"\n"):
                        selector.unregister(key.fileobj)
                        self._ended(key.data, texts[key.data].decode())

    def _ended(self, rank: int, text: str) -> None:
        """End this process where another ended with an error or without a word."""
        status, _, line = text.rstrip("\n").partition(" ")
        if line == BYE:
            return
        if not line:
            status, line = "1", f"error: rank {rank} is gone: its process died"
        with self._lock:
            if self._over:
                return
            self._over = True
            self._tell(int(status), line, but=rank)
            self._end_process(int(status), line)

    def _close(self) -> None:
        for connection in self._connections.values():
            connection.close()


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:  # the host is lost
        return b""


def _notice_lost_hosts(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in SILENCE:
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def accept(server: socket.socket, size: int, token: str) -> dict[int, socket.socket]:
    """The connections of all other processes, in the first one; strangers are sent away."""
    connections: dict[int, socket.socket] = {}
    while len(connections) < size - 1:
        connection, _ = server.accept()
        rank = _greeted(connection, size, token)
        if rank is None:
            connection.close()
        else:
            connections[rank] = connection
    return connections


def _greeted(connection: socket.socket, size: int, token: str) -> int | None:
    """The rank that a connection begins with; None where it is a stranger's."""
    connection.settimeout(PATIENCE)
    with suppress(OSError, ValueError), connection.makefile() as text:
        name, _, rank = text.readline().strip().rpartition(" ")
        if name == token and 0 < int(rank) < size:
            connection.settimeout(None)
            return int(rank)
    return None


def connect(host: str, port: int, token: str, rank: int) -> dict[int, socket.socket]:
    """The connection to the first process."""
    connection = socket.create_connection((host, port), timeout=PATIENCE)
    connection.settimeout(None)
    connection.sendall(f"{token} {rank}\n".encode())
    return {0: connection}
