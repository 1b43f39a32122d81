"""What may stand in a file's place."""

import os
import socket

ODD = ("link", "dangling link", "pipe", "socket", "directory")


def make(kind, path, target):
    """Put something that is no file at `path`; a link leads to `target`."""
    if kind == "link":
        path.symlink_to(target)
    elif kind == "dangling link":
        path.symlink_to(target.with_name("nowhere"))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        before = os.getcwd()
        os.chdir(path.parent)  # a socket's path has room for a hundred characters
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path.name)
        finally:
            os.chdir(before)
