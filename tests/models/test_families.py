"""What every family of models must do: train with its class attention, and decay what it should."""

from dataclasses import replace

import pytest
import timm
import torch

from mixbench import create_strategies
from mixbench.data.datasets import open_data
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime
from mixbench.training.loop import train


@timm.models.register_model
def pvt_reduced(pretrained=False, **kwargs):
    return timm.create_model(
        "pvt_tiny",
        depths=(1, 1, 1, 1),
        embed_dims=(16, 32, 40, 64),
        num_heads=(1, 2, 5, 4),
        **kwargs,
    )


@timm.models.register_model
def ca_swin_reduced(pretrained=False, **kwargs):
    return timm.create_model("ca_swin_tiny", depths=(1, 1, 1, 2), embed_dim=24, **kwargs)


SMALL = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
LEARNERS = {
    "deit_tiny_patch16_224": {"image_size": 32, **SMALL},
    "cait_xxs24_224": {"image_size": 32, **SMALL},
    "xcit_nano_12_p16_224": {"image_size": 32, **SMALL},
    "pvt_reduced": {"image_size": 64},
    "ca_swin_reduced": {"image_size": 64},
}


@pytest.mark.parametrize("name", LEARNERS)
def test_transmix_trains_every_family(name):
    parts = dict.fromkeys(SMALL) | LEARNERS[name]
    recipe = replace(
        load_recipe("quick"),
        model=name,
        epochs=4,
        batch_size=16,
        micro_batch=16,
        warmup_epochs=0,
        mix_prob=1.0,
        **parts,
    )
    data = open_data(image_size=recipe.image_size, limit_train=64, limit_val=10)
    runtime = Runtime(device=torch.device("cpu"))
    [learner] = train(create_strategies("transmix"), recipe, data, runtime)
    losses = [row.train_loss for row in learner.log]
    assert learner.failure is None and losses[-1] < losses[0], losses


def test_parameters_without_weight_decay():
    from timm.optim import create_optimizer_v2

    for name, kwargs in {"pvt_tiny": {}, "ca_swin_tiny": {"embed_dim": 24}}.items():
        model = timm.create_model(name, num_classes=3, img_size=64, **kwargs)
        groups = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05).param_groups
        free = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
        expected = {
            n
            for n, p in model.named_parameters()
            if p.ndim <= 1 or "pos_embed" in n or "cls_token" in n or "bias" in n
        }
        assert {n for n, p in model.named_parameters() if id(p) in free} == expected
