"""`name: value` lines of a YAML file, as the texts that stand there.

Only what such lines need is read: anchors, tags, merges and nesting are mistakes, so a small file
cannot become large, and no text becomes a number before its field says so. The first mistake ends
the reading.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mixbench.values import shortened, shown

if TYPE_CHECKING:
    import yaml

LARGEST = 2**20  # bytes
LINES = "write `name: value` lines"


def yaml_lines(path: Path) -> Iterator[tuple[str, str | list[str]]]:
    """Each name with its value, a text or a list of texts, in order.

    ValueError names the file and the mistake.
    """
    import yaml

    text = _text(path)
    try:
        yield from _lines(yaml.parse(text, Loader=yaml.SafeLoader), path)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}:" if mark else ""
        problem = error.problem or error.context
        raise ValueError(f"cannot read recipe {_name(path)}:{where} {problem}; {LINES}") from None
    except yaml.reader.ReaderError as error:
        raise ValueError(
            f"cannot read recipe {_name(path)}: character {error.position + 1}, "
            f"#x{int(error.character):04x}, is no text"
        ) from None


def _text(path: Path) -> str:
    """The content of a regular file of a moderate size; a pipe is never waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(f"recipe {_name(path)} is no regular file: give a YAML file")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(LARGEST + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ValueError(f"cannot read recipe {_name(path)}: {error.strerror}") from None
    if len(content) > LARGEST:
        raise ValueError(
            f"recipe {_name(path)} is larger than {LARGEST} bytes: give a recipe's file"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"cannot read recipe {_name(path)}: byte {error.start + 1} is not UTF-8 text"
        ) from None


def _name(path: Path) -> str:
    """A path as a sentence shows it."""
    return shortened(str(path), 200)


def _lines(events: Iterator[yaml.Event], path: Path) -> Iterator[tuple[str, str | list[str]]]:
    import yaml

    def following() -> yaml.Event:
        """The next event, of nodes that say no more than a text."""
        event = next(events)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise mistake(event, "anchors (& and *) are not read: write the value again")
        if tag := getattr(event, "tag", None):
            raise mistake(event, f"the tag {shown(tag)} is not read: write the value alone")
        return event

    def mistake(event: yaml.Event, what: str) -> ValueError:
        line = event.start_mark.line + 1 if event.start_mark else 1
        return ValueError(f"cannot read recipe {_name(path)}: line {line}: {what}")

    next(events)  # the stream
    if isinstance(next(events), yaml.StreamEndEvent):
        raise ValueError(f"recipe {_name(path)} is empty: {LINES}")
    event = following()
    if not isinstance(event, yaml.MappingStartEvent):
        raise ValueError(f"recipe {_name(path)} must be `name: value` lines")
    while not isinstance(key := following(), yaml.MappingEndEvent):
        if not isinstance(key, yaml.ScalarEvent):
            raise mistake(key, f"a name is expected, not a list or map: {LINES}")
        value = following()
        if isinstance(value, yaml.ScalarEvent):
            yield key.value, value.value
            continue
        texts: list[str] = []
        if isinstance(value, yaml.SequenceStartEvent):
            while isinstance(value := following(), yaml.ScalarEvent):
                texts.append(value.value)
        if not isinstance(value, yaml.SequenceEndEvent):
            raise mistake(value, f"{shown(key.value)} must be a value or a list, not nested")
        yield key.value, texts
    next(events)  # the document's end
    if not isinstance(event := next(events), yaml.StreamEndEvent):
        raise mistake(event, "a second document begins: give one alone")
