"""A page and a picture for each strategy, true of its code."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mixbench.data.normalisation import Normalisation
from mixbench.data.scenes import CLASSES
from mixbench.registry import BUILTIN, strategy_class
from mixbench.report.gallery import mix_examples, pictures_of
from mixbench.runs.rows import SpeedRow, write_table
from mixbench.spec import create_strategies
from results.strategy_pages import (
    DRAW,
    WHEN,
    _draw_grid,
    _examples,
    _shown,
    needs_of_page,
    newest_speeds,
    parameters,
    strategy_pages,
)
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
    [attention] = [row for row in parameters(strategy_class("mixpro")) if row[0] == "`attention`"]
    assert attention[2] == "a whole number, between 1 and 1000, or text"  # bounds are of numbers
    assert needs_of_page("cutmix") == ["* nothing but the batch"]
    assert [line.split()[1] for line in needs_of_page("regmixup")] == ["the"]
    with_head = needs_of_page("smmix")
    assert len(with_head) == 3 and "patches' attention" in with_head[0]


def test_the_picture_of_a_strategy_shows_each_mix_below_its_image(tmp_path, monkeypatch):
    examples, normalisation = _examples(), Normalisation.of((0.5,) * 3, (0.25,) * 3)
    monkeypatch.setattr(plt, "close", lambda figure: None)
    _draw_grid(_shown("cutmix"), examples, normalisation, tmp_path / "cutmix.png")
    figure = plt.gcf()
    above, below = figure.axes[:4], figure.axes[4:]
    assert (above[0].get_ylabel(), below[0].get_ylabel()) == ("image", "cutmix")
    result = mix_examples(_shown("cutmix"), examples, normalisation, DRAW)
    mixed = pictures_of(result.mixed.images, normalisation)
    clean = pictures_of(examples.images, normalisation)
    for i in range(4):
        assert above[i].get_title() == f"{i + 1}: {CLASSES[int(examples.labels[i])]}"
        pair, area, label = below[i].get_title().splitlines()
        assert pair == f"A {i + 1}, B {4 - i}"
        assert area.removeprefix("A by area") == label.removeprefix("A in label")  # by area
        assert np.array_equal(above[i].images[0].get_array(), clean[i])
        assert np.array_equal(below[i].images[0].get_array(), mixed[i])
    monkeypatch.undo()
    plt.close(figure)


@pytest.mark.parametrize("newer", ["a", "b"])
def test_the_newest_speed_counts(tmp_path, newer):
    for name in ("a", "b"):
        date = "2026-02-01" if name == newer else "2026-01-01"
        write_table(tmp_path / f"{name}.csv", SpeedRow, [speed_row("cutmix", date=date)])
    row, file = newest_speeds(tmp_path)["cutmix"]
    assert (row.date, file) == ("2026-02-01", f"{newer}.csv")


def test_a_pass_in_another_precision_is_no_strategys_cost(tmp_path):
    precision = "fp32 with bf16 input gradient"
    write_table(tmp_path / "b.csv", SpeedRow, [speed_row("puzzlemix", timed_precision=precision)])
    assert newest_speeds(tmp_path) == {}
