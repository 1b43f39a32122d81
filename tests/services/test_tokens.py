"""The tokens of the patches: timm's own features of them, with gradient, beside any attention."""

import pytest
import timm
import torch

from mixbench import attention_tap
from mixbench.mix import Needs
from mixbench.services.tokens import PatchTokens, tap_of

SIZES = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 2}


def vit(name="vit_tiny_patch16_224", **options):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5, **SIZES, **options).eval()


IMAGES = torch.randn(3, 3, 32, 48, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_tokens_are_timms_features(name):
    model = vit(name)
    with tap_of(model, Needs(tokens=True)) as tap:
        output = tap(IMAGES)
    features = model.forward_features(IMAGES)[:, model.num_prefix_tokens :]
    torch.testing.assert_close(output.tokens, features.reshape(3, 4, 6, 24))
    torch.testing.assert_close(output.logits, model(IMAGES))
    output.tokens.sum().backward()
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("attention", ["last", "rollout"])
def test_attention_beside_tokens_is_the_same(attention):
    model = vit()
    with tap_of(model, Needs(tokens=True, attention=attention)) as tap:
        both = tap(IMAGES)
    with attention_tap(model, attention) as tap:
        alone = tap(IMAGES)
    assert both.attn.equal(alone.attn) and both.logits.equal(alone.logits)
    assert both.tokens.shape == (3, 4, 6, 24) and alone.tokens is None


def test_no_tap_without_a_need():
    assert tap_of(vit(), Needs(look="logits", pixels=True)) is None


def test_the_graph_is_not_kept():
    model = vit()
    with PatchTokens(model) as tap:
        tap(IMAGES)
        assert tap._tokens is None
        model(IMAGES)  # by somebody else
        tap.forget()
        assert tap._tokens is None


def test_models_without_patches_are_refused():
    resnet = timm.create_model("test_resnet", num_classes=5)
    pooled = vit(class_token=False, global_pool="avg")
    for model in (resnet, pooled):
        with pytest.raises(ValueError, match="has no tokens of patches before its head: choose"):
            PatchTokens(model)
