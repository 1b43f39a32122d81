"""Spec text both ways, and errors that name the way out."""

import enum
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixbench import (
    MixStrategy,
    create_strategies,
    create_strategy,
    register_strategy,
    strategy_spec,
)
from mixbench.strategies.attentivecutmix import AttentiveCutMix
from mixbench.strategies.cutmix import CutMix

ROUND_TRIPS = {
    "cutmix": "cutmix",
    "cutmix(alpha=1)": "cutmix",
    "cutmix(per_sample=True, alpha=2)": "cutmix(alpha=2.0, per_sample=True)",
    "transmix(base=mixup)": "transmix(base=mixup)",
    "transmix(base=alternate(first=cutmix(alpha=0.5)), attention=6)": (
        "transmix(base=alternate(first=cutmix(alpha=0.5)), attention=6)"
    ),
    "transmix(downsample=area)": "transmix(downsample=area)",
}


@pytest.mark.parametrize(("text", "canonical"), ROUND_TRIPS.items())
def test_round_trip(text, canonical):
    strategy = create_strategy(text)
    assert strategy_spec(strategy) == canonical
    assert create_strategy(canonical) == strategy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cutmx", "did you mean 'cutmix'"),
        ("cutmix(alpa=1)", "did you mean 'alpha'"),
        ("cutmix(alpha=-1)", "above 0, not -1"),
        ("cutmix(alpha=nan)", "a number"),
        ("cutmix(1)", "name=value"),
        ("cutmix(", "cannot read"),
        ("transmix(base=3)", "a strategy"),
        ("cutmix(alpha=True)", "a number"),
        ("__import__('os')", "unknown strategy|name=value"),
        ("transmix(attention_weight=2)", "between 0 and 1"),
        ("alternate(first=transmix, second=transmix(attention=3))", "two kinds of attention"),
        ("", "no strategy"),
        ("none(a=1)", "it has none"),
    ],
)
def test_mistakes_are_explained(text, message):
    with pytest.raises(ValueError, match=message):
        create_strategy(text)


def test_lists():
    assert [
        strategy_spec(s) for s in create_strategies("cutmix, transmix(base=mixup, attention=3)")
    ] == ["cutmix", "transmix(base=mixup, attention=3)"]
    with pytest.raises(ValueError, match="twice"):
        create_strategies("cutmix,cutmix(alpha=1)")


@pytest.mark.parametrize("text", ["class", "in", "émodel", "日本", "a-b", "resnet50:/x/y.pth"])
def test_text_that_looks_like_a_word_comes_back(text):
    strategy = AttentiveCutMix(network=text)
    assert create_strategy(strategy_spec(strategy)) == strategy


@pytest.mark.parametrize(
    "text", ["cutmix(alpha={[]:1})", "cutmix(alpha={[]})", "cutmix(alpha={{}})"]
)
def test_braces_are_no_values(text):
    with pytest.raises(ValueError, match="cannot read strategy"):
        create_strategy(text)


@pytest.mark.parametrize(
    "text",
    [
        "cutmix(" * 1000,
        "(" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        "transmix(base=" * 30 + "cutmix" + ")" * 30,
        "x" * 10**6,
        "cutmix(alpha=" + "9" * 10**6 + ")",
        "cutmix(alpha=" + "(" * 1000 + ")",
        "cutmix(" + "x" * 10**6 + "=1)",
        "cutmix(alpha='" + "x" * 10**6 + "')",
        "cutmix(alpha='x",
        "cutmix(alpha='\\x')",
        "cutmix(alpha='\0')",
        "cutmix\0",
        "cutmix(alpha=lambda: 1)",
        "cutmix(alpha=(x:=1))",
        "cutmix(alpha=f'{1}')",
        "cutmix(alpha=b'1')",
        "cutmix(**x)",
        "cutmix(*x)",
        "cutmix(alpha=1 + 1)",
        "cutmix(alpha==1)",
        "cutmix(alpha:=1)",
        "cutmix(alpha=)",
        "cutmix()()",
        "cutmix)",
        "cutmix mixup",
        "cutmix,,mixup",
        ",",
        "'cutmix'",
        "[cutmix]",
        "transmix(base='cutmix')",
        "transmix(base=[cutmix])",
        "cutmix(alpha=1, alpha=1)",
        "cutmix(alpha=nan())",
        "cutmix(alpha=1" + ",alpha=1" * 10**5 + ")",
        ",".join(["cutmix"] * 10**5),
    ],
    ids=range(36),
)
def test_odd_texts_end_in_a_short_sentence(text):
    with pytest.raises(ValueError) as caught:
        create_strategies(text)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cutmix(alpha={1: 2})", "braces hold no values at '{1: 2}"),
        ("cutmix(alpha={1, 2})", "braces hold no values"),
        ("cutmix(alpha=[{1}])", "braces hold no values"),
        ("{cutmix}", "braces hold no values"),
        ("cutmix{alpha=1}", "braces hold no values"),
        ("cutmix(alpha=1}", "braces hold no values"),
        ("cutmix({alpha=1})", "braces hold no values"),
        ("cutmix(", "a bracket is not closed at its end"),
        ("cutmix(alpha=1", "a bracket is not closed"),
        ("cutmix(alpha", "a bracket is not closed"),
        ("transmix(base=cutmix(alpha=1)", "a bracket is not closed"),
        ("cutmix(alpha=[1", "a bracket is not closed"),
        ("cutmix(alpha=[1)", r"'\)' closes no bracket"),
        ("cutmix(alpha=(1])", "']' closes no bracket"),
        ("cutmix]", "']' closes no bracket"),
        ("cutmix())", r"'\)' closes no bracket"),
        ("cutmix[alpha=1]", r"',' is missing at '\[alpha=1\]'"),
        ("cutmix(alpha=1, alpha=2)", "^cutmix alpha is given twice$"),
        ("transmix(base=mixup(alpha=1, alpha=1))", "^mixup alpha is given twice$"),
        ("transmix(base=" * 22 + "cutmix" + ")" * 22, "more than 20 brackets in each other"),
        ("cutmix(alpha=" + "[" * 22 + "1" + "]" * 22 + ")", "more than 20 brackets in each other"),
        ("attentivecutmix(network='a'b')", "',' is missing at \"b'"),
        ('attentivecutmix(network="a)', "a quotation that does not end"),
        ("attentivecutmix(network='a\\0b')", "with a NUL"),
        ("cutmix(alpha=\"'1'\")", "alpha must be a number, not \"'1'\"$"),
    ],
)
def test_brackets_braces_and_quotes_are_explained(text, message):
    with pytest.raises(ValueError, match=message):
        create_strategy(text)


