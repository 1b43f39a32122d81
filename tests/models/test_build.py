"""The builder of timm models: initial weights of a seed, parts, sizes and names."""

import pytest
import timm
import torch

import mixbench  # noqa: F401  PVT
from mixbench.mix import hashed_seed
from mixbench.models.build import (
    build_model,
    check_model,
    check_recipe_model,
    recipe_model,
)
from mixbench.recipe import Recipe

VIT = "vit_tiny_patch16_224"


def same_weights(model, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "sizes"), [(VIT, {"img_size": 32}), ("resnet10t", {}), ("pvt_tiny", {"img_size": 32})]
)
def test_initial_weights_are_those_of_the_seed(name, sizes):
    """A network that takes any size is built at the second try, with the same draws."""
    model = build_model(name, 5, 3, image_size=32)
    torch.manual_seed(hashed_seed("init", 3))
    assert same_weights(model, timm.create_model(name, num_classes=5, **sizes))
    assert not same_weights(model, build_model(name, 5, 4, image_size=32))


@timm.models.register_model
def draws_before_it_refuses_a_size(pretrained=False, **kwargs):
    first = torch.nn.Linear(3, 3)
    if "img_size" in kwargs:
        raise TypeError("unexpected keyword argument img_size")
    return torch.nn.Sequential(first)


def test_the_second_try_draws_anew():
    torch.manual_seed(hashed_seed("init", 3))
    expected = torch.nn.Linear(3, 3)
    model = build_model("draws_before_it_refuses_a_size", None, 3, image_size=32)
    assert torch.equal(model[0].weight, expected.weight)


def test_without_a_seed_the_callers_generator_is_used():
    torch.manual_seed(7)
    model = build_model("resnet10t", 5)
    torch.manual_seed(7)
    assert same_weights(model, timm.create_model("resnet10t", num_classes=5))


def test_what_is_none_keeps_the_models_default():
    with torch.device("meta"):
        model = build_model(VIT, depth=2, num_heads=None, embed_dim=None)
    assert len(model.blocks) == 2 and model.blocks[0].attn.num_heads == 3
    assert model.embed_dim == 192 and model.num_classes == 1000
    assert model.patch_embed.img_size == (224, 224)


def test_zero_is_no_default():
    with torch.device("meta"):
        models = [build_model("ca_swin_tiny", drop_path_rate=rate) for rate in (None, 0.0)]
    rates = [getattr(model.cls_block.drop_path, "drop_prob", 0.0) for model in models]
    assert rates == [pytest.approx(0.2), 0.0]


def test_a_recipe_names_its_parts():
    recipe = Recipe(
        model=VIT, image_size=48, patch_size=8, embed_dim=24, depth=2, num_heads=3, drop_path=0.5
    )
    model = recipe_model(recipe, 7, 0)
    assert model.patch_embed.grid_size == (6, 6) and model.num_classes == 7
    assert (model.embed_dim, len(model.blocks), model.blocks[0].attn.num_heads) == (24, 2, 3)
    assert model.blocks[1].drop_path1.drop_prob == 0.5


@pytest.mark.parametrize(
    ("name", "parts", "message"),
    [
        ("resnet5", {}, "^unknown model 'resnet5': did you mean 'resnet50', '.*', '.*'\\?$"),
        ("xyzzyxyzzy", {}, "^unknown model 'xyzzyxyzzy': none of [0-9]+ names is like it$"),
        (
            "resnet50.a1_in1",
            {},
            "^unknown model 'resnet50.a1_in1': did you mean 'resnet50.a1_in1k'",
        ),
        (VIT, {"patch_size": 15, "embed_dim": 25}, r"cannot be built with \{.*\} at 32 px: "),
        (
            "resnet18",
            {"depth": 2, "num_heads": None},
            r"^resnet18 does not take all of depth \(.*\): .* to null$",
        ),
        ("pvt_tiny", {"patch_size": 4}, "^pvt_tiny does not take all of patch_size"),
    ],
)
def test_what_cannot_be_built_is_explained(name, parts, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, 5, 0, image_size=32, **parts)


def test_a_size_is_named_only_where_it_was_given():
    with pytest.raises(ValueError, match=r"cannot be built with \{'embed_dim': 25\}: "):
        build_model(VIT, embed_dim=25)


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        (VIT, 32),
        ("deit_tiny_distilled_patch16_224", 224),
        ("pvt_tiny", 96),
        ("ca_swin_tiny", 224),
        ("swin_tiny_patch4_window7_224", 200),  # windows are padded
        ("xcit_nano_12_p8_224", 48),
        ("cait_xxs24_224", 64),
        ("resnet18", 97),
        ("convnext_atto", 100),
        ("efficientnet_b0", 99),
        ("crossvit_9_240", 240),
        ("twins_svt_small", 96),
    ],
)
def test_what_sees_every_pixel_is_right(name, image_size):
    check_model("model", name, image_size)


@pytest.mark.parametrize(
    ("name", "image_size", "message"),
    [
        (
            VIT,
            200,
            "^image_size 200 must be a multiple of the patches' side 16, or 8 px .* 192 or 2",
        ),
        ("cait_xxs24_224", 200, "--image-size 192 or 208"),
        ("pvt_tiny", 48, "a multiple of the patches' side 32, or 16 px .*--image-size 32 or 64"),
        ("ca_swin_tiny", 226, "--image-size 224 or 228|cannot be built"),
        ("convnext_atto", 98, "--image-size 96 or 100"),
        ("mobilenetv5_300m_enc", 64, "gives no logits of classes: choose a classifier"),
        ("resnet5", 32, "^unknown model 'resnet5'"),
        ("x" * 10**5, 32, "^unknown model 'xxx"),
        ("hf_hub:timm/resnet18", 32, "^unknown model"),
    ],
)
def test_what_cannot_be_trained_is_found_before(name, image_size, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_model("model", name, image_size)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_the_timed_model_is_named():
    with pytest.raises(ValueError, match=r"^speed_image_size 200 .*--speed-image-size 192 or 208"):
        check_model("speed_model", VIT, 200)


def test_a_recipes_parts_are_tried_without_a_draw():
    fields = dict(model=VIT, image_size=48, patch_size=8, embed_dim=24, depth=2, num_heads=3)
    torch.manual_seed(0)
    expected = torch.random.get_rng_state()
    check_recipe_model(Recipe(**fields))
    assert torch.equal(torch.random.get_rng_state(), expected)
    with pytest.raises(ValueError, match=r"cannot be built with \{.*'embed_dim': 25"):
        check_recipe_model(Recipe(**fields | {"embed_dim": 25, "num_heads": None}))


def test_the_pixels_that_patches_leave_are_not_seen():
    """The fault itself, by the gradient of a network that is built all the same."""
    model = build_model(VIT, 3, 0, image_size=40).eval()
    images = torch.ones(1, 3, 40, 40, requires_grad=True)
    model(images).sum().backward()
    seen = images.grad.abs().sum((0, 1)) > 0
    assert seen[:32, :32].all() and not seen[32:].any() and not seen[:, 32:].any()
