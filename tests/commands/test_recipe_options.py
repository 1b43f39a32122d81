"""The recipe's options on the command line, and docs/recipe.md."""

import argparse
from dataclasses import fields
from pathlib import Path

import pytest

from mixbench.commands.recipe_options import add_recipe_options, recipe_page
from mixbench.recipe import Recipe, parse_value

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_recipe_options(parser)
    return parser


def test_every_field_is_an_option_with_a_sentence_and_its_default(parser):
    actions = {action.dest: action for action in parser._actions if action.dest != "help"}
    assert list(actions) == [
        f"recipe.{name}" for group in groups().values() for name in group
    ] and len(actions) == len(fields(Recipe))
    for name, option in Recipe.options().items():
        action = actions[f"recipe.{name}"]
        assert action.help.startswith(f"{option.help} (default: "), name
        assert {f"--{name}", f"--{name.replace('_', '-')}"} <= set(action.option_strings)
    assert "(default: 0.001)" in actions["recipe.lr"].help
    assert "(default: null)" in actions["recipe.clip_grad"].help
    assert "(default: true)" in actions["recipe.model_ema"].help
    assert "(default: 0.9,0.999)" in actions["recipe.opt_betas"].help


def groups():
    groups = {}
    for name, option in Recipe.options().items():
        groups.setdefault(option.group, []).append(name)
    return groups


def test_groups_are_the_recipes(parser):
    text = parser.format_help()
    assert [line[8:-1] for line in text.splitlines() if line.startswith("recipe: ")] == list(
        groups()
    )


def test_both_spellings_and_only_what_is_given(parser):
    given = parser.parse_args(["--weight-decay", "0.1", "--warmup_epochs", "3", "--no-model-ema"])
    assert vars(given) == {
        "recipe.weight_decay": "0.1",
        "recipe.warmup_epochs": "3",
        "recipe.model_ema": False,
    }


def test_what_the_page_calls_a_default_is_one():
    """Each default as it is written there, read back."""
    rows = [row.split(" | ") for row in recipe_page().splitlines() if row.startswith("| `--")]
    assert len(rows) == len(fields(Recipe))
    for cells in rows:
        name, default = cells[0].strip("| `-").replace("-", "_"), cells[1].strip("`")
        value, expected = parse_value(name, default), getattr(Recipe, name)
        if isinstance(expected, tuple):
            assert value == pytest.approx(expected, rel=1e-3), name
        else:
            assert value == expected, name
        assert cells[3] == f"{Recipe.options()[name].help} |"


def test_the_page_is_the_fields():
    written = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert written == recipe_page(), "write docs/recipe.md anew from recipe_page()"
