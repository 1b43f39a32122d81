"""Optimizers that can train, and those that cannot."""

import pytest
import timm
import torch

from mixbench.models.build import build_model
from mixbench.recipe import load_recipe
from mixbench.training.optim import build_optimizer, build_scheduler, check_optimizer, schedule


@pytest.mark.parametrize(
    "opt", ["adamw", "sgd", "lamb", "lion", "nesterov", "rmsprop", "lookahead_adamw", "adafactor"]
)
def test_what_takes_a_step_is_right(opt):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    check_optimizer(load_recipe("deit_small", {"opt": opt}))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("opt", "message"),
    [
        ("adamww", "^unknown optimizer 'adamww': did you mean"),
        ("lbfgs", "^unknown optimizer 'lbfgs'"),
        ("x" * 10**5, "^unknown optimizer 'xxx"),
        ("adahessian", "^opt adahessian cannot train here .*choose another, such as adamw"),
        ("adan", "^opt adan cannot train here"),  # it has three betas
        ("bnbadam8bit", "^opt bnbadam8bit cannot train here"),  # its package is not installed
        ("lookahead_", "^unknown optimizer 'lookahead_'"),
        ("lookahead_lookahead_sgd", "^unknown optimizer|cannot train here"),
    ],
)
def test_what_cannot_train_is_refused_with_the_way_out(opt, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_optimizer(load_recipe("deit_small", {"opt": opt}))
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_layer_decay_gives_timms_rates():
    from timm.optim import create_optimizer_v2

    recipe = load_recipe("quick", {"layer_decay": 0.75, "sched_on_updates": True})
    model = build_model("vit_tiny_patch16_224", 10, 0, image_size=32, patch_size=8, depth=4)
    ours = build_optimizer(model, recipe)
    theirs = create_optimizer_v2(
        model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay, layer_decay=0.75
    )
    scales = [group["lr_scale"] for group in ours.param_groups]
    assert scales == [group["lr_scale"] for group in theirs.param_groups]
    # four blocks between the embedding and the classifier
    assert sorted(set(scales)) == pytest.approx([0.75**n for n in (5, 4, 3, 2, 1, 0)])
    scheduler = build_scheduler(ours, recipe, 10)
    schedule(scheduler, recipe, epoch=3, step=30)
    rates = [group["lr"] for group in ours.param_groups]
    assert rates == pytest.approx([max(rates) * scale for scale in scales])
    assert 0 < max(rates) < recipe.lr


def rates_of(model):
    """The rate of each parameter as a share of the head's, with a decay of a half."""
    optimizer = build_optimizer(model, load_recipe("quick", {"layer_decay": 0.5}))
    groups = optimizer.param_groups
    rates = {id(value): group["lr_scale"] for group in groups for value in group["params"]}
    return {name: rates[id(value)] for name, value in model.named_parameters()}


def only(rates, start):
    """The one rate of the parameters whose names begin so."""
    [rate] = {rate for name, rate in rates.items() if name.startswith(start)}
    return rate


def test_layer_decay_of_pvt_is_by_block():
    rates = rates_of(timm.create_model("pvt_tiny", num_classes=3, img_size=64, depths=(2, 1, 1, 2)))
    places = ["head.", "block4.1", "block4.0", "block3.", "block2.", "block1.1", "block1.0"]
    places += ["patch_embed1"]
    assert [only(rates, place) for place in places] == [0.5**n for n in range(8)]
    assert len(set(rates.values())) == 8 and only(rates, "norm.") == 0.5  # as timm's ViTs have it
    for stage in (2, 3, 4):  # a stage's embeddings go with its first block
        first = only(rates, f"block{stage}.0")
        assert only(rates, f"patch_embed{stage}") == only(rates, f"pos_embed{stage}") == first
    assert only(rates, "cls_token") == only(rates, "pos_embed1") == 0.5**7


def test_layer_decay_of_ca_swin_has_the_class_tokens_block_last():
    rates = rates_of(timm.create_model("ca_swin_tiny", num_classes=3, embed_dim=24, img_size=64))
    assert only(rates, "head.") == 1 and only(rates, "norm.") == only(rates, "cls_") == 0.5
    assert only(rates, "layers.3.blocks.0") == 0.25
    assert only(rates, "patch_embed") == min(rates.values()) == 0.5 ** (2 + 11)