@pytest.mark.parametrize("text", ['a"b', "it's", "'\"", "a\\b", "(a", "{a}", "a, b=c"])
def test_quotes_in_quotes_come_back(text):
    strategy = AttentiveCutMix(network=text)
    assert create_strategy(strategy_spec(strategy)) == strategy


def test_many_strategies_are_read_in_linear_time():
    assert len(create_strategies(",".join(f"mixup(alpha={n})" for n in range(1, 3001)))) == 3000


def test_blanks_and_a_last_comma_do_not_count():
    expected = create_strategies("cutmix(alpha=2.0),mixup")
    assert create_strategies(" cutmix ( alpha = 002 , ) ,\n mixup , ") == expected


@pytest.mark.parametrize(
    "text", ["null", "None", "true", "5", "x y", "it's", 'a "b"', "\n", "é,)", ""]
)
def test_a_text_comes_back_where_null_or_a_number_would_be_right_too(text):
    @register_strategy("many")
    @dataclass(frozen=True)
    class Many(CutMix):
        name: str | None = "name"
        size: int | str = "size"
        sizes: tuple[float, float] = (0.0, 0.0)

    strategy = Many(name=text, size=text, sizes=(1e-9, 2.0))
    assert create_strategy(strategy_spec(strategy)) == strategy
    assert create_strategy("many(name=null)").name is None
    assert create_strategy("many(size=010, sizes=(01, 2))") == Many(size=10, sizes=(1.0, 2.0))


def test_yamls_words_are_known():
    assert (
        create_strategy("cutmix(per_sample=true)")
        == create_strategy("cutmix(per_sample=True)")
        != create_strategy("cutmix(per_sample=false)")
    )
    assert strategy_spec(create_strategy("cutmix(per_sample=true)")) == "cutmix(per_sample=True)"
    with pytest.raises(ValueError, match="true or false, not 'yes'"):
        create_strategy("cutmix(per_sample=yes)")

    @register_strategy("mayskip")
    @dataclass(frozen=True)
    class MaySkip(CutMix):
        every: int | None = 3
        name: str = ""

    strategy = create_strategy("mayskip(every=null, name=null)")
    assert (
        strategy.every is None
        and strategy.name == "null"
        and create_strategy(strategy_spec(strategy)) == strategy
    )
    with pytest.raises(ValueError, match="cutmix per_sample must be true or false, not 'null'"):
        create_strategy("cutmix(per_sample=null)")


class Colour(enum.Enum):
    RED = 1


def with_field(hint, default=None, factory=None):
    """A strategy `fielded` whose field `x` is of the type and has the default."""
    value = field(default=default) if factory is None else field(default_factory=factory)
    kind = type("Fielded", (CutMix,), {"__annotations__": {"x": hint}, "x": value})
    return register_strategy("fielded")(dataclass(frozen=True)(kind))


