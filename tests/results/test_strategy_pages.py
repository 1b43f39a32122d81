"""A page and a picture for each strategy, true of its code."""

import re
from pathlib import Path

import pytest

from mixbench.registry import BUILTIN, strategy_class
from mixbench.runs.rows import SpeedRow, write_table
from mixbench.spec import create_strategies
from results.strategy_pages import WHEN, needs_of_page, newest_speeds, parameters, strategy_pages
from tests.support.rows import speed_row

ROOT = Path(__file__).parents[2]


def test_every_strategy_has_a_page_with_its_picture_and_a_command():
    pages = strategy_pages(ROOT)
    assert sorted(WHEN) == sorted(BUILTIN)
    assert {path.stem for path in pages} == {*BUILTIN, "README"}
    for path, text in pages.items():
        assert path.read_text() == text, f"{path.name} is old: run `make readme`"
        if path.stem != "README":
            [specs] = re.findall(r"--strategies '(.*)'$", text, re.M)
            assert len(create_strategies(specs)) > 1
            assert f"({path.stem}.png)" in text and (path.parent / f"{path.stem}.png").is_file()


def test_parameters_and_needs_are_those_of_the_code():
    assert parameters(strategy_class("oacutmix")) == [
        ("`base`", "`cutmix`", "a strategy"),
        ("`target`", "`'share'`", "one of share, fraction"),
        ("`weight`", "`1.0`", "a number, between 0 and 1"),
    ]
    assert parameters(strategy_class("none")) == []
    assert needs_of_page("cutmix") == ["* nothing but the batch"]
    assert [line.split()[1] for line in needs_of_page("regmixup")] == ["the"]
    with_head = needs_of_page("smmix")
    assert len(with_head) == 3 and "patches' attention" in with_head[0]


@pytest.mark.parametrize("newer", ["a", "b"])
def test_the_newest_speed_counts(tmp_path, newer):
    for name in ("a", "b"):
        date = "2026-02-01" if name == newer else "2026-01-01"
        write_table(tmp_path / f"{name}.csv", SpeedRow, [speed_row("cutmix", date=date)])
    row, file = newest_speeds(tmp_path)["cutmix"]
    assert (row.date, file) == ("2026-02-01", f"{newer}.csv")
