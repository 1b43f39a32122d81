"""The mask strategies in the kit: alone, under TransMix, and in turn with another."""

import pytest

from mixbench import create_strategy
from mixbench.published import published
from mixbench.testing import check_strategy

SPECS = [
    "gridmix",
    "fmix",
    "fmix(max_soft=0.4)",
    "maskmix",
    "maskmix(grid=7)",
    "tokenmix",
    "tokenmix(share=0.3, patch=8)",
    "guidedmixup",
    "guidedmixup(pairing=mirror)",
]


@pytest.mark.parametrize("spec", [*SPECS, "resizemix"])
@pytest.mark.parametrize("around", ["{}", "transmix(base={})", "alternate(first={})"])
def test_the_kit(spec, around):
    check_strategy(create_strategy(around.format(spec)))


@pytest.mark.parametrize(("name", "top1"), [("resizemix", "78.61"), ("fmix", "77.37")])
def test_what_openmixup_published(name, top1):
    assert published(name).openmixup_top1 == top1
    assert published(name).top1 is None and published(f"{name}(alpha=2)").openmixup_top1 is None


def test_nothing_is_published_of_the_others():
    names = ("gridmix", "maskmix", "guidedmixup")
    assert [published(name).openmixup_top1 for name in names] == [None] * 3
