"""Both DeiT-S recipes against the table of what the two repositories do, cell by cell."""

import itertools
from pathlib import Path

import pytest
import torch

from mixbench.cli import main
from mixbench.data.transforms import eval_transform, train_transform
from mixbench.models.build import recipe_model
from mixbench.recipe import (
    Recipe,
    check_warmup,
    load_recipe,
    parse_value,
    recipe_hash,
    recipe_text,
    recipe_values,
    warmup_for,
)
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
        ("lr: [", "cannot read recipe .* line 1"),
        ("headline: best", "one of raw, ema"),
        ("batch_size: 0", "above 0"),
        ("{lr: 1, l-r: 2}", "unknown key"),
        ("{min-lr: 1, min_lr: 2}", "twice"),
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
    assert recipe_hash(load_recipe("deit_small")) == "c06e3792da"
    assert recipe_hash(load_recipe("quick"), train="a", val="b") == "cd9563e293"


BOUNDS = [
    ("compose", "both", "one of alternate, only, not 'both'"),
    ("image_size", 0, "above 0 and at most 4096, not 0"),
    ("patch_size", 10**9, "above 0 and at most 4096, not 1000000000"),
    ("embed_dim", -1, "above 0 and at most 2**16, not -1"),
    ("depth", 1001, "above 0 and at most 1000, not 1001"),
    ("num_heads", 0, "above 0 and at most 1000, not 0"),
    ("drop_rate", 1, "0 or more and below 1, not 1.0"),
    ("drop_path", 2, "0 or more and below 1, not 2.0"),
    ("switch_prob", 1.01, "between 0 and 1, not 1.01"),
    ("mixup_alpha", 0, "above 0 and at most 1000, not 0.0"),
    ("mix_prob", -0.5, "between 0 and 1, not -0.5"),
    ("smoothing", 1, "0 or more and below 1, not 1.0"),
    ("mix_group", 1, "'auto' or a whole number above 1 and at most 2**20, not 1"),
    ("batch_size", 0, "above 0 and at most 2**20, not 0"),
    ("micro_batch", 0, "'auto' or a whole number above 0 and at most 2**20, not 0"),
    ("micro_batch", "1:30", "'auto' or a whole number above 0 and at most 2**20, not '1:30'"),
    ("epochs", -1, "above 0 and at most 1000000, not -1"),
    ("cooldown_epochs", -1, "between 0 and 1000000, not -1"),
    ("lr", 0, "above 0, not 0.0"),
    ("opt_eps", 2, "above 0 and at most 1, not 2.0"),
    ("opt_betas", [0.9, 2], "0 or more and below 1, not (0.9, 2.0)"),
    ("opt_betas", [1, 0.9], "0 or more and below 1, not (1.0, 0.9)"),
    ("weight_decay", -0.5, "between 0 and 1000, not -0.5"),
    ("warmup_epochs", -1, "between 0 and 1000000, not -1.0"),
    ("warmup_lr", -1, "0 or more, not -1.0"),
    ("min_lr", -1, "0 or more, not -1.0"),
    ("lr_epoch_lag", -1, "between 0 and 1000000, not -1"),
    ("clip_grad", 0, "above 0 and at most 1000000, not 0.0"),
    ("model_ema_decay", 1, "0 or more and below 1, not 1.0"),
    ("headline", "best", "one of raw, ema, not 'best'"),
    ("seed", -1, "0 or more and below 2**63, not -1"),
    ("seed", 2**63, f"0 or more and below 2**63, not {2**63}"),
    ("seed", 10**400, "0 or more and below 2**63, not a number of more than 30 digits"),
    ("color_jitter", -0.4, "between 0 and 10, not -0.4"),
    ("reprob", 1.5, "between 0 and 1, not 1.5"),
    ("remode", "pixels", "one of const, rand, pixel, not 'pixels'"),
    ("recount", 0, "between 1 and 100, not 0"),
    ("aug_repeats", -1, "between 0 and 100, not -1"),
    ("scale", [1, 2], "above 0 and at most 1, not (1.0, 2.0)"),
    ("scale", [0, 1], "above 0 and at most 1, not (0.0, 1.0)"),
    ("ratio", [0, 1], "between 0.01 and 100, not (0.0, 1.0)"),
    ("hflip", 2, "between 0 and 1, not 2.0"),
    ("crop_pct", 0, "between 0.1 and 1, not 0.0"),
    ("crop_pct", 1.5, "between 0.1 and 1, not 1.5"),
    ("mean", [0, 0, 255], "between 0 and 1, not (0.0, 0.0, 255.0)"),
    ("mean", [0, 0, float("inf")], "finite, not inf"),
    ("std", [0, 0, 0], "between 0.001 and 1, not (0.0, 0.0, 0.0)"),
    ("speed_image_size", 5000, "above 0 and at most 4096, not 5000"),
    ("speed_batch_size", "some", "'auto' or a whole number above 0 and at most 2**20, not 'some'"),
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
        option.check(name, getattr(Recipe, name))


def test_the_parts_of_a_files_model_do_not_hold_for_another():
    assert load_recipe("quick").embed_dim == 96
    assert load_recipe("quick", {"model": "vit_tiny_patch16_224"}).depth == 4
    other = load_recipe("quick", {"model": "pvt_tiny", "depth": 2})
    parts = other.patch_size, other.embed_dim, other.depth, other.num_heads
    assert parts == (None, None, 2, None) and other.epochs == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixup_alpha": float("nan")}, "finite"),
        ({"min_lr": float("inf")}, "finite"),
        ({"scale": [1.0, 0.08]}, "in order"),
        ({"ratio": [2, 1]}, "in order"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("deit_small", values)


def test_a_key_that_stands_twice_and_an_unknown_policy_are_refused(tmp_path):
    (tmp_path / "twice.yaml").write_text("lr: 0.1\nepochs: 3\nlr: 0.2\n")
    with pytest.raises(ValueError, match="gives lr twice"):
        load_recipe(tmp_path / "twice.yaml")
    with pytest.raises(ValueError, match="aa 'nothing' is not a policy"):
        load_recipe("deit_small", {"aa": "nothing"})
    assert load_recipe("deit_small", {"aa": "none"}).aa is None


RELATIONS = [
    (
        {"epochs": 10},
        "warmup_epochs 20 must be below epochs 10, or the rate only rises: take --warmup-epochs 1",
    ),
    ({"epochs": 20}, "take --warmup-epochs 2"),
    ({"epochs": 1, "warmup_epochs": 1}, "take --warmup-epochs 0"),
    ({"epochs": 1, "warmup_epochs": 0.7}, "take --warmup-epochs 0"),  # whole epochs: rounded to 1
    ({"min_lr": 1, "lr": 0.1}, "min_lr 1 must not be above lr 0.1: take --min-lr 0.001"),
    ({"warmup_lr": 1}, "warmup_lr 1 must not be above lr 0.001: take --warmup-lr 1e-05"),
    ({"lr": 1e-7}, "min_lr 1e-05 must not be above lr 1e-07: take --min-lr 1e-09"),
    (
        {"lr_epoch_lag": 1, "sched_on_updates": True},
        "lr_epoch_lag 1 has no effect where sched_on_updates is true",
    ),
    ({"epochs": 21, "lr_epoch_lag": 1}, "must be below epochs 21 together"),
    (
        {"image_size": 200},
        "image_size 200 must be a multiple of the patches' side 16, or 8 px of each row are never "
        "seen: take --image-size 192 or 208",
    ),
    ({"image_size": 8}, "take --image-size 16"),
    (
        {"image_size": 32, "patch_size": 5},
        "a multiple of patch_size 5, .*take --image-size 30 or 35",
    ),
    ({"model": "xcit_tiny_12_p16_224", "image_size": 200}, "take --image-size 192 or 208"),
    ({"speed_image_size": 200}, "speed_image_size 200 .*take --speed-image-size 192 or 208"),
    ({"speed_model": "vit_base_patch32_224", "speed_image_size": 208}, "192 or 224"),
    (
        {"model": "vit_small_patch16_224.dino"},
        "model 'vit_small_patch16_224.dino' has a tag, which names pretrained weights, and nothing "
        "is pretrained: take --model vit_small_patch16_224, or --pretrained$",
    ),
    ({"speed_model": "resnet50.a1_in1k"}, "take --speed-model resnet50$"),
    ({"image_size": 36, "patch_size": 6, "speed_image_size": 40}, "speed_image_size 40 .*36 or 42"),
    (
        {"image_size": 36, "patch_size": 6, "speed_model": "vit_base_patch16_224"},
        "speed_image_size 36 must be a multiple of .*16.*take --speed-image-size 32 or 48",
    ),
    (
        {"embed_dim": 97, "num_heads": 3},
        "embed_dim 97 must be a multiple of num_heads 3: take --embed-dim 96",
    ),
    ({"embed_dim": 2, "num_heads": 3}, "take --embed-dim 3"),
    ({"model_ema": False}, "headline ema needs model_ema true"),
]


@pytest.mark.parametrize(("values", "message"), RELATIONS)
def test_fields_that_contradict_are_refused_with_the_way_out(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_recipe("deit_small", values)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 10, "warmup_epochs": 1},
        {"epochs": 1, "warmup_epochs": 0},
        {"epochs": 1, "warmup_epochs": 0.7, "sched_on_updates": True},
        {"epochs": 2, "warmup_epochs": 1},
        {"lr": 1e-5, "warmup_epochs": 0, "warmup_lr": 1e-3},  # no warm-up: not used
        {"min_lr": 1e-3},
        {"image_size": 40, "patch_size": 8},
        {"model": "resnet50", "image_size": 97},
        {"embed_dim": 96, "num_heads": 3},
    ],
)
def test_fields_that_go_together_are_right(values):
    assert load_recipe("deit_small", values)


