"""The mask strategies in the kit: alone, under TransMix, and in turn with another."""

import pytest

from mixbench import create_strategy
from mixbench.testing import check_strategy

SPECS = [
    "gridmix",
    "fmix",
    "fmix(max_soft=0.4)",
    "maskmix",
    "maskmix(grid=7)",
    "guidedmixup",
    "guidedmixup(pairing=mirror)",
]
MOVING = ["resizemix"]


@pytest.mark.parametrize("spec", [*SPECS, *MOVING])
@pytest.mark.parametrize("around", ["{}", "transmix(base={})", "alternate(first={})"])
def test_the_kit(spec, around):
    check_strategy(create_strategy(around.format(spec)), moves_pixels=spec in MOVING)
