"""Values as a user writes them: one reader for YAML and the command line, one for spec text."""

from typing import Any, Literal

import pytest

from mixbench.mix import MixStrategy
from mixbench.values import bare_word, coerce, did_you_mean, read_value, type_name

PAIR = tuple[float, float]


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("1e-3", float, 0.001),
        ("3", float, 3.0),
        ("3", int, 3),
        ("3", str, "3"),
        ("true", bool, True),
        ("null", float | None, None),
        ("auto", int | str, "auto"),
        ("16", int | str, 16),
        ("0.9,0.95", PAIR, (0.9, 0.95)),
        ("[0.9, 1e-3]", PAIR, (0.9, 0.001)),
        ([1, "1e-3"], PAIR, (1.0, 0.001)),
        (1, float, 1.0),
        ("{a: [", str | None, "{a: ["),
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
        ("1,2,3", PAIR, "it must be 2 numbers, not (1.0, 2.0, 3.0)"),
        ("x", float | None, "it must be a number or nothing, not 'x'"),
        ("c", Literal["a", "b"], "it must be one of a, b, not 'c'"),
        (3, MixStrategy, "it must be a strategy, not 3"),
    ],
)
def test_what_is_refused(value, hint, message):
    with pytest.raises(ValueError) as caught:
        read_value(value, hint, "it")
    assert str(caught.value) == message


def test_anything_stays_as_it_is():
    value = object()
    assert coerce(value, Any, "it") is value and type_name(float) == "a number"


def test_bare_words():
    assert bare_word("true", bool) is True and bare_word("null", int | None) is None
    assert bare_word("null", str) == "null" and bare_word("area", float) == "area"


def test_the_nearest_name_or_all_of_them():
    assert did_you_mean("cutmx", ["mixup", "cutmix"]) == "did you mean 'cutmix'?"
    assert did_you_mean("zzz", ["mixup", "cutmix"]) == "known: cutmix, mixup"
    many = [f"model_{number:03}" for number in range(101)]
    assert did_you_mean("zzz", many) == "none of 101 names is like it"
    assert did_you_mean("model_01", many).count("'model_0") == 3
