"""Values as a user writes them: one reader for YAML, the command line and spec text."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from mixbench import create_strategy, register_strategy
from mixbench.mix import MixStrategy
from mixbench.recipe import load_recipe
from mixbench.values import (
    Option,
    coerce,
    did_you_mean,
    read_text,
    read_value,
    shown,
    type_name,
)

PAIR = tuple[float, float]
# A text, and what it means as a whole number, a number, true or false, and a text; None: refused
MEANINGS = [
    ("010", 10, 10.0, None, "010"),
    ("064", 64, 64.0, None, "064"),
    ("08", 8, 8.0, None, "08"),
    ("0", 0, 0.0, None, "0"),
    ("00", 0, 0.0, None, "00"),
    ("-5", -5, -5.0, None, "-5"),
    ("+5", 5, 5.0, None, "+5"),
    (" 5 ", 5, 5.0, None, "5"),
    ("5\n", 5, 5.0, None, "5"),
    ("1e-3", None, 0.001, None, "1e-3"),
    ("1E3", None, 1000.0, None, "1E3"),
    ("1e3", None, 1000.0, None, "1e3"),
    ("8.0", None, 8.0, None, "8.0"),
    ("5.", None, 5.0, None, "5."),
    (".5", None, 0.5, None, ".5"),
    ("00.5", None, 0.5, None, "00.5"),
    ("9007199254740993", 9007199254740993, 9007199254740992.0, None, "9007199254740993"),
    ("1:30", None, None, None, "1:30"),
    ("190:20:30", None, None, None, "190:20:30"),
    ("0x10", None, None, None, "0x10"),
    ("0o7", None, None, None, "0o7"),
    ("0b1", None, None, None, "0b1"),
    ("1_000", None, None, None, "1_000"),
    ("1__0", None, None, None, "1__0"),
    ("1,000", None, None, None, "1,000"),
    ("\uff11", None, None, None, "\uff11"),
    ("²", None, None, None, "²"),
    ("½", None, None, None, "½"),
    ("٣", None, None, None, "٣"),
    (".inf", None, None, None, ".inf"),
    ("inf", None, None, None, "inf"),
    ("-Infinity", None, None, None, "-Infinity"),
    (".nan", None, None, None, ".nan"),
    ("nan", None, None, None, "nan"),
    ("1e999", None, None, None, "1e999"),
    ("1e-999", None, 0.0, None, "1e-999"),
    ("0e-999", None, 0.0, None, "0e-999"),
    ("9" * 400, None, None, None, "9" * 400),
    ("true", None, None, True, "true"),
    ("FALSE", None, None, False, "FALSE"),
    ("True", None, None, True, "True"),
    ("yes", None, None, None, "yes"),
    ("off", None, None, None, "off"),
    ("1", 1, 1.0, None, "1"),
    ("~", None, None, None, "~"),
    ("null", None, None, None, "null"),
    ("", None, None, None, None),
    ("  ", None, None, None, None),
    ("2001-01-01", None, None, None, "2001-01-01"),
    ("--5", None, None, None, "--5"),
    ("5 5", None, None, None, "5 5"),
    ("[5]", None, None, None, "[5]"),
    ("[" * 1000, None, None, None, "[" * 1000),
]


def meaning(text, hint):
    """What is read, or None where it is refused in a sentence that is not long."""
    try:
        return read_text(text, hint, "it")
    except ValueError as error:
        assert str(error).startswith("it must ") and len(str(error)) < 250
        return None


@pytest.mark.parametrize(
    ("text", "whole", "number", "switch", "plain"), MEANINGS, ids=[row[0][:12] for row in MEANINGS]
)
def test_what_a_text_means(text, whole, number, switch, plain):
    for hint, expected in ((int, whole), (float, number), (bool, switch), (str, plain)):
        value = meaning(text, hint)
        assert value == expected and type(value) is type(expected), hint


@pytest.mark.parametrize("text", ["null", "Null", "NULL", "None", "none", " null "])
def test_null_is_of_what_may_be_null(text):
    for hint in (int | None, float | None, str | None, bool | None, PAIR | None):
        assert read_text(text, hint, "it") is None
    assert meaning(text, int) is None and meaning(text, str) == text.strip()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.9,0.95", (0.9, 0.95)),
        ("[0.9, 1e-3]", (0.9, 0.001)),
        ("(00.9,010)", (0.9, 10.0)),
        ("0.9", None),
        ("0.9,0.9,0.9", None),
        ("0.9,", None),
        (",", None),
        ("[0.9,0.9", None),
        ("0.9;0.9", None),
        ("0:30,1", None),
        ("nan,1", None),
        ("[[0.9],[0.9]]", None),
    ],
)
def test_several_numbers(text, value):
    assert meaning(text, PAIR) == value


RECIPE_FIELDS = {int: "recount", float: "weight_decay", bool: "amp", str: "opt"}


@dataclass(frozen=True)
class Table(MixStrategy):
    """A strategy with a parameter of each type."""

    whole: int = 7
    number: float = 7.0
    switch: bool = False
    plain: str = "x"

    def mix(self, images, labels, ctx):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("text", "whole", "number", "switch", "plain"), MEANINGS, ids=[row[0][:12] for row in MEANINGS]
)
def test_it_means_the_same_everywhere(tmp_path, text, whole, number, switch, plain):
    """In a recipe's file, as an option, and in spec text, bounds apart."""
    register_strategy("table")(Table)
    parameters = dict(zip(RECIPE_FIELDS, ("whole", "number", "switch", "plain"), strict=True))
    file = tmp_path / "recipe.yaml"
    for hint, value in zip(RECIPE_FIELDS, (whole, number, switch, plain), strict=True):
        name, bounded = RECIPE_FIELDS[hint], value
        option = load_recipe("deit_small").options()[name]
        if value is not None and hint in (int, float) and not option._holds(value):
            bounded = None
        assert _or_none(lambda name=name: load_recipe(None, {name: text}), name) == bounded
        quoted = text.replace("\n", "\\n")
        file.write_text(f'{name}: "{quoted}"\n')
        assert _or_none(lambda: load_recipe(file), name) == bounded
        if not set(text.strip()) & set(" ,[]"):
            parameter = parameters[hint]
            spec = f"table({parameter}={text})"
            assert _or_none(lambda spec=spec: create_strategy(spec), parameter) == value, spec