@pytest.mark.parametrize(
    ("hint", "default", "text", "value"),
    [
        (tuple[int, ...], (), "(1, 2, 3)", (1, 2, 3)),
        (tuple[int, ...], (1,), "[4]", (4,)),
        (tuple[int, ...], (1,), "()", ()),
        (tuple[float, float], (0.0, 1.0), "(1, 2)", (1.0, 2.0)),
        (tuple[str, ...], (), "('a b', 'c')", ("a b", "c")),
        (tuple[tuple[int, int], ...], (), "((1, 2), (3, 4))", ((1, 2), (3, 4))),
        (tuple[int, ...], (1,), "3", (3,)),
        (bytes, b"a", None, b"a"),
        (str, "", "'a,b(c)=\\'\\n\\u4e2d'", "a,b(c)='\n\u4e2d"),
        (float, np.float64(0.5), "0.25", 0.25),
        (float, 1.0, "-0.0", 0.0),
        (int | None, None, "-3", -3),
        (Any, None, "(1, 'a', None)", (1, "a", None)),
        (Path, Path("."), None, Path(".")),
        (Colour, Colour.RED, None, Colour.RED),
        (frozenset, frozenset({1}), None, frozenset({1})),
    ],
)
def test_fields_that_text_can_write_come_back(hint, default, text, value):
    with_field(hint, default)
    strategy = create_strategy("fielded" if text is None else f"fielded(x={text})")
    assert strategy.x == value and type(strategy.x) is type(value)
    assert create_strategy(strategy_spec(strategy)) == strategy
    assert "\n" not in strategy_spec(strategy)


def test_a_field_may_be_a_strategy_or_null():
    with_field(MixStrategy | None, None)
    for text in ("null", "None", "mixup", "mixup(alpha=0.2)", "alternate(first=mixup)"):
        strategy = create_strategy(f"fielded(x={text})")
        wanted = None if text in ("null", "None") else create_strategy(text)
        assert strategy.x == wanted and create_strategy(strategy_spec(strategy)) == strategy
    with pytest.raises(ValueError, match="did you mean 'mixup'"):
        create_strategy("fielded(x=mixupp)")


@pytest.mark.parametrize(
    ("hint", "factory", "text", "message"),
    [
        (tuple[int, ...], None, "a", "whole number"),
        (bytes, None, "b'a'", "cannot read strategy"),
        (tuple[int, ...], None, "(1, 2.5)", "a whole number, not 2.5"),
        (tuple[float, float], None, "(1,)", "2 numbers"),
        (list[int], None, "[1, 2]", "no hash"),
        (list[int], list, "", "no hash"),
        (dict, dict, "", "no hash"),
        (dict, None, "{1: 2}", "cannot read strategy"),
        (set, set, "", "no hash"),
        (frozenset, None, "{1}", "cannot read strategy"),
        (Path, None, "'a'", "of type Path"),
        (Colour, None, "RED", "of type Colour"),
        (float, None, "1e999", "a number, not '1e999'"),
        (float, lambda: math.nan, "", "cannot be read back"),
        (float, None, "nan", "a number, not 'nan'"),
        (object, lambda: np.zeros(3), "", "truth value"),
        (object, object, "", "cannot be read back"),
        ("Missing", None, "1", "types of the fields of Fielded cannot be read"),
    ],
)
@pytest.mark.parametrize("around", ["{}", "transmix(base={})", "cutmix(alpha=2),{}"])
def test_fields_that_text_cannot_write_are_refused_at_the_start(
    hint, factory, text, message, around
):
    with_field(hint, 0, factory)
    spec = f"fielded(x={text})" if text else "fielded"
    with pytest.raises(ValueError) as error:
        create_strategies(around.format(spec))
    assert message in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"__post_init__": lambda self: 1 / 0}, "cannot be used: ZeroDivisionError"),
        ({"__post_init__": lambda self: exit(3)}, "cannot be used: SystemExit: 3"),
        ({"__eq__": lambda self, other: 1 / 0}, "cannot be used: ZeroDivisionError"),
        ({"__eq__": lambda self, other: False, "__hash__": lambda self: 1}, "another strategy"),
        ({"__hash__": lambda self: 1 / 0}, "cannot be used: ZeroDivisionError"),
        (
            {"__eq__": lambda self, other: True, "__hash__": lambda self: id(self)},
            "equal strategies must have equal hashes",
        ),
        (
            {"__post_init__": lambda self: object.__setattr__(self, "alpha", self.alpha + 1)},
            "another strategy",
        ),
    ],
)
def test_what_a_plugin_does_when_it_is_made_is_a_sentence(members, message):
    kind = type("Odd", (CutMix,), members)
    register_strategy("odd")(dataclass(frozen=True)(kind))
    with pytest.raises(ValueError, match="odd") as error:
        create_strategies("cutmix,odd")
    assert message in str(error.value)


def test_a_repr_that_raises_harms_nothing():
    members = {"__repr__": lambda self: 1 / 0, "__str__": lambda self: 1 / 0}
    register_strategy("odd")(dataclass(frozen=True, repr=False)(type("Odd", (CutMix,), members)))
    assert strategy_spec(create_strategy("transmix(base=odd)")) == "transmix(base=odd)"


def test_two_that_claim_to_be_equal_are_two():
    members = {"__eq__": lambda self, other: True, "__hash__": lambda self: 1}
    register_strategy("odd")(dataclass(frozen=True)(type("Odd", (CutMix,), members)))
    assert len(create_strategies("cutmix,odd,odd(alpha=2)")) == 3
