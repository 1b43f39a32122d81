"""Names in one buffer: a list of texts in all that can be asked, and in nothing that it costs."""

import io
import os
import sys
from itertools import product

import pytest

from baselines.listing import private
from mixbench.data.names import Names

TEXTS = ["", "a/b.png", "two\nlines", "中.jpg", "\U0001f600", "\udcff.png", "\0", "a/b.png", ""]


def names_of(texts):
    names = Names()
    names.extend(texts)
    return names


def test_they_are_as_a_list():
    names = Names()
    assert len(names) == 0 and list(names) == []
    names.extend(TEXTS[:4])
    names.extend([])
    names.extend(iter(TEXTS[4:]))
    count = len(TEXTS)
    assert len(names) == count and list(names) == TEXTS
    assert [names[i] for i in range(-count, count)] == TEXTS * 2
    for begin, end in product((None, 0, 3, -2, 99), repeat=2):
        assert names[begin:end] == TEXTS[begin:end]
    assert names.index("\udcff.png") == 5 and "b" not in names
    for place in (count, -count - 1):
        with pytest.raises(IndexError):
            names[place]


def test_they_are_written_and_read():
    file = io.BytesIO()
    names_of(TEXTS).write(file)
    file.write(b"more")
    file.seek(0)
    again = Names.read(file, len(TEXTS))
    assert list(again) == TEXTS and file.read() == b"more"
    again.extend(["x"])
    assert list(again) == [*TEXTS, "x"]
    whole = file.getvalue()[: -len(b"more")]
    for end in range(len(whole)):
        with pytest.raises((EOFError, ValueError)):
            Names.read(io.BytesIO(whole[:end]), len(TEXTS))


def copied(texts):
    """MiB that a forked process has of its own after reading all texts."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        before = private()
        for index in range(len(texts)):
            texts[index]
        os.write(writer, str(private() - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader) as file:
        return float(file.read())


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what a process shares")
def test_a_forked_process_copies_none():
    texts = [f"train/n{index:08d}/n{index:08d}_{index}.JPEG" for index in range(100_000)]
    assert copied(names_of(texts)) < 1 < 5 < copied(texts)
