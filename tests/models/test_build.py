"""The builder of timm models: initial weights of a seed, parts, sizes and names."""

import pytest
import timm
import torch

import mixbench  # noqa: F401  PVT
from mixbench.mix import hashed_seed
from mixbench.models.build import build_model, recipe_model
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