def _or_none(make, name):
    try:
        return getattr(make(), name)
    except ValueError as error:
        assert len(str(error)) < 500
        return None


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("auto", int | str, "auto"),
        ("016", int | str, 16),
        ("{a: [", str | None, "{a: ["),
        ("1,02,3", tuple[int, ...], (1, 2, 3)),
        ("1", Any, 1),
        ("x", Any, "x"),
        ("a", Literal["a", "b"], "a"),
        ([1, "1e-3"], PAIR, (1.0, 0.001)),
        (1, float, 1.0),
    ],
)
def test_what_is_read(text, hint, value):
    result = read_value(text, hint, "it")
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, float, "it must be a number, not True"),
        (True, int, "it must be a whole number, not True"),
        (1, bool, "it must be true or false, not 1"),
        (1.5, int, "it must be a whole number, not 1.5"),
        ("1:30", int, "it must be a whole number, not '1:30': write decimal digits"),
        ("1.5", int, "it must be a whole number, not '1.5'"),
        ("1e999", float, "it must be a number, not '1e999': beyond what a float holds"),
        ("", float | None, "it must be a number or null, not empty: give a value, or write null"),
        ("1,2,3", PAIR, "it must be 2 numbers, not '1,2,3'"),
        (
            "1,x",
            tuple[int, ...],
            "it must be any number of values such as (1, 2), each a whole number, not '1,x'",
        ),
        ("x", float | None, "it must be a number or null, not 'x'"),
        ("c", Literal["a", "b"], "it must be one of a, b, not 'c'"),
        (3, MixStrategy, "it must be a strategy, not 3"),
        (10**400, float, "it must be a number, not a number of more than 30 digits"),
    ],
)
def test_what_is_refused(value, hint, message):
    with pytest.raises(ValueError) as caught:
        read_value(value, hint, "it")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, 10**5000, -(10**5000), (0.5,) * 10**5, ["y" * 999] * 9, {"a": "b" * 9999}],
    ids=range(6),
)
def test_a_value_is_shown_in_few_characters(value):
    assert len(shown(value)) < 100
    with pytest.raises(ValueError) as caught:
        coerce(value, bool | None, "it")
    assert len(str(caught.value)) < 200


def test_bounds_hold_and_are_named():
    option = Option(help="", group="", at_least=0, below=1)
    assert option.bounds == "0 or more and below 1"
    for value, right in ((0, True), (0.999, True), (1, False), (-1, False), ((0.5, 1.0), False)):
        if right:
            option.check("it", value)
        else:
            with pytest.raises(ValueError, match=r"^it must be 0 or more and below 1, not "):
                option.check("it", value)
    assert Option(help="", group="", above=0, at_most=2**20).bounds == "above 0 and at most 2**20"
    assert Option(help="", group="", at_least=0.1, at_most=1).bounds == "between 0.1 and 1"
    with pytest.raises(ValueError, match="finite"):
        Option(help="", group="").check("it", math.nan)


def test_anything_stays_as_it_is():
    value = object()
    assert coerce(value, Any, "it") is value and type_name(float) == "a number"


def test_the_nearest_name_or_all_of_them():
    assert did_you_mean("cutmx", ["mixup", "cutmix"]) == "did you mean 'cutmix'?"
    assert did_you_mean("zzz", ["mixup", "cutmix"]) == "known: cutmix, mixup"
    many = [f"model_{number:03}" for number in range(101)]
    assert did_you_mean("zzz", many) == "none of 101 names is like it"
    assert did_you_mean("model_01", many).count("'model_0") == 3
    assert len(did_you_mean("x" * 10**6, ["mixup"])) < 100
    assert len(did_you_mean("zzz", [f"name_{number}" * 5 for number in range(99)])) < 350