def test_the_advised_warm_up_is_right():
    for epochs, updates in itertools.product(range(1, 60), (False, True)):
        fields = {"epochs": epochs, "warmup_epochs": warmup_for(epochs)}
        recipe = load_recipe("deit_small", fields | {"sched_on_updates": updates})
        for steps in (0, 1, 2, 1251):
            check_warmup(recipe, steps)


@pytest.mark.parametrize(
    ("epochs", "warmup", "steps", "message"),
    [
        (1, 0.9, 1, None),  # a single update
        (1, 0.9, 2, "warmup_epochs 0.9 is 2 of 2 updates, 2 an epoch.* take --warmup-epochs 0$"),
        (1, 0.7, 2, None),  # one of two
        (1, 0.4, 1, None),  # rounded to none
        (2, 1.6, 1, "is 2 of 2 updates, 1 an epoch.* take --warmup-epochs 1$"),
        (2, 1.4, 1, None),
        (2, 1.9, 5, "is 10 of 10 updates"),
        (2, 1.9, 4, "is 8 of 8 updates"),  # 7.6, rounded
        (2, 1.8, 4, None),  # 7 of 8
    ],
)
def test_a_warm_up_is_shorter_than_the_updates(epochs, warmup, steps, message):
    fields = {"epochs": epochs, "warmup_epochs": warmup, "sched_on_updates": True}
    recipe = load_recipe("deit_small", fields)
    if message is None:
        return check_warmup(recipe, steps)
    with pytest.raises(ValueError, match=message):
        check_warmup(recipe, steps)


