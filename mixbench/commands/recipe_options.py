"""The recipe's fields as a user meets them: options of the command line, and docs/recipe.md."""

from __future__ import annotations

import argparse
import typing
from typing import Any

from mixbench.recipe import HINTS, Recipe
from mixbench.values import Bounds, Option, is_union, type_name

PAGE = """# The recipe

Everything that changes a run's numbers, but the strategy, the data and the seeds. A recipe is a
YAML file of `name: value` lines, and each field is an option of the command line too (`--lr 5e-4`,
`--no-amp`): the command line stands over the file, the file over the defaults. `--print-recipe`
shows what results. The defaults are the fixed DeiT-S recipe, `deit_small`. Names and meanings are
timm's.

`--config deit_small` is a file of that name where the command runs, else the shipped recipe of that
name; with a folder in it (`./deit_small`, `mine/deit_small.yaml`) it is that file alone.

A value means what it looks like, in a file, as an option and in a strategy's text: `010` is 10,
and `1:30`, `0x10`, `1_000`, `inf` and `nan` are no numbers. A switch is `true` or `false` and
nothing is `null`, in any case; `yes`, `on`, `~` and an empty value are refused. Several numbers
stand between commas. Anchors, tags and nesting are not read in a file. Values that contradict each
other are refused with the way out: `--epochs 10` beside the 20 epochs of warm-up of `deit_small`
asks for `--warmup-epochs 1` too. By updates, a warm-up as long as all of them is refused
once the data are known.
"""


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add each field of the recipe as an option, in a group of arguments for each of its groups.

    What is given comes as text under `recipe.<field>`; what is not given is not there.
    """
    for name, fields in _groups().items():
        group = parser.add_argument_group(
            f"recipe: {name}", "over the value of the recipe's file; defaults are deit_small's"
        )
        for field, option in fields.items():
            _add(group, field, option)


def _groups() -> dict[str, dict[str, Option]]:
    """The recipe's options by group, both in the order of the fields."""
    groups: dict[str, dict[str, Option]] = {}
    for field, option in Recipe.options().items():
        groups.setdefault(option.group, {})[field] = option
    return groups


def _add(group: argparse._ArgumentGroup, field: str, option: Option) -> None:
    names = dict.fromkeys([f"--{field.replace('_', '-')}", f"--{field}"])
    default = _written(getattr(Recipe, field))
    text = f"{option.help} (default: {default})".replace("%", "%%")
    destination = f"recipe.{field}"
    if HINTS[field] is bool:
        group.add_argument(
            *names,
            action=argparse.BooleanOptionalAction,
            default=argparse.SUPPRESS,
            dest=destination,
            help=text,
        )
    else:
        group.add_argument(
            *names,
            default=argparse.SUPPRESS,
            dest=destination,
            metavar=_placeholder(HINTS[field]),
            help=text,
        )


def _placeholder(hint: Any) -> str:
    """What stands for a value in the help: FLOAT, FLOAT,FLOAT, ..."""
    parts = [part for part in typing.get_args(hint) or (hint,) if part is not type(None)]
    return ",".join(part.__name__ for part in parts).upper()


def recipe_page() -> str:
    """docs/recipe.md, made from the recipe's fields: a table for each group, as Markdown."""
    lines = [PAGE]
    for name, fields in _groups().items():
        lines += [f"## {name.capitalize()}", "", "| option | default | values | meaning |"]
        lines.append("| --- | --- | --- | --- |")
        for field, option in fields.items():
            default, values = (
                _written(getattr(Recipe, field)),
                values_in_words(HINTS[field], option),
            )
            cells = f"`--{field.replace('_', '-')}`", f"`{default}`", values, option.help
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def values_in_words(hint: Any, bounds: Bounds) -> str:
    """The values that an option or a strategy's parameter takes, in words."""
    if bounds.choices:
        return bounds.bounds
    said = []
    for part in typing.get_args(hint) if is_union(hint) else [hint]:
        within = "" if part in (str, type(None)) else bounds.bounds  # which is of numbers
        said.append(", ".join(filter(None, [type_name(part), within])))
    return ", or ".join(said)


def _written(value: Any) -> str:
    """A default as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(f"{number:.4g}" for number in value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
