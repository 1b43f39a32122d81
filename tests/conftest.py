"""Fixtures that several rooms share."""

import itertools
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from mixbench import create_strategy, registry
from mixbench.recipe import load_recipe
from mixbench.report import drawing
from mixbench.runtime import Runtime
from mixbench.training.learner import prepare
from tests.support import blank
from tests.support.photographs import picture
from tests.support.pretended_gpu import NoWaits, pretended_gpu

DRAWING = {"results", "evaluations", "transfer"}


@pytest.fixture(scope="session")
def photographs():
    """Writes an image folder: root/train/<class>/ and root/val/<class>/ with so many images each.

    They have many sizes; each folder's number 1 is grey and its number 2 has a palette, and every
    third is a JPEG, the others PNG.
    """

    def write(root, train=13, val=2, classes=("a", "b")):
        seeds = itertools.count()
        for split, count in (("train", train), ("val", val)):
            for name in classes:
                (root / split / name).mkdir(parents=True)
                for i in range(count):
                    image = picture(next(seeds), 40 + 7 * i, 60 - 2 * i)
                    image = image.convert({1: "L", 2: "P"}.get(i, "RGB"))
                    image.save(root / split / name / f"{i}.{'png' if i % 3 else 'jpg'}")
        return root

    return write


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """What a test registers is gone in the next; built-in strategies are loaded before."""
    for name in registry.BUILTIN:
        registry.strategy_class(name)
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


@pytest.fixture(autouse=True)
def blank_pictures(request, monkeypatch):
    """Nothing is drawn but in the rooms that draw, and where a test is marked `pictures`."""
    room = request.path.relative_to(Path(__file__).parent).parts[0]
    if room not in DRAWING and not request.node.get_closest_marker("pictures"):
        monkeypatch.setattr(Figure, "savefig", blank.savefig)
        monkeypatch.setattr(drawing, "set_fonts", lambda figure: None)


@pytest.fixture
def no_waits():
    """A context in which an operator that would make a GPU wait is an error."""
    return NoWaits


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU that counts launches and notices waits."""
    if torch.__version__ < "2.11":
        pytest.skip("tensors that pretend to be on a GPU ask the driver in torch 2.6, not in 2.11")
    with pretended_gpu(monkeypatch) as mode:
        yield mode


@pytest.fixture
def learner():
    """Makes a learner of a small ViT for a spec text; recipe fields may be changed."""

    def make(spec, *, num_classes=4, seed=0, **changes):
        fields = {"embed_dim": 24, "depth": 1, **changes}
        [prepared] = prepare(
            [create_strategy(spec)],
            load_recipe("quick", fields),
            num_classes,
            Runtime(device=torch.device("cpu"), seed=seed),
            steps_per_epoch=1,
        )
        return prepared

    return make
