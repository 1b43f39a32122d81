"""Spec text both ways, and errors that name the way out."""

from dataclasses import dataclass

import pytest

from mixbench import create_strategies, create_strategy, register_strategy, strategy_spec
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
