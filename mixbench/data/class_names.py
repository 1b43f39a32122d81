"""What people call the classes; their folders' names stay what a run is of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixbench.data.wnids import wnid_names
from mixbench.files import replace_file
from mixbench.values import shown
from mixbench.visible import visible

SEPARATORS = (r"\t", r" {2,}", r",")  # the first that a line has divides it, where it first stands
RULE = "a line is a class's folder, a tab (or two spaces, or a comma), and its name"


def read_class_names(path: Path) -> dict[str, str]:
    """The names that a file gives to classes, by folder; empty lines say nothing.

    A line is `folder<TAB>name`; two or more spaces, or a comma, do where there is no tab.
    ValueError names the line that is no such line, and the folder that is named twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(
            f"{path} cannot be read: {reason}; --class-names takes a text file"
        ) from None
    names: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        folder, name = _divided(line)
        if not folder or not name:
            raise ValueError(f"{path}, line {number}: {RULE}, not {shown(line.strip())}")
        if folder in names:
            raise ValueError(
                f"{path}, line {number}: class {shown(folder)} has a name in line "
                f"{lines[folder]} already: leave one of them out"
            )
        names[folder], lines[folder] = name, number
    return names


def _divided(line: str) -> tuple[str, str]:
    """The folder and the name on a line; an empty one where nothing divides it."""
    for separator in SEPARATORS:
        match = re.search(separator, line.rstrip())
        if match:
            return line[: match.start()].strip(), line[match.end() :].strip()
    return line.strip(), ""


def check_class_names(path: Path, classes: Sequence[str]) -> str | None:
    """A sentence where a file leaves some of the classes unnamed; it may name others too.

    ValueError as `read_class_names` says, and where it names none of them.
    """
    names = read_class_names(path)
    unnamed = [name for name in classes if name not in names]
    if len(unnamed) == len(classes):
        raise ValueError(
            f"{path} names none of the {len(classes)} classes, whose folders are called "
            f"as {shown(classes[0])}: {RULE}"
        )
    if not unnamed:
        return None
    return (
        f"{path} names {len(classes) - len(unnamed)} of {len(classes)} classes: the others, such "
        f"as {shown(unnamed[0])}, are called as their folders"
    )


def write_class_names(path: Path, names: Mapping[str, str]) -> None:
    """Write names by folder as `read_class_names` reads them."""
    replace_file(path, "".join(f"{visible(f)}\t{visible(n)}\n" for f, n in names.items()))


def class_titles(classes: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """What pictures and tables call each class; by folder.

    That is its name, with the folder where two classes have the same; else the wnid's in WordNet,
    else the folder's.
    """
    wnids = wnid_names([folder for folder in classes if folder not in names])
    titles = {folder: names.get(folder) or wnids.get(folder) or folder for folder in classes}
    counts = Counter(titles.values())
    return {
        folder: title if counts[title] == 1 else f"{title} ({folder})"
        for folder, title in titles.items()
    }
