"""Colours and markers belong to names: the same whichever strategies stand beside them."""

import itertools
import re

from mixbench.registry import BUILTIN
from mixbench.report.looks import COLOURS, FIXED, MARKERS, Look, look_of


def test_every_built_in_strategy_has_a_look_of_its_own():
    assert set(FIXED) == set(BUILTIN)
    assert len(set(FIXED.values())) == len(FIXED)
    assert all(look.filled for look in FIXED.values())


def test_the_papers_strategies_differ_in_colour_and_in_marker():
    paper = ("none", "mixup", "cutmix", "saliencymix", "attentivecutmix", "puzzlemix", "transmix")
    for one, other in itertools.combinations(paper, 2):
        assert look_of(one).colour != look_of(other).colour
        assert look_of(one).marker != look_of(other).marker


def test_parameters_keep_the_colour_and_make_the_marker_hollow():
    one, other = look_of("transmix(attention_weight=1.0)"), look_of("transmix(attention_weight=0)")
    assert one.colour == other.colour == look_of("transmix").colour
    assert (
        one != other
        and not one.filled
        and (one.face, look_of("transmix").face)
        == (
            "none",
            look_of("transmix").colour,
        )
    )


def test_a_plug_ins_look_is_of_its_name_alone():
    """Written out: another machine, version or order draws the same."""
    assert look_of("halves") == look_of("halves") == Look("#009E73", "^", filled=False)
    names = [f"plugin{i}" for i in range(400)]
    seen = {(look_of(name).colour, look_of(name).marker) for name in names}
    assert len(seen) > 80  # of 8 x 12
    assert {colour for colour, _ in seen} == set(COLOURS)
    assert {marker for _, marker in seen} == set(MARKERS)


def test_the_most_compared_have_a_marker_each():
    """What a black-and-white printer leaves of them."""
    assert all(re.fullmatch("#[0-9A-F]{6}", colour) for colour in COLOURS)
    assert len({look.marker for look in [*FIXED.values()][:8]}) == 8
