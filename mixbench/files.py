"""Files that are written whole or not at all, and never over what is not a file."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# what the system answers where a file cannot grow, in words
FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "the disk, or a limit, allows no file of its size",
}
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# of torch's writer of archives, which raises RuntimeError in place of the system's error
TORCH_WRITER = ("PytorchStreamWriter", "inline_container", "unexpected pos", "iostream error")


class WriteError(OSError):
    """A file that could not be written; its text is a sentence."""

    def __str__(self) -> str:
        return str(self.strerror)


def trouble(error: OSError) -> str:
    """What the system says, in words; of a full disk with the word `disk` in it."""
    if error.errno in FULL:
        return f"{FULL[error.errno]} ({os.strerror(error.errno)})"
    reason = error.strerror or str(error)
    return reason[:1].lower() + reason[1:]


def not_regular(path: Path) -> str | None:
    """What stands at `path` in a file's place, as `a symbolic link`; None for a file or nothing.

    A link is not followed. OSError where that cannot be seen.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "no file")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty file to write beside `path`, which it replaces at the end, as readable as it was.

    Where the writing fails, `path` stays as it was and nothing is left beside it. WriteError says
    why, and that a link, a device or whatever is not a file stands there.
    """
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(path, partial)
    except OSError as error:
        raise _failed(path, error) from None
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, WriteError):
            raise _failed(path, error) from None
        if isinstance(error, RuntimeError) and any(word in str(error) for word in TORCH_WRITER):
            raise _failed(path, OSError(errno.ENOSPC, "")) from None
        raise


def partial_of(path: Path) -> Path:
    """The file beside `path` that is written first."""
    return path.with_name(path.name + ".partial")


def _create(path: Path, partial: Path) -> None:
    """Make `partial` anew, where a killed process may have left it; it is no link."""
    for place in (path, partial):
        kind = not_regular(place)
        if kind is not None:
            raise WriteError(None, f"{place} is {kind}, which mixbench does not write: remove it")
    mode = 0o666  # less the umask
    if path.exists():
        mode = stat.S_IMODE(path.stat().st_mode) | stat.S_IWUSR
    partial.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(partial, flags, mode))


def _failed(path: Path, error: OSError) -> WriteError:
    if isinstance(error, WriteError):
        return error
    return WriteError(error.errno, f"cannot write {path}: {trouble(error)}")


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path) -> Any:
    """The content of a JSON file; ValueError where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def shipped(name: str, in_checkout: str = "") -> Path:
    """The folder of a part that is no code: inside an installed package, beside it in a checkout.

    in_checkout is the folder's place there where it is not its name.
    """
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / (in_checkout or name)
