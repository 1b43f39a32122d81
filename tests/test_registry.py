"""Names, plug-ins, and errors that name the way out."""

import subprocess
import sys
from dataclasses import dataclass, replace

import pytest

import mixbench
from mixbench import (
    MixStrategy,
    create_strategy,
    list_strategies,
    register_strategy,
    registry,
    strategy_spec,
)
from mixbench.registry import load_plugin
from mixbench.strategies.cutmix import CutMix
from mixbench.strategies.transmix import TransMix
from mixbench.testing import check_strategy


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
        mixed = images.where(mask.bool(), images[partner])
        return MixedBatch(images=mixed, labels=labels, partner=partner, mask=mask)
""")
    load_plugin(path)
    check_strategy(create_strategy("halves"))
    assert "halves" in list_strategies()
    assert strategy_spec(create_strategy("transmix(base=halves)")) == "transmix(base=halves)"
    bad = tmp_path / "bad.py"
    bad.write_text("1/0")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        load_plugin(bad)


def test_public_names_exist_and_importing_is_light():
    assert all(getattr(mixbench, name) for name in mixbench.__all__)
    code = (
        "import sys, mixbench.cli, mixbench.spec as s; s.create_strategy('transmix')\n"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_kit_catches_wrong_strategies():

    @register_strategy("wronglabel")
    @dataclass(frozen=True)
    class WrongLabel(CutMix):
        def mix(self, images, labels, ctx):
            mixed = super().mix(images, labels, ctx)
            return replace(mixed, mask=1 - mixed.mask)

    with pytest.raises(AssertionError, match="mask \\* A"):
        check_strategy(WrongLabel())


def test_a_plugin_that_fails_leaves_the_registry_as_it_was(tmp_path, monkeypatch):
    """But a built-in strategy that it was the first to import stays known."""
    without = {name: cls for name, cls in registry._registered.items() if name != "puzzlemix"}
    monkeypatch.setattr(registry, "_registered", without)
    monkeypatch.delitem(sys.modules, "mixbench.strategies.puzzlemix", raising=False)
    plugin = tmp_path / "half.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "from mixbench import register_strategy\n"
        "from mixbench.strategies.cutmix import CutMix\n"
        "from mixbench.strategies.puzzlemix import PuzzleMix\n"
        "@register_strategy('half')\n@dataclass(frozen=True)\nclass Half(CutMix): ...\n"
        "raise RuntimeError('in the middle')\n"
    )
    with pytest.raises(ValueError, match="RuntimeError: in the middle"):
        load_plugin(plugin)
    assert "half" not in list_strategies()
    assert create_strategy("puzzlemix").alpha == 1.0


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


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("k = torch.rand(()); return self.blend(images, labels, k)", "same generator"),
        (
            "k = torch.zeros(1, 1, 1, images.shape[3]); k[..., :3] = 1; "
            "return self.blend(images, labels, k)",
            "copied",
        ),
    ],
)
def test_the_kit_catches_global_draws_and_multiplied_masks(body, message, tmp_path):
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
        partner = torch.arange(len(labels)).flip(0)
        return MixedBatch(images=mixed, labels=labels, partner=partner, mask=mask)
    def mix(self, images, labels, ctx):
        {body}
""")
    load_plugin(path)
    with pytest.raises(AssertionError, match=message):
        check_strategy(create_strategy(f"wrong_{message.split()[0]}"))


def test_the_kit_catches_attention_taken_the_wrong_way():

    @register_strategy("backwards")
    @dataclass(frozen=True)
    class Backwards(TransMix):
        def relabel(self, mixed, output):
            return 1 - super().relabel(mixed, output)

    with pytest.raises(AssertionError, match="must not lower lam"):
        check_strategy(Backwards())
