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
def test_values_that_python_cannot_make_are_explained(text):
    with pytest.raises(ValueError, match="a number"):
        create_strategy(text)


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
    with pytest.raises(ValueError, match="cutmix per_sample must be true or false, not None"):
        create_strategy("cutmix(per_sample=null)")
