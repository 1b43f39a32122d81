"""Both DeiT-S recipes against the table of what the two repositories do, cell by cell."""

import pytest
import torch

from mixbench.data.transforms import eval_transform, train_transform
from mixbench.models.build import recipe_model
from mixbench.recipe import Recipe, load_recipe, parse_value, recipe_hash, recipe_text
from mixbench.training.optim import build_optimizer, build_scheduler, schedule

SHARED = {
    "model": "deit_small_patch16_224",
    "image_size": 224,
    "drop_rate": 0,
    "drop_path": 0.1,
    "batch_size": 1024,
    "lr": 1e-3,
    "opt": "adamw",
    "opt_eps": 1e-8,
    "opt_betas": (0.9, 0.999),
    "epochs": 300,
    "warmup_lr": 1e-6,
    "min_lr": 1e-5,
    "clip_grad": None,
    "model_ema": True,
    "model_ema_decay": 0.99996,
    "smoothing": 0.1,
    "mixup_alpha": 0.8,
    "mix_prob": 1,
    "switch_prob": 0.5,
    "compose": "alternate",
    "aa": "rand-m9-mstd0.5-inc1",
    "scale": (0.08, 1),
    "hflip": 0.5,
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
OWN = {
    "deit_small": {
        "weight_decay": 0.03,
        "warmup_epochs": 20,
        "cooldown_epochs": 10,
        "total_epochs": 310,
        "amp": False,
        "headline": "ema",
        "reprob": 0,
        "aug_repeats": 0,
        "train_interpolation": "random",
        "crop_pct": 0.9,
        "color_jitter": 0.4,
        "seed": 42,
    },
    "deit_small_deit": {
        "weight_decay": 0.05,
        "warmup_epochs": 5,
        "cooldown_epochs": 0,
        "total_epochs": 300,
        "amp": True,
        "headline": "raw",
        "reprob": 0.25,
        "remode": "pixel",
        "recount": 1,
        "aug_repeats": 3,
        "train_interpolation": "bicubic",
        "crop_pct": 0.875,
        "color_jitter": 0.3,
        "seed": 0,
    },
}
RATES = {
    "deit_small": {
        0: 1e-6,
        10: 5.005e-4,
        19: 9.5005e-4,
        20: 9.8918e-4,
        150: 5.05e-4,
        299: 1.00271e-5,
        309: 1e-5,
    },
    # one epoch late: 1e-5 + 4.95e-4 * (1 + cos(pi * (epoch - 1) / 300)); epoch 309 is not reached
    "deit_small_deit": {
        0: 1e-6,
        1: 1e-6,
        2: 2.008e-4,
        6: 9.9932e-4,
        10: 9.9780e-4,
        19: 9.9123e-4,
        20: 9.9023e-4,
        150: 5.10184e-4,
        151: 5.05e-4,
        299: 1.010856e-5,
    },
}


@pytest.mark.parametrize("name", OWN)
def test_every_cell(name):
    recipe = load_recipe(name)
    for key, value in (SHARED | OWN[name]).items():
        assert getattr(recipe, key) == value, key
    assert recipe.ratio == pytest.approx((3 / 4, 4 / 3))


@pytest.mark.parametrize("name", RATES)
def test_learning_rate(name):
    recipe = load_recipe(name)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    scheduler = build_scheduler(optimizer, recipe, 1251)
    for epoch, rate in RATES[name].items():
        schedule(scheduler, recipe, epoch, epoch * 1251)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-4), epoch


