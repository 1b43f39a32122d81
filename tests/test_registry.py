"""Spec text both ways, plug-ins, and errors that name the way out."""

import subprocess
import sys

import pytest

import mixbench
from mixbench import (
    MixStrategy,
    create_strategies,
    create_strategy,
    list_strategies,
    register_strategy,
    strategy_spec,
)
from mixbench.registry import load_plugin

ROUND_TRIPS = {
    "cutmix": "cutmix",
    "cutmix(alpha=1)": "cutmix",
    "cutmix(per_sample=True, alpha=2)": "cutmix(alpha=2.0, per_sample=True)",
    "transmix(base=mixup)": "transmix(base=mixup)",
    "transmix(base=alternate(first=cutmix(alpha=0.5)), attention=6)": "transmix(base=alternate(first=cutmix(alpha=0.5)), attention=6)",
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


def test_duplicate_and_unfit_registrations():
    class Plain(MixStrategy):
        def mix(self, images, labels, ctx): ...

    with pytest.raises(ValueError, match="taken"):
        register_strategy("cutmix")(
            type("Other", (type(create_strategy("mixup")),), {"__dataclass_fields__": {}})
        )
    with pytest.raises(ValueError, match="frozen dataclass"):
        register_strategy("plain")(Plain)
    with pytest.raises(ValueError, match="derived from MixStrategy"):
        register_strategy("thing")(int)


def test_plugin_file(tmp_path):
    path = tmp_path / "plug.py"
    path.write_text("""
from dataclasses import dataclass
from mixbench import MixStrategy, MixedBatch, register_strategy

@register_strategy("halves")
@dataclass(frozen=True)
class Halves(MixStrategy):
    def mix(self, images, labels, ctx):
        mask = ctx.mean.new_zeros(1, 1, 1, images.shape[-1])
        mask[..., : images.shape[-1] // 2] = 1
        partner = images.new_tensor(range(len(images))).long().flip(0)
        return MixedBatch(images=images.where(mask.bool(), images[partner]), labels=labels, partner=partner, mask=mask)
""")
    load_plugin(path)
    from mixbench.testing import check_strategy

    check_strategy(create_strategy("halves"))
    assert "halves" in list_strategies()
    assert strategy_spec(create_strategy("transmix(base=halves)")) == "transmix(base=halves)"
    bad = tmp_path / "bad.py"
    bad.write_text("1/0")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        load_plugin(bad)


def test_public_names_exist_and_importing_is_light():
    assert all(getattr(mixbench, name) for name in mixbench.__all__)
    code = "import sys, mixbench.cli, mixbench.registry as r; r.create_strategy('transmix'); print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )


def test_the_kit_catches_wrong_strategies():
    from dataclasses import dataclass, replace

    from mixbench.strategies.cutmix import CutMix
    from mixbench.testing import check_strategy

    @register_strategy("wronglabel")
    @dataclass(frozen=True)
    class WrongLabel(CutMix):
        def mix(self, images, labels, ctx):
            mixed = super().mix(images, labels, ctx)
            return replace(mixed, mask=1 - mixed.mask)

    with pytest.raises(AssertionError, match="mask \\* A"):
        check_strategy(WrongLabel())


def test_plugins_with_postponed_annotations_and_of_one_file_name(tmp_path):
    code = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
from mixbench.mix import MixStrategy
from mixbench.registry import register_strategy
from mixbench.strategies.cutmix import CutMix

@register_strategy("NAME")
@dataclass(frozen=True)
class Mine(CutMix):
    base: MixStrategy = CutMix()
    kind: Literal["one", "two"] = "one"
"""
    for folder, name in (("a", "postponed"), ("b", "postponed"), ("c", "other")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(code.replace("NAME", name))
    load_plugin(tmp_path / "a" / "mine.py")
    assert (
        strategy_spec(create_strategy("postponed(base=mixup, kind=two)"))
        == "postponed(base=mixup, kind=two)"
    )
    with pytest.raises(ValueError, match="one of one, two"):
        create_strategy("postponed(kind=three)")
    with pytest.raises(ValueError, match="taken"):
        load_plugin(tmp_path / "b" / "mine.py")
    load_plugin(tmp_path / "c" / "mine.py")


@pytest.mark.parametrize("text", ["class", "in", "émodel", "日本", "a-b", "resnet50:/x/y.pth"])
def test_text_that_looks_like_a_word_comes_back(text):
    from mixbench.strategies.attentivecutmix import AttentiveCutMix

    strategy = AttentiveCutMix(network=text)
    assert create_strategy(strategy_spec(strategy)) == strategy


@pytest.mark.parametrize(
    "text", ["cutmix(alpha={[]:1})", "cutmix(alpha={[]})", "cutmix(alpha={{}})"]
)
def test_values_that_python_cannot_make_are_explained(text):
    with pytest.raises(ValueError, match="a number"):
        create_strategy(text)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("k = torch.rand(()); return self.blend(images, labels, k)", "same generator"),
        (
            "k = torch.zeros(1, 1, 1, images.shape[3]); k[..., :3] = 1; return self.blend(images, labels, k)",
            "copied",
        ),
    ],
)
def test_the_kit_catches_global_draws_and_multiplied_masks(body, message, tmp_path):
    from mixbench.testing import check_strategy

    path = tmp_path / f"wrong_{message.split()[0]}.py"
    path.write_text(f"""
from dataclasses import dataclass
import torch
from mixbench import MixedBatch, MixStrategy, register_strategy

@register_strategy("wrong_{message.split()[0]}")
@dataclass(frozen=True)
class Wrong(MixStrategy):
    def blend(self, images, labels, k):
        mask = k.reshape(1, 1, 1, -1)
        mixed = (mask * images.float() + (1 - mask) * images.flip(0).float()).to(images.dtype)
        return MixedBatch(images=mixed, labels=labels, partner=torch.arange(len(labels)).flip(0), mask=mask)
    def mix(self, images, labels, ctx):
        {body}
""")
    load_plugin(path)
    with pytest.raises(AssertionError, match=message):
        check_strategy(create_strategy(f"wrong_{message.split()[0]}"))


def test_the_kit_catches_attention_taken_the_wrong_way():
    from dataclasses import dataclass

    from mixbench.strategies.transmix import TransMix
    from mixbench.testing import check_strategy

    @register_strategy("backwards")
    @dataclass(frozen=True)
    class Backwards(TransMix):
        def relabel(self, mixed, output):
            return 1 - super().relabel(mixed, output)

    with pytest.raises(AssertionError, match="must not lower lam"):
        check_strategy(Backwards())


def test_yamls_words_are_known():
    from dataclasses import dataclass

    from mixbench.strategies.cutmix import CutMix

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

    found = create_strategy("mayskip(every=null, name=null)")
    assert (
        found.every is None
        and found.name == "null"
        and create_strategy(strategy_spec(found)) == found
    )
    with pytest.raises(ValueError, match="cutmix per_sample must be true or false, not None"):
        create_strategy("cutmix(per_sample=null)")
