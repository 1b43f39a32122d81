"""A diagram's letters: of its font, of an installed one, else escapes."""

import warnings

import pytest
from fontTools.ttLib import TTFont
from matplotlib.font_manager import findfont

from mixbench.report import fonts
from mixbench.report.drawing import Drawing, drawable, fitted

pytestmark = pytest.mark.pictures

OURS, OTHER = "DejaVu Sans", "STIXGeneral"  # matplotlib brings both


@pytest.fixture
def only(monkeypatch):
    """Have some families installed, and no others."""

    def install(*names):
        monkeypatch.setattr(fonts, "installed", lambda: {n: findfont(n) for n in names})
        fonts.family_of.cache_clear()

    yield install
    fonts.family_of.cache_clear()


def letters(family):
    """What a font has, by fontTools."""
    return {chr(code) for code in TTFont(findfont(family)).getBestCmap()}


def test_a_letter_is_drawn_by_the_first_font_that_has_it(only):
    only(OTHER)
    ours, others = letters(OURS), letters(OTHER)
    for letter in filter(str.isprintable, [*sorted(ours | others), "中", "🎈"]):
        expected = OURS if letter in ours else OTHER if letter in others else None
        assert fonts.family_of(letter) == expected, letter
    assert "é" in ours and "Ⓐ" in others - ours and "ع" in ours
    assert fonts.families("aé\nع") == [OURS] and fonts.families("aⒶⒷ") == [OURS, OTHER]


def test_letters_of_no_font_are_escaped(only):
    only(OTHER)
    assert drawable("aⒶ中\n🎈") == r"aⒶ\u4e2d\n\U0001f388"
    only()
    assert drawable("aⒶ") == r"a\u24b6"


def test_a_diagram_names_the_font_and_does_not_warn(only):
    only(OTHER)
    drawing = Drawing("names", "names", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with drawing as [axis]:
            axis.set_xlabel(drawable("Ⓐ $x^2$ 中"))
            axis.set_ylabel("plain")
    assert r">Ⓐ $x^2$ \u4e2d<" in drawing.svg
    assert drawing.svg.count(OTHER) == 1


def test_fonts_of_boxes_are_not_used():
    assert not [n for n in fonts.installed() if n.startswith(("Last Resort", "cm", "STIXNon"))]
    assert fonts.letters(__file__) == frozenset()  # no font


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a" * 24, "a" * 24),
        ("a" * 25, "a" * 23 + "…"),
        ("a" * 20 + "中", "a" * 20 + "…"),  # an escape is not cut in two
        ("a" * 19 + "中", "a" * 19 + "…"),
        ("two\nlines", r"two\nlines"),
    ],
)
def test_a_name_fits_above_its_picture(only, text, shown):
    only()
    assert fitted(text, 24) == shown


def test_a_wide_letter_takes_the_room_of_two(only, monkeypatch):
    monkeypatch.setattr("mixbench.report.drawing.family_of", lambda letter: OURS)
    assert fitted("中" * 12, 24) == "中" * 12 and fitted("中" * 13, 24) == "中" * 11 + "…"
