"""Pyramids: maps at their strides, the checkpoint's weights, what is left out and refused."""

import pytest
import timm
import torch

from mixbench.models.build import build_model
from mixbench.models.checkpoints import model_record, read_checkpoint
from mixbench.recipe import Recipe
from mixbench.transfer.candidates import Start
from mixbench.transfer.pyramids import SimplePyramid, build_pyramid, doublings_of
from mixbench.transfer.recipe import DetectionRecipe

RECIPE = DetectionRecipe(fpn_channels=16, drop_path=0.0)
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2}


def vit(patch, **changes):
    model = {"model": "vit_tiny_patch16_224", "image_size": 4 * patch, "patch_size": patch}
    return Recipe(**{**model, **VIT, **changes})


PVT = Recipe(model="pvt_tiny", image_size=64)
RESNET = Recipe(model="resnet18", image_size=64)


def pyramid(model, weights=None, seed=0):
    return build_pyramid(Start(model=model, weights=weights), RECIPE, seed)


def saved(model, path):
    """A checkpoint of a classifier with five classes and random weights, and the classifier."""
    parts = {"patch_size": model.patch_size, **VIT} if model.patch_size else {}
    network = build_model(model.model, 5, 7, image_size=model.image_size, **parts).eval()
    for module in network.modules():  # as if it were trained
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    sized = {} if model.model == "resnet18" else {"img_size": model.image_size}
    record = model_record(model.model, **sized, **parts)
    torch.save({"state_dict": network.state_dict(), **record}, path)
    return read_checkpoint(path), network


@pytest.mark.parametrize(
    ("model", "strides", "divisor"),
    [
        (PVT, (4, 8, 16, 32, 64), 32),
        (RESNET, (4, 8, 16, 32, 64), 32),
        (vit(16), (4, 8, 16, 32, 64), 32),
        (vit(14), (3.5, 7, 14, 28, 56), 28),
        (vit(8), (4, 8, 16, 32, 64), 32),
        (vit(4), (4, 8, 16, 32, 64), 32),
        (vit(32), (4, 8, 16, 32, 64), 32),
    ],
)
def test_maps_lie_at_the_strides_that_are_said(model, strides, divisor):
    network = pyramid(model).eval()
    assert network.strides == strides and network.divisor == divisor
    for height, width in ((2, 3), (3, 2), (4, 1)):
        with torch.no_grad():
            maps = network(torch.randn(2, 3, height * divisor, width * divisor))
        assert list(maps) == ["0", "1", "2", "3", "pool"]
        for stride, each in zip(strides[:4], maps.values(), strict=False):
            cells = (height * divisor / stride, width * divisor / stride)
            assert each.shape == (2, 16, *cells)
        assert torch.equal(maps["pool"], maps["3"][:, :, ::2, ::2])


def test_a_cell_sees_the_place_that_it_stands_for():
    model = vit(14, depth=1)
    network = pyramid(model).eval()
    for block in network.encoder.blocks:  # nothing passes between tokens
        block.attn.proj.weight.data.zero_()
    image = torch.randn(1, 3, 56, 84)
    changed = image.clone()
    changed[:, :, 28:42, 42:56] += 1  # one patch
    with torch.no_grad():
        one, two = network(image), network(changed)
    for level, stride in zip("012", network.strides, strict=False):
        rows, columns = (one[level] != two[level]).any(1)[0].nonzero(as_tuple=True)
        reach = stride  # of the convolution of 3 x 3
        assert rows.min() * stride == 28 - reach and (rows.max() + 1) * stride == 42 + reach
        assert columns.min() * stride == 42 - reach and (columns.max() + 1) * stride == 56 + reach


def test_patches_are_doubled_towards_four_pixels():
    assert [doublings_of(patch) for patch in (2, 4, 8, 14, 16, 32)] == [0, 0, 1, 2, 2, 3]


def test_the_simple_pyramid_is_vitdets():
    neck = SimplePyramid(32, 8, 2)
    kinds = [[type(each).__name__ for each in level] for level in neck.levels]
    last = ["Conv2d", "LayerNorm2d", "Conv2d", "LayerNorm2d"]
    up = "ConvTranspose2d"
    assert kinds == [
        [up, "LayerNorm2d", "GELU", up, *last],
        [up, *last],
        last,
        ["MaxPool2d", *last],
    ]
    tokens = torch.randn(1, 32, 3, 5)
    with torch.no_grad():
        by_hand = neck.levels[2][0](tokens)  # 1 x 1
        mean, var = by_hand.mean(1, keepdim=True), by_hand.var(1, unbiased=False, keepdim=True)
        by_hand = (by_hand - mean) / (var + 1e-6).sqrt()
        by_hand = torch.nn.functional.conv2d(by_hand, neck.levels[2][2].weight, padding=1)
        mean, var = by_hand.mean(1, keepdim=True), by_hand.var(1, unbiased=False, keepdim=True)
        by_hand = (by_hand - mean) / (var + 1e-6).sqrt()
        assert torch.allclose(neck(tokens)["2"], by_hand, atol=1e-5)