def test_parameters_without_weight_decay():
    recipe = load_recipe("deit_small", {"depth": 1})
    model = recipe_model(recipe, 10, 0)
    groups = build_optimizer(model, recipe).param_groups
    named = {id(p): n for n, p in model.named_parameters()}
    free = {named[id(p)] for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert free == {
        n for n, p in model.named_parameters() if p.ndim == 1 or n in ("pos_embed", "cls_token")
    }
    assert {g["weight_decay"] for g in groups} == {0, 0.03}
    assert all(g["betas"] == (0.9, 0.999) and g["eps"] == 1e-8 for g in groups)


def test_a_fused_optimizer_makes_the_same_step():
    weights = {}
    for fused in (True, False):
        recipe = load_recipe("deit_small", {"depth": 1, "opt_fused": fused})
        model = recipe_model(recipe, 10, 0)
        optimizer = build_optimizer(model, recipe)
        assert all(bool(group.get("fused")) == fused for group in optimizer.param_groups)
        for parameter in model.parameters():
            parameter.grad = parameter.detach().sin()
        optimizer.step()
        weights[fused] = list(model.parameters())
    torch.testing.assert_close(weights[True], weights[False], atol=1e-7, rtol=1e-6)
    lamb = load_recipe("deit_small", {"opt": "lamb"})  # timm's own has no such argument
    assert build_optimizer(model, lamb).param_groups


def test_transforms_of_both_recipes():
    ours, deit = (load_recipe(name) for name in OWN)
    assert "size=248" in str(eval_transform(ours)) and "size=256" in str(eval_transform(deit))
    text = str(train_transform(ours))
    assert (
        "RandAugment" in text
        and "RandomErasing" not in text
        and "bilinear" in text
        and "bicubic" in text
    )
    assert "RandomErasing(p=0.25, mode=pixel" in str(train_transform(deit))
    assert "PosterizeIncreasing" in str(train_transform(deit))


def test_posterize_keeps_a_bit():
    [augment] = [t for t in train_transform(Recipe()).transforms if hasattr(t, "ops")]
    [op] = [op for op in augment.ops if op.name == "PosterizeIncreasing"]
    assert op.level_fn(10, {}) == (1,) and op.level_fn(5, {}) == (2,)


def test_defaults_are_the_fixed_recipe_and_text_round_trips(tmp_path):
    assert load_recipe("deit_small") == Recipe()
    for name in ("deit_small", "deit_small_deit", "quick"):
        recipe = load_recipe(name)
        path = tmp_path / f"{name}.yaml"
        path.write_text(recipe_text(recipe))
        assert load_recipe(path) == recipe
        assert set(recipe_text(recipe).split()) >= {"epochs:", "lr:"}


def test_hash_follows_what_changes_numbers():
    base = recipe_hash(Recipe())
    assert base == recipe_hash(Recipe(seed=7, speed_amp=True)) != recipe_hash(Recipe(lr=2e-3))
    assert base != recipe_hash(Recipe(), train="abc")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mixup-switch-probb: 0.8", "did you mean"),
        ("lr: fast", "lr must be a number"),
        ("epochs: 1.5", "whole number"),
        ("- 1", "name: value"),
        ("lr: [", "cannot read"),
        ("headline: best", "one of raw, ema"),
        ("batch_size: 0", "above 0"),
        ("{lr: 1, l-r: 2}", "unknown key"),
        ("{min-lr: 1, min_lr: 2}", "twice"),
        ("micro_batch: 7", "must divide"),
        ("{model_ema: false}", "headline ema needs"),
        ("amp: 1", "true or false"),
    ],
)
def test_mistakes_in_yaml(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


def test_numbers_that_yaml_reads_as_text():
    assert parse_value("lr", "1e-3") == 1e-3 and parse_value("opt_betas", "0.9,0.95") == (0.9, 0.95)
    assert parse_value("clip_grad", "null") is None and parse_value("micro_batch", "auto") == "auto"


def test_the_hash_of_a_shipped_recipe_stays():
    """Of runs that were made: another hash would make theirs another recipe."""
    assert recipe_hash(load_recipe("deit_small")) == "4b7b5e99e9"
    assert recipe_hash(load_recipe("quick"), train="a", val="b") == "a8ca18ffa4"


BOUNDS = [
    ("compose", "both", "one of alternate, only, not 'both'"),
    ("epochs", -1, "above 0, not -1"),
    ("drop_path", 2, "between 0 and 1, not 2.0"),
    ("drop_path", 1, "below 1, or nothing is learnt"),
    ("crop_pct", 0, "above 0, not 0.0"),
    ("crop_pct", 1.5, "between 0 and 1, not 1.5"),
    ("weight_decay", -0.5, "0 or more, not -0.5"),
    ("recount", 0, "1 or more, not 0"),
    ("seed", -1, "0 or more and below 2**63, not -1"),
    ("seed", 2**63, f"0 or more and below 2**63, not {2**63}"),
    ("seed", 10**400, f"0 or more and below 2**63, not {10**400}"),
    ("micro_batch", 0, "'auto' or a whole number above 0, not 0"),
    ("speed_batch_size", "some", "'auto' or a whole number above 0, not 'some'"),
    ("mean", [0, 0, float("inf")], "finite, not inf"),
    ("ratio", [0, 1], "above 0, not (0.0, 1.0)"),
]


@pytest.mark.parametrize(("name", "value", "message"), BOUNDS, ids=[row[0] for row in BOUNDS])
def test_each_field_names_its_bounds(name, value, message):
    with pytest.raises(ValueError) as caught:
        load_recipe("deit_small", {name: value})
    assert str(caught.value) == f"{name} must be {message}"


def test_a_recipe_made_in_python_is_checked_like_a_file():
    with pytest.raises(ValueError, match="lr must be a number, not 'fast'"):
        Recipe(lr="fast")
    with pytest.raises(ValueError, match=r"epochs must be a whole number, not 1\.5"):
        Recipe(epochs=1.5)


def test_every_field_says_what_it_does():
    for name, option in Recipe.options().items():
        assert len(option.help.split()) >= 3 and not option.help.endswith("."), name
        assert option.group, name
        assert not (option.choices and getattr(Recipe, name) not in option.choices), name


def test_the_parts_of_a_files_model_do_not_hold_for_another():
    assert load_recipe("quick").embed_dim == 96
    assert load_recipe("quick", {"model": "vit_tiny_patch16_224"}).depth == 4
    other = load_recipe("quick", {"model": "pvt_tiny", "depth": 2})
    parts = other.patch_size, other.embed_dim, other.depth, other.num_heads
    assert parts == (None, None, 2, None) and other.epochs == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip_grad": -1}, "clip_grad must be above 0"),
        ({"mixup_alpha": float("nan")}, "finite"),
        ({"min_lr": float("inf")}, "finite"),
        ({"std": [0, 0, 0]}, "std must be above 0"),
        ({"crop_pct": 0}, "above 0"),
        ({"scale": [1.0, 0.08]}, "in order"),
        ({"opt_eps": -1}, "above 0"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("deit_small", values)


def test_a_key_that_stands_twice_and_an_unknown_policy_are_refused(tmp_path):
    (tmp_path / "twice.yaml").write_text("lr: 0.1\nepochs: 3\nlr: 0.2\n")
    with pytest.raises(ValueError, match="gives lr twice"):
        load_recipe(tmp_path / "twice.yaml")
    with pytest.raises(ValueError, match="aa 'none' is not a policy"):
        train_transform(load_recipe("deit_small", {"aa": "none"}))
