"""Spec text both ways, plug-ins, and errors that name the way out."""
import subprocess
import sys

import pytest

import mixbench
from mixbench import MixStrategy, create_strategies, create_strategy, list_strategies, register_strategy, strategy_spec
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
    [("cutmx", "did you mean 'cutmix'"), ("cutmix(alpa=1)", "did you mean 'alpha'"), ("cutmix(alpha=-1)", "above 0, not -1"),
     ("cutmix(alpha=nan)", "a number"), ("cutmix(1)", "name=value"), ("cutmix(", "cannot read"), ("transmix(base=3)", "a strategy"),
     ("cutmix(alpha=True)", "a number"), ("__import__('os')", "unknown strategy|name=value"), ("transmix(attention_weight=2)", "between 0 and 1"),
     ("alternate(first=transmix, second=transmix(attention=3))", "two kinds of attention"), ("", "no strategy"), ("none(a=1)", "it has none")],
)
def test_mistakes_are_explained(text, message):
    with pytest.raises(ValueError, match=message):
        create_strategy(text)


def test_lists():
    assert [strategy_spec(s) for s in create_strategies("cutmix, transmix(base=mixup, attention=3)")] == [
        "cutmix", "transmix(base=mixup, attention=3)"]
    with pytest.raises(ValueError, match="twice"):
        create_strategies("cutmix,cutmix(alpha=1)")


def test_duplicate_and_unfit_registrations():
    class Plain(MixStrategy):
        def mix(self, images, labels, ctx): ...

    with pytest.raises(ValueError, match="taken"):
        register_strategy("cutmix")(type("Other", (type(create_strategy("mixup")),), {"__dataclass_fields__": {}}))
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
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


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
