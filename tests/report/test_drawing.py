"""Names that are too long for a diagram, labels beside it, and colours that a page may change."""

import itertools
import re
from importlib.resources import files

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from mixbench.report.drawing import THEMED, Drawing, spread_out, themed, wrapped
from mixbench.report.figures import (
    Cost,
    Shares,
    accuracy_figure,
    cost_figure,
    difference_figure,
    shares_figure,
)
from mixbench.report.significance import compare

pytestmark = pytest.mark.pictures


def test_a_part_longer_than_two_lines_is_shortened_in_the_middle():
    lines = wrapped(f"named(label={'x' * 200}z)").splitlines()
    assert lines[0] == "named(" and lines[1].startswith("label=xxx") and lines[1].endswith("xz)")
    assert "…" in lines[1] and max(map(len, lines)) <= 44
    assert wrapped("y" * 44) == wrapped("y" * 44, 56) == "y" * 44
    assert wrapped("z" * 300, 56) == "z" * 22 + "…" + "z" * 21


def test_a_wide_letter_takes_the_room_of_two(monkeypatch):
    monkeypatch.setattr("mixbench.report.drawing.family_of", lambda letter: "DejaVu Sans")
    assert wrapped("中" * 22) == "中" * 22
    assert wrapped("中" * 23) == "中" * 11 + "…" + "中" * 10


@pytest.mark.parametrize("names", [["cutmix", "z" * 300], ["z" * 300, "none"]])
def test_all_text_lies_inside_the_diagram(names, monkeypatch):
    """Measured by matplotlib where the figure is saved."""
    outside = []

    def measure(figure, *args, **kwargs):
        figure.draw_without_rendering()
        for text in figure.findobj(Text):
            box = text.get_window_extent()
            words = text.get_text()
            if re.search("[a-z]", words) and not -1 <= box.x0 <= box.x1 <= figure.bbox.width + 1:
                outside.append(words)
        return save(figure, *args, **kwargs)

    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", measure)
    comparison = compare({name: {0: 70.0, 1: 71.0 + len(name)} for name in names})
    for drawn in (accuracy_figure, difference_figure):
        drawn(comparison)
    cost_figure(comparison, {name: Cost(3.0, 2.0, 4.0) for name in names}, "speed")
    shares_figure({name: Shares(np.full((9, 2), 0.5), 0.0) for name in names})
    assert outside == []


@pytest.mark.parametrize("seed", range(5))
def test_pieces_lie_side_by_side_as_near_as_can_be(seed):
    """Held to scipy's constrained least squares."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    centres, sizes = rng.uniform(0, 10, 6), rng.uniform(0.5, 3, 6)
    order = np.argsort(centres)
    gaps = [(a, b, (sizes[a] + sizes[b]) / 2) for a, b in itertools.pairwise(order)]
    places = np.array(spread_out(centres, sizes))
    assert all(places[b] - places[a] >= gap - 1e-9 for a, b, gap in gaps)
    rules = [
        {"type": "ineq", "fun": lambda x, a=a, b=b, gap=gap: x[b] - x[a] - gap}
        for a, b, gap in gaps
    ]
    best = minimize(lambda x: ((x - centres) ** 2).sum(), places + 1, constraints=rules)
    assert ((places - centres) ** 2).sum() == pytest.approx(best.fun, abs=1e-5)


def test_pieces_that_do_not_meet_stay():
    assert spread_out([5.0, 1.0], [1.0, 2.0]) == [5.0, 1.0] and spread_out([], []) == []


def test_every_colour_of_a_diagram_is_one_that_a_page_can_change():
    tag = '<path style="fill: #0072b2; stroke: #0072B2" id="#0072b2"/>'
    assert themed(tag).count("var(--c0072b2, #0072B2)") == 2 and 'id="#0072b2"' in themed(tag)
    comparison = compare({"cutmix": {0: 70.0, 1: 71.0}, "transmix": {0: 72.0, 1: 74.0}})
    costs = {name: Cost(1.0, 0.9, 1.1) for name in ("cutmix", "transmix")}
    svg = difference_figure(comparison) + cost_figure(comparison, costs, "speed", (0.9, 1.1))
    colours = re.findall(r"(?:fill|stroke): (#[0-9a-fA-F]{3,6})", svg)
    assert colours == [] and svg.count("var(--c") > 10


def test_the_page_has_a_dark_colour_for_each():
    style = (files("mixbench.report") / "base.html.j2").read_text(encoding="utf-8")
    dark = style.partition("prefers-color-scheme: dark")[2].partition("</style>")[0]
    assert all(f"--c{colour[1:].lower()}:" in dark for colour in THEMED)
    # what has no colour of its own in an SVG is black
    assert re.search(r"figure svg \{[^}]* fill: var\(--ink\);", style)


def test_a_name_that_looks_like_a_colour_stays_as_it_is():
    drawing = Drawing("one", "", 1)
    with drawing as [axis]:
        axis.set_xlabel("a: #0072b2")
    assert ">a: #0072b2</text>" in drawing.svg
