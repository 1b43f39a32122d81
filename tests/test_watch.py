"""A watch ends its process with the line of another, or the name of one that is gone."""

import socket
import threading

import pytest

from mixbench.watch import Watch, accept, connect

SIZE = 3


class Ends:
    """Hears how processes end, in place of their end."""

    def __init__(self):
        self.heard = {}
        self.changed = threading.Condition()

    def of(self, rank):
        def end(status, line):
            with self.changed:
                self.heard[rank] = status, line
                self.changed.notify_all()

        return end

    def wait(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.heard) == count, timeout=20), self.heard
        return self.heard


@pytest.fixture
def group():
    """Makes a watch for some of three ranks; the sockets of all, and how they end."""
    ends, sockets = Ends(), {}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for rank in range(1, SIZE):
            sockets[rank] = connect("127.0.0.1", port, "token", rank)
        sockets[0] = accept(server, SIZE, "token")

    def watch(*ranks):
        return {rank: Watch(rank, sockets[rank], ends.of(rank)) for rank in ranks}

    yield watch, sockets, ends
    for connections in sockets.values():
        for connection in connections.values():
            connection.close()


@pytest.mark.parametrize("rank", range(SIZE))
def test_an_error_is_everyones(rank, group):
    watch, _, ends = group
    watch(*range(SIZE))[rank].leave(2, "error: no such data")
    line = f"error: no such data (rank {rank})"
    assert ends.wait(2) == {other: (2, line) for other in range(SIZE) if other != rank}


@pytest.mark.parametrize("rank", range(SIZE))
def test_a_process_that_dies_is_named(rank, group):
    watch, sockets, ends = group
    others = [other for other in range(SIZE) if other != rank]
    watch(*others)
    for connection in sockets[rank].values():
        connection.close()  # as the system does for a process that dies
    line = f"error: rank {rank} is gone: its process died"
    assert ends.wait(2) == {other: (1, line) for other in others}


def test_processes_that_leave_are_not_missed(group):
    watch, _, ends = group
    watches = watch(*range(SIZE)).values()
    for each in watches:
        each.leave()
    for each in watches:
        each._thread.join(20)
        assert not each._thread.is_alive()
    assert ends.heard == {}


def test_strangers_are_sent_away():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        greetings = (("other", 1), ("token", 7), ("token", "x"))
        strangers = [connect("127.0.0.1", port, *greeting)[0] for greeting in greetings]
        mine = connect("127.0.0.1", port, "token", 1)
        connections = accept(server, 2, "token")
        assert list(connections) == [1]
        connections[1].sendall(b"0 bye\n")
        assert mine[0].recv(100) == b"0 bye\n"
        assert [stranger.recv(100) for stranger in strangers] == [b"", b"", b""]
    for connection in (*strangers, mine[0], connections[1]):
        connection.close()
