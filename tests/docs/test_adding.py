"""docs/adding-a-strategy.md runs as it stands."""

import dataclasses

import torch

from mixbench import MixedBatch
from mixbench import registry as registered
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
