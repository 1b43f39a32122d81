"""Names, plug-ins, and errors that name the way out."""

import importlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

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


GOOD = """
from dataclasses import dataclass
from mixbench import register_strategy
from mixbench.strategies.cutmix import CutMix

@register_strategy("good")
@dataclass(frozen=True)
class Good(CutMix): ...
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "import sys; sys.exit(3)", "failed in line 9: SystemExit: 3"),
        (GOOD + "raise BaseException('x' * 10**6)", "failed in line 9: BaseException: xxx"),
        (GOOD + "def f(:", "failed in line 9: SyntaxError"),
        (GOOD + "def f():\n    1 / 0\nf()", "failed in line 10: ZeroDivisionError"),
        (GOOD + "import os; os.chdir('/')", "must leave the working directory"),
        (GOOD + "import torch; torch.set_default_dtype(torch.float64)", "torch's default dtype"),
        (GOOD + "import torch; torch.set_grad_enabled(False)", "must leave gradient mode"),
        (GOOD.encode() + b"x = '\xff'", "SyntaxError"),
        (GOOD.encode() + b"\0", "null bytes"),
        ("x = 1", "registered no strategy"),
        ("import not_there", "failed in line 1: ModuleNotFoundError"),
    ],
)
def test_a_plugin_file_that_fails_is_a_sentence_and_leaves_nothing(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    modules, directory = set(sys.modules), Path.cwd()
    with pytest.raises(ValueError) as error:
        load_plugin(path)
    assert message in str(error.value) and len(str(error.value)) < 700
    assert "good" not in list_strategies() and Path.cwd() == directory
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    assert not [name for name in set(sys.modules) - modules if "mine" in name and text != "x = 1"]


def test_a_plugin_that_fails_when_it_is_loaded_again_leaves_the_first(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    load_plugin(path)
    first = registry.strategy_class("good")
    path.write_text(
        GOOD.replace("class Good(CutMix): ...", "class Good(CutMix): n: int = 0\n1 / 0")
    )
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        load_plugin(path)
    assert registry.strategy_class("good") is first
    assert sys.modules[first.__module__].Good is first


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """Writes modules into a folder that Python imports from; what is imported of it goes again."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(**files):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/', 1)}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {path.stem for path in tmp_path.iterdir()}:
            del sys.modules[name]


