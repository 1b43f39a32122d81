"""A million names in little memory, which forked processes share."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import BinaryIO, overload


class Names(Sequence[str]):
    """Texts in one buffer of bytes, each made anew where it is asked for.

    A list of texts takes three times the memory, and a process that was forked copies each page of
    it that it reads, since Python counts references inside of the texts.
    """

    def __init__(self) -> None:
        self.text = bytearray()  # UTF-8, bytes that are none as Python has them in file names
        self.ends = array("Q", [0])  # where each begins, and the last ends

    def extend(self, names: Iterable[str]) -> None:
        """Add names at the end."""
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        begin = len(self.text)
        self.text += b"".join(encoded)
        lengths = accumulate(map(len, encoded), initial=begin)
        next(lengths)
        self.ends.extend(lengths)

    def write(self, file: BinaryIO) -> None:
        """Write the names as `read` takes them on a machine of the same byte order."""
        file.write(self.ends.tobytes())
        file.write(self.text)

    @classmethod
    def read(cls, file: BinaryIO, count: int) -> Names:
        """So many names, as `write` left them; EOFError or ValueError where there are not."""
        names = cls()
        names.ends = array("Q", file.read(names.ends.itemsize * (count + 1)))
        if len(names) != count:
            raise EOFError(f"there are not {count} names")
        names.text += file.read(names.ends[-1])
        if len(names.text) != names.ends[-1]:
            raise EOFError("the names end early")
        return names

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        return self._between(self.ends[place], self.ends[place + 1])

    def __iter__(self) -> Iterator[str]:
        for begin, end in pairwise(self.ends):
            yield self._between(begin, end)

    def _between(self, begin: int, end: int) -> str:
        return self.text[begin:end].decode("utf-8", "surrogateescape")
