"""The wait for images counts only where the device has nothing to do."""

import pytest
import torch

from mixbench.recipe import load_recipe
from mixbench.training.clock import Waiting

CPU = torch.device("cpu")


@pytest.fixture
def recipe():
    return load_recipe("deit_small", {"image_size": 32, "batch_size": 8})


def test_a_wait_counts_where_the_device_has_nothing_to_do(recipe):
    class Event:
        def query(self):
            return self.done

    waiting, event = Waiting(total=10.0), Event()
    waiting.add(1.0)  # on a CPU each does
    waiting.busy = event
    for event.done in (False, True):
        waiting.add(4.0)
    assert waiting.waited == 5.0
    assert waiting.sentence(recipe, cached=False, device=torch.device("cuda")) == (
        "waiting for images: 50 % of the time: more --workers, --cache ram, --augment-on device "
        "would help"
    )
    assert (
        waiting.sentence(recipe, cached=True, device=CPU)
        == "waiting for images: 50 % of the time: more --workers would help"
    )
    assert (
        Waiting(1.0, 10.0).sentence(recipe, cached=False, device=CPU)
        == "waiting for images: 10 % of the time"
    )
