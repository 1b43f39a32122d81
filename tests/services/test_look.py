"""A look at a clean batch: what it gives against the matrix, and what it leaves as it was."""

import numpy as np
import pytest
import timm
import torch

from mixbench import make_context
from mixbench.mix import MixStrategy, Needs
from mixbench.models.class_token import NoClassAttention
from mixbench.services.look import KINDS, make_look
from mixbench.strategies.cutmix import CutMix
from mixbench.testing import MEAN, STD

GRID = (4, 6)


def vit(name="vit_tiny_patch16_224"):
    torch.manual_seed(0)
    fields = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 2}
    model = timm.create_model(name, num_classes=5, drop_path_rate=0.5, **fields)
    for block in model.blocks:  # attention that is far from uniform
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.5)
    return model.train()


def last_attention(model, images):
    """The last block's attention (B, heads, N, N), a head and a query at a time, in float64."""
    inputs = []
    attn = model.blocks[-1].attn
    handle = attn.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        model.eval()(images)
    handle.remove()
    model.train()
    qkv = attn.qkv(inputs[0]).detach().double().numpy()
    batch, count, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    side = width // attn.num_heads
    matrix = np.zeros((batch, attn.num_heads, count, count))
    for row, head, query in np.ndindex(batch, attn.num_heads, count):
        columns = slice(head * side, (head + 1) * side)
        q = qkv[row, query, :width][columns]
        keys = qkv[row, :, width : 2 * width][:, columns]
        scores = np.exp(keys @ q / side**0.5)
        matrix[row, head, query] = scores / scores.sum()
    return matrix


def images_of(count=3):
    return torch.randn(count, 3, 32, 48, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_attention_is_the_matrixs(name):
    model, images = vit(name), images_of()
    matrix, prefix = last_attention(model, images), model.num_prefix_tokens
    patches = matrix[:, :, prefix:, prefix:].mean((1, 2)).reshape(3, *GRID)
    seen = make_look(model, "patches")(images)
    np.testing.assert_allclose(seen.attn, patches, atol=1e-6)
    assert seen.attn.sum((1, 2)).max() < 1  # what other tokens get is left out
    of_class = matrix[:, :, 0, prefix:].mean(1).reshape(3, *GRID)
    np.testing.assert_allclose(make_look(model, "class")(images).attn, of_class, atol=1e-6)
    assert make_look(model, "logits")(images).attn is None


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_evaluation_and_nothing_else_changes(kind):
    model, images = vit(), images_of()
    model.blocks[0].eval()  # a part of it may be
    model.head.weight.grad = torch.ones_like(model.head.weight)
    flags = [module.training for module in model.modules()]
    asked = [parameter.requires_grad for parameter in model.parameters()]
    torch.manual_seed(7)
    before = torch.get_rng_state()
    look = make_look(model, kind)
    first, second = look(images), look(images)
    assert torch.get_rng_state().equal(before)
    assert [module.training for module in model.modules()] == flags
    assert [parameter.requires_grad for parameter in model.parameters()] == asked
    assert model.head.weight.grad.eq(1).all() and model.patch_embed.proj.weight.grad is None
    assert not any(module._forward_hooks for module in model.modules())
    assert not first.logits.requires_grad and first.logits.equal(second.logits)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(first.logits, model(images))


def test_attention_is_float32_in_bfloat16_too():
    model, images = vit(), images_of()
    plain, half = (make_look(model, "patches", amp=amp)(images) for amp in (False, True))
    assert half.attn.dtype == torch.float32 and half.logits.dtype == torch.bfloat16
    torch.testing.assert_close(half.attn, plain.attn, atol=0.02, rtol=0.2)


def test_a_context_has_the_look_that_is_asked_for():
    class Looks(CutMix):
        needs = Needs(look="patches")

    assert issubclass(Looks, MixStrategy)
    model, images = vit(), images_of()
    settings = {"seed": 0, "step": 0, "mean": MEAN, "std": STD}
    ctx = make_context(Looks(), model, images, **settings)
    assert ctx.grid == GRID and ctx.look(images[:2]).attn.shape == (2, *GRID)
    assert make_context(CutMix(), model, images, **settings).look is None


def test_what_it_refuses():
    with pytest.raises(ValueError, match="must be 'logits', 'class' or 'patches', not 'tokens'"):
        make_look(vit(), "tokens")
    resnet = timm.create_model("test_resnet", num_classes=5)
    for kind in ("class", "patches"):
        with pytest.raises(NoClassAttention, match="test_resnet"):
            make_look(resnet, kind)
    assert make_look(resnet, "logits")(images_of()).logits.shape == (3, 5)
