"""The table of peers: calls in turn, times over ours, and the published transport beside it."""

import pytest
import torch

from baselines import peers
from baselines.peers import Timed
from baselines.reference import puzzlemix as literal
from mixbench.evaluations.speed import Interval


def test_calls_take_turns():
    """Two rounds warm up, and the order turns from round to round."""
    order = []
    calls = {name: lambda name=name: order.append(name) for name in ("mixbench", "other")}
    times = peers.time_calls(calls, rounds=3)
    assert {name: len(seconds) for name, seconds in times.items()} == {"mixbench": 3, "other": 3}
    there, back = ["mixbench", "other"], ["other", "mixbench"]
    assert order == [*back, *there, *back, *there, *back]


def test_times_are_over_ours(monkeypatch):
    """A call that takes 3 and 6 of our 2 seconds has the ratios 1.5 and 3, median 2.25."""
    seconds = {
        "mixbench": torch.tensor([2.0, 2.0]).numpy(),
        "slow": torch.tensor([3.0, 6.0]).numpy(),
    }
    monkeypatch.setattr(peers, "TASKS", {"a task": dict})
    monkeypatch.setattr(peers, "time_calls", lambda calls, rounds: seconds)
    ours, slow = peers.compare(2)
    assert ours == Timed("a task", "mixbench", 2000.0, Interval(1.0, 1.0, 1.0))
    assert slow == Timed("a task", "slow", 4500.0, Interval(2.25, 1.5, 3.0))


def test_the_table(monkeypatch):
    monkeypatch.setattr(peers, "has", lambda peer: peer not in ("maxflow", "gco"))
    text = peers.report([Timed("a task", "slow", 4500.0, Interval(2.25, 1.5, 3.0))])
    assert "| a task | slow | 4500.0 | 2.25 [1.50, 3.00] |" in text
    assert text.endswith("Not installed, so not timed: maxflow, gco.")


@pytest.mark.parametrize("n", [2, 5])
def test_one_hot_plans_are_the_published_transport(n):
    rng = torch.Generator().manual_seed(n)
    mask = torch.randint(3, (4, n, n), generator=rng) / 2
    saliency = torch.rand(4, n, n, generator=rng)
    saliency /= saliency.sum((1, 2), keepdim=True)
    plans = peers.plan_rounds(mask, saliency, 0.8)
    for i in range(4):
        expected = literal.transport_plan(mask[i].numpy(), saliency[i].numpy(), 0.8)
        assert plans[i].numpy().tolist() == expected.tolist()
