"""docs/adding-a-strategy.md runs as it stands, and examples/resizemix.py is ResizeMix."""

import dataclasses
import runpy

import numpy as np
import pytest
import torch

from mixbench import MixedBatch, create_strategy
from mixbench import registry as registered
from mixbench.mix import MixContext, step_rng
from mixbench.testing import check_strategy
from tests.support.pages import ROOT, run, sections


def test_adding_a_strategy():
    registered._registered.pop("halves", None)
    names: dict = {"__name__": "docs"}
    [halves] = sections("adding-a-strategy.md")["The smallest one"]
    assert (ROOT / "examples" / "halves.py").read_text(encoding="utf-8").endswith(halves)
    for blocks in sections("adding-a-strategy.md").values():
        run(names, *blocks)
    test_rules = names["test_rules"]
    [mark] = test_rules.pytestmark
    assert len(mark.args[1]) > 40
    for case in mark.args[1]:
        test_rules(*case.values)


def test_gradient_labels():
    """Labels by the gradient's share, by hand: A's box keeps 1 of its 4, 3 x 2 of B's are seen."""
    names = run({"__name__": "docs"}, *sections("adding-a-strategy.md")["Services"])
    mask = torch.tensor([[1.0, 0.0], [0.0, 0.0]])[None, None]
    saliency = torch.stack([torch.full((2, 2), 1.0), torch.full((2, 2), 2.0)])
    mixed = MixedBatch(
        images=torch.zeros(2, 3, 2, 2),
        labels=torch.tensor([0, 1]),
        partner=torch.tensor([1, 0]),
        mask=mask,
        memo=saliency,
    )
    strategy = names["GradientLabels"]()
    torch.testing.assert_close(strategy.relabel(mixed, None), torch.tensor([1 / 7, 2 / 5]))
    blank = dataclasses.replace(mixed, memo=torch.zeros(2, 2, 2))
    torch.testing.assert_close(strategy.relabel(blank, None), torch.tensor([0.25, 0.25]))


@pytest.fixture
def resizemix():
    """The names in examples/resizemix.py, its strategy registered for the test."""
    registered._registered.pop("resizemix", None)
    return runpy.run_path(str(ROOT / "examples" / "resizemix.py"))


def test_resizemix_passes_the_kit(resizemix):
    check_strategy(create_strategy("resizemix"))
    check_strategy(create_strategy("transmix(base=resizemix)"))


def test_resizemix_by_hand(resizemix):
    """Halving a, b, c, d with the antialiased triangle: weights 3, 3, 1, then 1, 3, 3."""
    rows = torch.tensor([7.0, 14.0, 21.0, 35.0])
    images = torch.stack([torch.zeros(1, 4, 4), rows.expand(1, 4, 4)])
    first, second = (3 * 7 + 3 * 14 + 21) / 7, (14 + 3 * 21 + 3 * 35) / 7
    expected = torch.zeros(4, 4)
    expected[1:3, 2:4] = torch.tensor([first, second])
    mixed = resizemix["paste_resized"](images, (1, 2, 3, 4))
    torch.testing.assert_close(mixed[0, 0], expected)
    expected = rows.expand(4, 4).clone()
    expected[1:3, 2:4] = 0
    torch.testing.assert_close(mixed[1, 0], expected)


def test_resizemix_is_pillows_resize(resizemix):
    from PIL import Image

    images = torch.randn(2, 1, 21, 33, generator=torch.Generator().manual_seed(0))
    top, left, bottom, right = box = 3, 4, 12, 17
    small = Image.fromarray(images[1, 0].numpy()).resize(
        (right - left, bottom - top), Image.Resampling.BILINEAR
    )
    expected = images[0, 0].clone()
    expected[top:bottom, left:right] = torch.from_numpy(np.array(small))
    torch.testing.assert_close(
        resizemix["paste_resized"](images, box)[0, 0], expected, rtol=1e-5, atol=1e-5
    )


def test_resizemix_draws(resizemix):
    """The side's share is uniform in [0.1, 0.8), the box lies inside, anywhere, and is pasted.

    The share's square has mean (0.8^3 - 0.1^3) / (3 * 0.7).
    """
    strategy = create_strategy("resizemix")
    images = torch.randn(2, 3, 100, 200, generator=torch.Generator().manual_seed(1))
    shares, tops, lefts = [], [], []
    for step in range(400):
        ctx = MixContext(rng=step_rng(0, step), mean=torch.zeros(3, 1, 1), std=torch.ones(3, 1, 1))
        mixed = strategy.mix(images, torch.tensor([0, 1]), ctx)
        inside = mixed.mask[0, 0] == 0
        rows, cols = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
        box = int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1
        assert mixed.images.equal(resizemix["paste_resized"](images, box))
        assert (
            inside.sum() == len(rows) * len(cols)
            and 10 <= len(rows) <= 80
            and abs(2 * len(rows) - len(cols)) <= 1
        )
        shares.append(len(rows) * len(cols) / 20000)
        tops.append(int(rows[0]) / (100 - len(rows)))
        lefts.append(int(cols[0]) / (200 - len(cols)))
    assert abs(np.mean(shares) - (0.8**3 - 0.1**3) / 2.1) < 0.03  # four standard errors
    assert abs(np.mean(tops) - 0.5) < 0.06 and abs(np.mean(lefts) - 0.5) < 0.06
    assert min(tops) < 0.02 and max(tops) > 0.98


@pytest.mark.parametrize(
    "spec",
    [
        "resizemix(min_scale=0)",
        "resizemix(min_scale=0.5, max_scale=0.4)",
        "resizemix(max_scale=1.5)",
    ],
)
def test_resizemix_refuses(resizemix, spec):
    with pytest.raises(ValueError, match="resizemix needs 0 < min_scale"):
        create_strategy(spec)
