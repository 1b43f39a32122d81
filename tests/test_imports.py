"""The order of the house: a lower room never imports a higher one, and no file imports itself."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = [  # from the highest to the lowest
    {"bench", "cli", "__main__", "results"},
    {"commands"},
    {"comparison"},
    {"evaluations", "report", "transfer"},
    {"training"},
    {"loops", "runs", "strategies", "testing"},
    {"services"},
    {"data", "models"},
    {"recipe", "spec"},
    {"registry", "runtime", "spec_syntax", "yaml_lines", "policy"},
    {"values"},
    {
        *("mix", "rules", "settings", "puzzle", "distributed"),
        *("errors", "files", "published", "visible", "watch"),
    },
]
FLOOR = {room: -height for height, rooms in enumerate(ROOMS) for room in rooms}


def module_of(path: Path) -> str:
    """The dotted name of a file of the package, without `mixbench.`."""
    return ".".join(path.relative_to(ROOT / "mixbench").with_suffix("").parts)


def targets(tree: ast.Module, modules: set[str]) -> set[str]:
    """What a file imports of ours, also inside functions and for types alone."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the whole path"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name.removeprefix("mixbench.") for name in names if name.startswith("mixbench.")}
    return ours & modules


def imports() -> dict[str, set[str]]:
    """What each file of the package imports of the package, by module."""
    paths = {module_of(path): path for path in (ROOT / "mixbench").rglob("*.py")}
    paths.pop("__init__")  # gives the public names, from wherever they live
    return {
        module: targets(ast.parse(path.read_text(encoding="utf-8")), set(paths))
        for module, path in paths.items()
    }


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The circles of a graph, each as a path that ends where it begins; one for each entry."""
    rounds, done = [], set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            rounds.append([*path[path.index(module) :], module])
            return
        if module in done:
            return
        for target in sorted(graph.get(module, ())):
            visit(target, [*path, module])
        done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return rounds


def upward(graph: dict[str, set[str]]) -> list[str]:
    """The imports of a higher room, as text."""
    return [
        f"{module} imports {target}"
        for module, used in sorted(graph.items())
        for target in sorted(used)
        if FLOOR[module.partition(".")[0]] < FLOOR[target.partition(".")[0]]
    ]


def test_every_file_is_in_a_room():
    assert {module.partition(".")[0] for module in imports()} <= set(FLOOR)


def test_a_lower_room_never_imports_a_higher_one():
    assert upward(imports()) == []


def test_no_circle():
    assert circles(imports()) == []


def test_packages_are_empty():
    for path in (ROOT / "mixbench").glob("*/__init__.py"):
        assert not path.read_text(encoding="utf-8").strip(), path


def test_the_checks_can_fail():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert upward({"mix": {"registry"}}) == ["mix imports registry"]
    assert upward({"training.loop": {"data.loaders"}, "data.loaders": {"models.build"}}) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from mixbench.mix import beta", {"mix"}),
        ("def f():\n    from mixbench.data import loaders", {"data.loaders"}),
        ("if TYPE_CHECKING:\n    import mixbench.mix", {"mix"}),
        ("import torch", set()),
    ],
)
def test_every_form_of_import_is_seen(text, expected):
    assert targets(ast.parse(text), {"mix", "data.loaders"}) == expected