@pytest.mark.parametrize("model", [PVT, RESNET, vit(8), vit(14)])
def test_weights_are_the_checkpoints(model, tmp_path):
    weights, classifier = saved(model, tmp_path / "x.pt")
    state = classifier.state_dict()
    encoder = pyramid(model, weights).encoder.state_dict()
    for name, value in encoder.items():
        expected = state[name][:, 1:] if name == "pos_embed4" else state[name]
        assert torch.equal(value, expected), name
    dropped = {
        "pvt_tiny": {"cls_token", "norm.weight", "norm.bias", "head.weight", "head.bias"},
        "resnet18": {"fc.weight", "fc.bias"}
        | {name for name in state if name.endswith("num_batches_tracked")},
    }
    vits = {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert set(state) - set(encoder) == dropped.get(model.model, vits)
    fresh = pyramid(model).encoder.state_dict()
    assert not torch.equal(fresh[next(iter(encoder))], encoder[next(iter(encoder))])


@pytest.mark.parametrize("patch", [8, 14])
def test_at_its_own_size_a_vit_is_the_classifier(patch, tmp_path):
    model = vit(patch)
    weights, classifier = saved(model, tmp_path / "x.pt")
    network = pyramid(model, weights).eval()
    images = torch.randn(2, 3, model.image_size, model.image_size)
    with torch.no_grad():
        tokens = network.encode(images).flatten(2).transpose(1, 2)
        normed = classifier.norm(tokens)
        assert torch.allclose(normed, classifier.forward_features(images)[:, 1:], atol=1e-5)


def test_a_pvt_gives_the_stages_of_the_classifier(tmp_path):
    weights, classifier = saved(PVT, tmp_path / "x.pt")
    network = pyramid(PVT, weights).eval()
    for size in ((64, 64), (96, 160)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            expected = classifier.forward_pyramid(images)
            for one, two in zip(network.encode(images).values(), expected, strict=True):
                assert torch.allclose(one, two, atol=1e-6)


def test_a_resnet_gives_its_layers_with_frozen_norms(tmp_path):
    weights, classifier = saved(RESNET, tmp_path / "x.pt")
    network = pyramid(RESNET, weights).train()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = network.encode(images)
        expected = classifier.maxpool(classifier.act1(classifier.bn1(classifier.conv1(images))))
        for level, layer in enumerate(("layer1", "layer2", "layer3", "layer4")):
            expected = getattr(classifier, layer)(expected)
            assert torch.allclose(maps[str(level)], expected, atol=1e-4)
    learned = {name for name, each in network.encoder.named_parameters() if each.requires_grad}
    assert learned and all(name.startswith(("layer2", "layer3", "layer4")) for name in learned)
    assert not [name for name in learned if "bn" in name]
    free = pyramid(RESNET).encoder  # nothing to keep
    assert all(each.requires_grad for each in free.parameters())
    assert isinstance(free.bn1, torch.nn.BatchNorm2d)


@pytest.mark.parametrize("model", [PVT, RESNET, vit(14), vit(16)])
def test_every_parameter_has_a_gradient(model):
    network = pyramid(model)
    maps = network(torch.randn(2, 3, 3 * network.divisor, 2 * network.divisor))
    sum(each.square().sum() for each in maps.values()).backward()
    assert [name for name, each in network.named_parameters() if each.grad is None] == []


@pytest.mark.parametrize(
    "name",
    [
        "swin_tiny_patch4_window7_224",
        "xcit_nano_12_p16_224",
        "convnext_atto",
        "ca_swin_tiny",
        "vit_tiny_r_s16_p8_224",
    ],
)
def test_a_model_without_a_pyramid_is_refused(name):
    with pytest.raises(ValueError, match=f"det takes PVT, a plain ViT such .* and {name} is none"):
        pyramid(Recipe(model=name))


def test_weights_of_another_model_are_refused(tmp_path):
    state = timm.create_model("vit_tiny_patch16_224", depth=1).state_dict()
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"checkpoint .*x\.pth does not fit pvt_tiny"):
        pyramid(PVT, read_checkpoint(tmp_path / "x.pth"))