def test_a_module_is_a_plugin_by_its_name(importable, tmp_path, monkeypatch, capsys):
    """Also where a folder of that name lies here; loaded twice it is the same."""
    from mixbench.cli import main

    (tmp_path / "here" / "mymix").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    importable(mymix____init__="", mymix__strategies=GOOD)
    for _ in range(2):
        load_plugin("mymix.strategies")
    assert registry.strategy_class("good").__module__ == "mymix.strategies"
    assert main(["list", "--plugin", "mymix.strategies"]) == 0
    assert "good(alpha=1.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_at_all", "plug-in module not found: 'nowhere_at_all': install its package"),
        ("mymix.nowhere", "plug-in module not found: 'mymix.nowhere'"),
        ("mymix.empty", "plug-in module mymix.empty registered no strategy"),
        ("mymix.bad", "plug-in module 'mymix.bad' failed: ZeroDivisionError"),
        ("mymix.needs", "failed: ModuleNotFoundError: No module named 'not_there'"),
        ("mymix.leaves", "failed: SystemExit: 3"),
    ],
)
def test_a_plugin_module_that_fails_is_a_sentence_and_leaves_nothing(importable, name, message):
    bad = GOOD + "1 / 0"
    needs, leaves = GOOD + "import not_there", GOOD + "import sys; sys.exit(3)"
    importable(
        mymix____init__="",
        mymix__empty="",
        mymix__bad=bad,
        mymix__needs=needs,
        mymix__leaves=leaves,
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        load_plugin(name)
    assert "good" not in list_strategies() and name not in sys.modules


def test_a_plugin_package_that_failed_is_imported_whole_the_next_time(importable):
    """Also the part of it that had registered its strategy before another one failed."""
    importable(mymix____init__="import mymix.good, mymix.bad", mymix__good=GOOD, mymix__bad="1 / 0")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        load_plugin("mymix")
    assert "good" not in list_strategies()
    importable(mymix__bad="fixed = True")
    load_plugin("mymix")
    assert "good" in list_strategies()


def test_a_path_is_a_file_whatever_it_is_called(tmp_path):
    (tmp_path / "json").write_text(GOOD)
    for plugin in (Path("json"), tmp_path / "json", str(tmp_path / "json"), "./json", "json.py"):
        with pytest.raises(ValueError, match=r"file not found|ends in \.py"):
            load_plugin(plugin)


def test_ctrl_c_in_a_plugin_interrupts(tmp_path):
    (tmp_path / "mine.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugin(tmp_path / "mine.py")


def test_what_is_no_file_is_a_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "mine.txt").write_text(GOOD)
    for name, message in (
        ("pipe.py", "is no regular file"),
        ("folder.py", "is a directory"),
        ("mine.txt", "ends in .py"),
        ("nowhere.py", "not found"),
        ("a" * 300, "not found"),
        ("nul\0.py", "not found"),
    ):
        with pytest.raises(ValueError, match=message):
            load_plugin(tmp_path / name)


def test_a_file_that_is_given_twice_is_one_plugin(tmp_path, monkeypatch):
    """Also by another path, and through a link."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "link.py").symlink_to("mine.py")
    for path in ("mine.py", tmp_path / "mine.py", "./mine.py", "link.py"):
        load_plugin(path)
    assert strategy_spec(create_strategy("good")) == "good"


class Installed:
    """An entry point of a package that is installed."""

    def __init__(self, name, value, load):
        self.name, self.value, self.load = name, value, load


def good():
    return dataclass(frozen=True)(type("Good", (CutMix,), {}))


def failing(error):
    def load():
        raise error

    return load


@pytest.fixture
def installed(monkeypatch):
    """Packages whose strategies are broken, each in another way, and one that is good."""
    points = [
        Installed("good", "good:Good", good),
        Installed("gone", "gone:Gone", failing(ModuleNotFoundError("No module named 'gone'"))),
        Installed("leaves", "leaves:Leaves", failing(SystemExit(3))),
        Installed("text", "text:Text", lambda: "no class"),
        Installed("thawed", "thawed:Thawed", lambda: type("Thawed", (CutMix,), {})),
        Installed("Upper", "upper:Upper", good),
        Installed("twice", "first:Twice", good),
        Installed("twice", "second:Twice", good),
        Installed("again", "again:Again", good),
        Installed("again", "again:Again", good),
        Installed("cutmix", "thief:CutMix", good),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    registry._entry_points.cache_clear()
    yield
    registry._entry_points.cache_clear()


BROKEN = {
    "gone": "installed plug-in gone:Gone failed: ModuleNotFoundError: No module named 'gone'",
    "leaves": "installed plug-in leaves:Leaves failed: SystemExit: 3",
    "text": "must be a class derived from MixStrategy",
    "thawed": "must be a frozen dataclass",
    "Upper": "lower-case letters",
    "twice": "taken twice, by first:Twice and second:Twice: uninstall one",
}


def test_a_broken_installed_plugin_is_a_line_of_the_list(installed, capsys):
    from mixbench.cli import main

    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, reason in BROKEN.items():
        [line] = [line for line in lines if line.startswith(f"{name} is broken")]
        assert reason in line
    assert "thief:CutMix is left out: its name cutmix is mixbench's own" in lines[-1]
    assert sum(line.startswith("good(alpha=1.0") for line in lines) == 1
    assert [line for line in lines if line.startswith("cutmix")] == [
        "cutmix(alpha=1.0, per_sample=False)"
    ]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_installed_plugin_is_a_sentence_where_it_is_named(installed, name):
    assert create_strategy("cutmix") and create_strategy("good") and create_strategy("again")
    with pytest.raises(ValueError, match=name):
        create_strategy(name)
    with pytest.raises(ValueError, match="did you mean"):
        create_strategy(f"{name}x")


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_a_broken_plugins_text_is_shown_as_text(kind, capsys):
    """Its line is one, of at most 500 characters, without a code that a terminal obeys."""
    from mixbench.commands.list import print_strategies

    class Loud:
        def __str__(self):
            raise kind("\x1b[31m[red]two\nlines\u202e\udcff" + 300 * "x")

    for name, default in (("loud", Loud()), ("odd", "\x1b]0;title\x07" + 600 * "y")):
        fields = {"__annotations__": {"x": object}, "x": default}
        cls = type(name.title(), (CutMix,), fields)
        register_strategy(name)(dataclass(frozen=True, eq=False)(cls))
    print_strategies()
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if line.startswith("loud")]
    assert r"\x1b[31m[red]two lines\u202e\udcffxx" in line and "broken" in line
    [odd] = [line for line in lines if line.startswith("odd")]
    assert r"\x1b]0;title\x07yy" in odd
    assert all(line.isprintable() and len(line) <= 500 for line in lines)


def test_a_default_that_cannot_be_shown_is_a_line_of_the_list(capsys):
    from mixbench.commands.list import print_strategies

    class Silent:
        def __str__(self):
            raise RuntimeError("no words")

    kind = type("Odd", (CutMix,), {"__annotations__": {"x": Silent}, "x": Silent()})
    register_strategy("odd")(dataclass(frozen=True, eq=False)(kind))
    print_strategies()
    assert "odd is broken: RuntimeError: no words" in capsys.readouterr().out
