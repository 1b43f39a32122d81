"""Names that are too long for a diagram."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from mixbench.report.drawing import wrapped
from mixbench.report.figures import accuracy_figure, cost_figure, difference_figure, lam_figure
from mixbench.report.significance import compare


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
    cost_figure(comparison, {name: [3.0] for name in names})
    lam_figure({name: np.full((9, 2), 0.5) for name in names})
    assert outside == []
