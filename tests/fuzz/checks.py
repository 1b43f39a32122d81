"""A case's end held to the rules, to what was expected of it, and to what it may write."""

from pathlib import Path

import yaml

from tests.fuzz.ends import Case, End, assert_right, broken_rules, changed, run, tree


def misread(end: End, case: Case) -> list[str]:
    """Values of the printed recipe that are not what they look like on the command line."""
    if not case.shown or end.status != 0:
        return []
    recipe = yaml.load(end.stdout, yaml.BaseLoader)  # text as it stands
    return [
        f"wrong acceptance: {name} is {recipe.get(name)}, not {value}"
        for name, value in case.shown.items()
        if not _says(recipe.get(name), value)
    ]


def _says(text: object, value: object) -> bool:
    if isinstance(value, list):
        return isinstance(text, list) and [float(part) for part in text] == value
    if value is None or isinstance(value, bool):
        return text == {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return text == value
    try:
        return int(str(text)) == value
    except ValueError:
        # a double has no digits beyond 2**53
        return isinstance(text, str) and text != "null" and float(text) == float(value)


def check(case: Case, folder: Path) -> None:
    """Run a case and hold its end to the rules; nothing in its folder may change."""
    folder.mkdir()
    if case.files:
        case.files(folder)
    before = tree(folder)
    end = run(case, folder)
    broken = broken_rules(end, case) or misread(end, case)
    assert_right([*broken, *changed(before, tree(folder))], case, end)