def test_a_run_that_only_warms_up_is_refused_before_anything_is_written(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--sched-on-updates", "--epochs", "1", "--warmup-epochs", "0.9"]
    sizes = ["--batch-size", "64", "--limit-train", "128", "--limit-val", "20"]
    command = ["--config", "quick", "--strategies", "none", "--out", str(out), *options, *sizes]
    assert main([*command, "--mode", "accuracy"]) == 2
    assert "2 of 2 updates" in capsys.readouterr().err and not out.exists()


def test_a_name_is_a_file_that_lies_here_or_a_shipped_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = load_recipe("deit_small_deit")
    assert load_recipe("deit_small_deit.yaml") == shipped
    Path("deit_small_deit").mkdir()  # no file
    assert load_recipe("deit_small_deit") == shipped
    Path("quick").write_text("lr: 0.5\n")
    assert load_recipe("quick").lr == 0.5


@pytest.mark.parametrize(
    "name",
    ["a/b/deit_small", "./quick", "a/quick.yaml", "quick/", "../quick", "missing", "QUICK", ""],
)
def test_a_path_is_that_path_alone(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"not found|no regular file"):
        load_recipe(name)


@pytest.mark.parametrize("name", ["loop", "x" * 300, "x" * 5000, "a\0b", "gone"])
def test_a_path_that_leads_nowhere_is_not_found(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("gone").symlink_to("nothing")
    with pytest.raises(ValueError, match="recipe file not found: ") as caught:
        load_recipe(name)
    assert len(str(caught.value)) < 500


FIXED, TRAINED = ("deit_small_patch16_224", 224), ("vit_tiny_patch16_224", 32)


@pytest.mark.parametrize(
    ("overrides", "scenes", "timed"),
    [
        ({}, True, FIXED),
        ({"speed_image_size": "160"}, True, ("deit_small_patch16_224", 160)),
        ({}, False, TRAINED),
        ({"model": "resnet50"}, True, ("resnet50", 32)),
        ({"init": "last.pt"}, True, TRAINED),
        ({"init": "null", "pretrained": "false"}, True, FIXED),
        ({"pretrained": True}, True, TRAINED),
        ({"speed_image_size": 64}, False, ("vit_tiny_patch16_224", 64)),
        ({"speed_model": "resnet50", "speed_image_size": 64}, False, ("resnet50", 64)),
        ({"speed_model": "resnet50"}, False, ("resnet50", 224)),
    ],
)
def test_the_demonstration_alone_times_another_network(overrides, scenes, timed):
    recipe = Recipe(**recipe_values("quick", overrides, scenes=scenes)).timed
    assert (recipe.model, recipe.image_size) == timed
    trained = timed[0] == "vit_tiny_patch16_224"
    assert recipe.embed_dim == (96 if trained else None)


def test_a_users_recipe_times_what_it_says(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: resnet50\nspeed_model: resnet18\n")
    assert Recipe(**recipe_values(file, {}, scenes=False)).timed.model == "resnet18"


def test_what_is_trained_is_what_is_timed():
    recipe = load_recipe("quick", {"speed_model": None, "speed_image_size": None})
    assert recipe.timed == recipe and Recipe().timed == Recipe()
    weights = Recipe(init="x.pt", init_sha256="0" * 64, speed_model="resnet18").timed
    assert weights.init is weights.init_sha256 is None
