"""Runs with a damaged file: the command goes on to the same figures, or says which file it is."""

import pytest

from tests.fuzz.ends import Case, assert_right, broken_rules, run, tree
from tests.fuzz.run_folders import (
    REPORT,
    RESUME,
    SILENT,
    Damaged,
    argv_of,
    copied,
    damaged_runs,
    figures,
    make_runs,
)

COUNT = 500


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("runs"))


def harm(case: Damaged, before, after, status):
    """What became of files that the command had no business with, as sentences."""
    if case.command == RESUME:  # finished weights and results stay, whatever else is written
        kept_kinds = ("last.pt", "result.json") if status != 0 else ()
    elif case.command == REPORT:
        kept_kinds = (".pt", ".json", ".csv", ".npz", ".yaml")
    else:
        kept_kinds = ("",)
    lost = [
        name
        for name in before
        if name.endswith(kept_kinds) and after.get(name) != before[name] and name != "run"
    ]
    broken = [f"harm: {name} was changed or lost" for name in lost]
    return broken + [f"litter: {name}" for name in after if "partial" in name or ".tmp" in name]


def check(case: Damaged, runs, folder):
    copied(runs, case, folder)
    before = tree(folder)
    argv = argv_of(case)
    name = case.file.rpartition("/")[2]
    names = () if case.damage in (*SILENT, "removed") else (name,)
    if names == ("recipe.yaml",):  # of which it may say that the run is of another recipe
        names = ("recipe.yaml", "run ")
    command = Case(argv, names=names, limit=90)
    end = run(command, folder)
    broken = broken_rules(end, command) or harm(case, before, tree(folder), end.status)
    if not broken and end.status == 0 and case.command == RESUME:
        changed_unseen = name in ("result.json", "runs.csv", "log.csv") and case.damage in SILENT
        if figures(folder / "run") != runs.figures and not changed_unseen:
            broken = ["wrong result: other figures than without the damage"]
    if not broken and end.status == 0 and case.command != RESUME:
        page = folder / ("run" if case.command == REPORT else "both") / "report.html"
        broken = [] if page.is_file() and page.stat().st_size > 1000 else ["lost: no report.html"]
    assert_right(broken, f"{case}\n$ {command}", end)


@pytest.mark.fuzz
@pytest.mark.parametrize("number", range(COUNT))
def test_every_damaged_run(number, runs, tmp_path):
    check(damaged_runs(runs, COUNT)[number], runs, tmp_path / "case")


@pytest.mark.parametrize("number", range(6))
def test_some_damaged_runs(number, runs, tmp_path):
    check(damaged_runs(runs, COUNT)[number], runs, tmp_path / "case")
