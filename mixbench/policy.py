"""timm's texts of automatic augmentations, such as rand-m9-mstd0.5-inc1."""

from __future__ import annotations

import re

from mixbench.values import NUMBER, WHOLE, shown

ENOUGH = 100  # layers or chains of operations
STRONGEST = 10  # timm's scale of magnitudes; without mmax it cuts what is above
MMAX = 20  # beyond it Pillow refuses what timm's posterize asks for
Bounds = dict[str, tuple[float, float]]
WHOLE_KEYS: Bounds = {"m": (0, MMAX), "n": (1, ENOUGH), "mmax": (1, MMAX), "inc": (0, 1)}
RANDAUGMENT: Bounds = WHOLE_KEYS | {"p": (0, 1), "mstd": (0, float("inf"))}
AUGMIX: Bounds = {
    "m": (0, STRONGEST),
    "w": (1, ENOUGH),
    "d": (1, ENOUGH),
    "a": (1e-3, 1000),
    "b": (0, 1),
    "mstd": (0, float("inf")),
}
AUTOAUGMENT: Bounds = {"mstd": (0, float("inf"))}
KEYS: dict[str, Bounds] = {
    "rand": RANDAUGMENT,
    "augmix": AUGMIX,
    **dict.fromkeys(("original", "originalr", "v0", "v0r", "3a"), AUTOAUGMENT),
}
SETS = ("weights", "3a", "3aw")  # of RandAugment's operations, behind t
FRACTIONS = ("p", "mstd", "a")


def check_policy(text: str) -> None:
    """ValueError where timm would not know a policy, or would pass over a part of it."""
    name, *sections = text.split("-")
    keys = KEYS.get(name)
    if keys is None:
        raise _mistake(text, f"{shown(name)} is none of {', '.join(KEYS)}")
    values: dict[str, float] = {}
    for section in sections:
        key, value = _section(text, section, keys, name)
        if key in values:
            raise _mistake(text, f"{key} is given twice")
        values[key] = value
    if name == "rand" and values.get("m", 0) > values.get("mmax", STRONGEST):
        raise _mistake(text, f"timm cuts a magnitude above {values.get('mmax', STRONGEST):g}")


def _section(text: str, section: str, keys: Bounds, name: str) -> tuple[str, float]:
    """The key and the number of a section such as m9; a set of operations is no number."""
    if name == "rand" and section[:1] == "t":
        if section[1:] not in SETS:
            raise _mistake(text, f"{shown(section)} is none of t{', t'.join(SETS)}")
        return "t", 0
    match = re.fullmatch(r"([a-z]+)([0-9.]+)", section)
    if match is None or match[1] not in keys:
        raise _mistake(text, f"{shown(section)} is none of {', '.join(keys)} with a number")
    key, written = match.groups()
    pattern = NUMBER if key in FRACTIONS else WHOLE
    low, high = keys[key]
    if not pattern.fullmatch(written) or not low <= float(written) <= high:
        kind = "a number" if key in FRACTIONS else "a whole number"
        bounds = f" from {low:g}" + (f" to {high:g}" if high < float("inf") else "")
        raise _mistake(text, f"{key} is {kind}{bounds}")
    return key, float(written)


def _mistake(text: str, reason: str) -> ValueError:
    return ValueError(
        f"aa {shown(text)} is not a policy of timm ({reason}): write rand-m9-mstd0.5-inc1, or null"
    )
