"""The examples run as they stand."""

import math
import runpy
from pathlib import Path

from mixbench import create_strategy, registry
from mixbench.registry import load_plugin
from mixbench.testing import check_strategy

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_plugin():
    registry._registered.pop("halves", None)
    load_plugin(EXAMPLES / "halves.py")
    check_strategy(create_strategy("halves"))


def test_own_loop():
    losses = runpy.run_path(str(EXAMPLES / "own_loop.py"))["train"]()
    assert len(losses) == 3 and all(math.isfinite(loss) for loss in losses)
