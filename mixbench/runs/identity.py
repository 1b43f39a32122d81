"""What a run is of, a recipe and data known by content, and how two of them differ in words."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mixbench.data.scene_area import is_scenes
from mixbench.data.sources import DataIdentity
from mixbench.errors import reason
from mixbench.recipe import LATER, PLACES, TIMED, Recipe, recipe_text
from mixbench.values import shown
from mixbench.visible import shortened

SPLIT_FIELDS = {"train": "train_images", "val": "val_images"}


@dataclass(frozen=True)
class Identity:
    """What a directory is of. Rows of another recipe or other data would not be comparable."""

    recipe: Recipe
    data: DataIdentity
    source: str = ""  # where the data were, for a reader; the same data by another path are equal
    limit_train: int | None = None
    limit_val: int | None = None

    def data_text(self) -> str:
        """The content of data.json; the class names, of which there may be many, come last."""
        content: dict[str, Any] = {
            "source": self.source,
            "limit_train": self.limit_train,
            "limit_val": self.limit_val,
            **asdict(self.data),
        }
        content["classes"] = content.pop("classes")
        return json.dumps(content, indent=1) + "\n"


@dataclass(frozen=True)
class StoredData:
    """What data.json holds."""

    data: DataIdentity
    limit_train: int | None
    limit_val: int | None


def read_data(file: Path) -> StoredData:
    """What data.json says; ValueError where it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        names = [field.name for field in dataclasses.fields(DataIdentity)]
        # of a field that a later mixbench added the default stands for an older file
        values = {name: content[name] for name in names if name in content}
        if not isinstance(content["classes"], list):
            raise ValueError("classes has another type")
        data = DataIdentity(**values | {"classes": tuple(content["classes"])})
        stored = StoredData(data, content["limit_train"], content["limit_val"])
        _check_types(stored)
        return stored
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{file} is damaged ({_reason(error)}), and says what data the run is of: put it back, "
            "or choose another --out"
        ) from None


def _check_types(stored: StoredData) -> None:
    """ValueError where a value is not of its kind."""
    data = stored.data
    good = {
        "classes": all(isinstance(name, str) for name in data.classes),
        "train_images": type(data.train_images) is int,
        "val_images": type(data.val_images) is int,
        "train": isinstance(data.train, str),
        "val": isinstance(data.val, str),
        "content": isinstance(data.content, str | None),
        "limit_train": type(stored.limit_train) in (int, type(None)),
        "limit_val": type(stored.limit_val) in (int, type(None)),
    }
    wrong = [name for name, fits in good.items() if not fits]
    if wrong:
        raise ValueError(f"{wrong[0]} has another type")


def _reason(error: Exception) -> str:
    """An exception in a few words."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return reason(error, 100)


def digest(data: DataIdentity) -> str:
    """Sixteen hex digits of what two data sets of one listing have in common."""
    values = asdict(data)
    del values["content"]  # not every command reads the bytes
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def recipe_difference(file: Path, recipe: Recipe) -> str | None:
    """How a recipe differs from the one in `file`, as the beginning of a sentence, or None.

    ValueError where the file is no recipe.
    """
    try:
        stored = _fields(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged ({_reason(error)}), and says what recipe the run is of: put it "
            "back, or choose another --out"
        ) from None
    current = _fields(recipe_text(recipe))
    older = _fields(recipe_text(replace(recipe, **LATER)))
    for name in LATER:
        stored.setdefault(name, older[name])
    if stored.get("speed_model") == recipe.timed.model and stored.get("speed_image_size") == str(
        recipe.timed.image_size
    ):  # once said by every recipe, and null by now where it is what is trained
        stored |= {name: current[name] for name in TIMED}
    for name in PLACES:
        del stored[name], current[name]
    parts = [
        f"{name} is {_shown(value)}, this run was begun with {_shown(stored[name])}"
        for name, value in current.items()
        if name in stored and stored[name] != value
    ]
    parts += [
        f"{name} is {_shown(value)}, and {file} of an older mixbench does not say it"
        for name, value in current.items()
        if name not in stored
    ]
    parts += [
        f"{file} says {_shown(name)}, which this mixbench does not know"
        for name in stored
        if name not in current
    ]
    return _several(parts) if parts else None


def read_recipe_fields(file: Path) -> dict[str, Any]:
    """The fields of a run's recipe.yaml as text; ValueError where it is damaged."""
    try:
        return _fields(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({_reason(error)})") from None


def _fields(text: str) -> dict[str, Any]:
    """The fields of a recipe's text, with values as they are written; ValueError if it is none."""
    import yaml

    try:
        content = yaml.load(text, Loader=yaml.BaseLoader)  # text alone: nothing is converted
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(_reason(error)) from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError("it is no list of `name: value` lines")
    return content


def _shown(value: Any) -> str:
    """A value as a sentence has it, not too long."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return shortened(text if text.isprintable() else repr(text))


def _several(parts: Sequence[str]) -> str:
    """The first of some differences, and how many there are."""
    return parts[0] if len(parts) == 1 else f"{parts[0]} ({len(parts)} differences in all)"


def data_difference(stored: StoredData, identity: Identity) -> str | None:
    """How data differ from those that a run was begun with, as the beginning of a sentence."""
    before, now = stored.data, identity.data
    if before.classes != now.classes:
        return _class_difference(before.classes, now.classes)
    for split, field in SPLIT_FIELDS.items():
        counts = getattr(now, field), getattr(before, field)
        limits = getattr(identity, f"limit_{split}"), getattr(stored, f"limit_{split}")
        if counts[0] != counts[1] and limits[0] != limits[1]:
            now_so = "is not given" if limits[0] is None else f"is {limits[0]}"
            then = "without it" if limits[1] is None else f"with {limits[1]}"
            return f"--limit-{split} {now_so}, this run was begun {then}"
        if counts[0] != counts[1]:
            return f"{split}/ has {counts[0]} images, this run was begun with {counts[1]}"
    for split in SPLIT_FIELDS:
        if getattr(before, split) != getattr(now, split):
            if is_scenes(getattr(now, split).partition("-")[0]):
                return "--scene-area is another than this run was begun with"
            items = getattr(now, split).startswith("items-")  # of Python, without names
            others = "pixels or labels" if items else "names or sizes"
            return f"{split}/ has as many images as this run was begun with, but other {others}"
    if None not in (before.content, now.content) and before.content != now.content:
        return "images have other bytes than this run was begun with, under the same names"
    return None


def _class_difference(before: Sequence[str], now: Sequence[str]) -> str:
    """Which class came or went, or that the order is another."""
    stored, current = set(before), set(now)
    new = [name for name in now if name not in stored]
    gone = [name for name in before if name not in current]
    parts = [f"class {shown(name)} is new, this run was begun without it" for name in new]
    parts += [f"class {shown(name)} is gone, this run was begun with it" for name in gone]
    if parts:
        return _several(parts)
    pairs = enumerate(zip(now, before, strict=False))
    label = next(label for label, (name, other) in pairs if name != other)
    return (
        f"class {label} is {shown(now[label])}, this run was begun with {shown(before[label])}"
        " there: the classes are in another order"
    )
