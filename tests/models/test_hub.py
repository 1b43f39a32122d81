"""Weights of the hub where there is no network: an answer at once, without tries."""

import socket
import time

import huggingface_hub
import pytest
from huggingface_hub.utils import HfHubHTTPError

from mixbench.models.checkpoints import load_model
from mixbench.models.hub import reach_hub

DINO = "vit_small_patch16_224.dino"


@pytest.fixture
def cache(monkeypatch):
    """The files that the hub's cache has, by repository and revision: none at first."""
    cached = {}
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda repository, file, revision: cached.get((repository, file, revision)),
    )
    return cached


@pytest.fixture
def no_network(monkeypatch, cache):
    """A hub at a port where nobody listens, and a clock that does not wait."""

    def wait(seconds):
        raise AssertionError(f"waits {seconds} s")

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/config.json"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda repository, file: address)
    monkeypatch.setattr(time, "sleep", wait)


def test_without_a_network_nothing_is_tried_again(no_network):
    with pytest.raises(ValueError, match=f"{DINO} cannot be had .*out of reach.*checkpoint's path"):
        load_model(DINO, pretrained=True)


def test_what_is_cached_needs_no_network(no_network, cache):
    cache["timm/vit", "pytorch_model.bin", None] = "/cache/pytorch_model.bin"
    reach_hub("timm/vit")
    with pytest.raises(ConnectionError, match="out of reach"):
        reach_hub("timm/vit@old")
    cache["timm/vit", "model.safetensors", "old"] = "/cache/model.safetensors"
    reach_hub("timm/vit@old")
    reach_hub(None)  # weights from an address, or none at all


def test_a_hub_that_answers_is_in_reach(monkeypatch, cache):
    def refuse(url, timeout):
        raise HfHubHTTPError.__new__(HfHubHTTPError)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    reach_hub("timm/vit")
