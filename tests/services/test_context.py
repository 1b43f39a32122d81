"""The context of a mix has what the strategy needs, and nothing else."""

import pytest
import timm
import torch

import mixbench.models.pvt  # noqa: F401  registers pvt_tiny
from mixbench import create_strategy, make_context
from mixbench.data.normalisation import Normalisation
from mixbench.models import class_token
from mixbench.services.gradient import input_gradient
from mixbench.services.network import external_network
from mixbench.testing import MEAN, STD
from tests.support.pictures import noise, normalised, tiny_network


def context(spec, images, mean=MEAN, std=STD, model=None, **options):
    model = torch.nn.Identity() if model is None else model
    return make_context(
        create_strategy(spec), model, images, seed=0, step=0, mean=mean, std=std, **options
    )


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1)])
def test_pixels_are_those_that_were_normalised(shape):
    pixels = noise((20, 30))
    mean, std = (torch.tensor(values).reshape(shape) for values in (MEAN, STD))
    ctx = context("saliencymix", normalised(pixels), mean, std)
    assert torch.equal(ctx.pixels, pixels)
    assert ctx.mean.flatten().tolist() == pytest.approx(MEAN) and ctx.mean.shape == (3, 1, 1)
    assert ctx.std.flatten().tolist() == pytest.approx(STD) and ctx.std.shape == (3, 1, 1)


def test_features_are_of_the_images_as_the_loader_normalised_them(tmp_path):
    network = tiny_network(tmp_path)
    images = normalised(noise((40, 50)))
    features = context(f"attentivecutmix(network={network!r})", images).features(images)
    expected = external_network(network, images.device)(images, Normalisation.of(MEAN, STD))
    assert torch.equal(features, expected)


@pytest.mark.parametrize("amp", [False, True])
def test_the_input_gradient_is_the_models(amp):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))
    images, labels = normalised(noise((8, 8))), torch.tensor([1, 4])
    gradient = context("puzzlemix", images, model=model, amp=amp).input_gradient(images, labels)
    assert torch.equal(gradient, input_gradient(model, images, labels, amp))
    assert gradient.shape == images.shape and gradient.any()
    assert not torch.equal(gradient, input_gradient(model, images, labels, not amp))


def test_services_that_are_not_needed_are_absent():
    ctx = context("cutmix", normalised(noise((8, 8))))
    assert ctx.pixels is ctx.features is ctx.input_gradient is None


@pytest.mark.parametrize(
    ("name", "fields", "size", "grid"),
    [
        ("vit_tiny_patch16_224", {"img_size": (32, 48), "patch_size": 8}, (32, 48), (4, 6)),
        ("deit_tiny_distilled_patch16_224", {"img_size": 64}, (64, 64), (4, 4)),
        ("cait_xxs24_224", {"img_size": 32}, (32, 32), (2, 2)),
        ("pvt_tiny", {}, (224, 224), (7, 7)),
        ("resnet10t", {}, (32, 32), None),
        ("vit_base_patch16_rope_224", {}, (224, 224), None),  # its mean is classified
    ],
)
def test_the_grid_is_that_of_the_patches(name, fields, size, grid):
    with torch.device("meta"):
        model = timm.create_model(name, **fields)
    images = torch.zeros(2, 3, *size)
    assert context("cutmix", images, model=model).grid == grid


def test_a_model_without_patches_has_no_grid():
    assert context("cutmix", torch.zeros(2, 3, 8, 8)).grid is None


def test_a_model_is_looked_through_once_for_its_grid(monkeypatch):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1)
    searches = []
    real = class_token.class_attention_of
    monkeypatch.setattr(
        class_token, "class_attention_of", lambda model: searches.append(1) or real(model)
    )
    assert [class_token.patch_grid(model, 32, 32) for _ in range(3)] == [(4, 4)] * 3
    assert len(searches) == 1
