"""The rebuilt class-token row against the unfused attention matrix of the same block."""
import pytest
import timm
import torch

from mixbench import ClassAttention, NoClassAttention

FAMILIES = {
    "deit_small_patch16_224": {"depth": 2},
    "deit_small_distilled_patch16_224": {"depth": 2},
    "vit_small_patch14_reg4_dinov2": {"depth": 2, "img_size": 56},
    "cait_xxs24_224": {"depth": 1},
    "xcit_nano_12_p16_224": {"depth": 1},
}


@pytest.fixture(params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    return timm.create_model(request.param, num_classes=5, **FAMILIES[request.param]).eval()


def unfused(model, images):
    """The softmax matrix that the last class-attention block multiplies with its values, from timm's own unfused path."""
    seen = []
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    blocks = getattr(model, "blocks_token_only", None) or getattr(model, "cls_attn_blocks", None) or model.blocks
    handle = blocks[-1].attn.attn_drop.register_forward_hook(lambda m, i, o: seen.append(i[0].detach().float()))
    logits = model(images)
    handle.remove()
    return logits, seen[-1][:, :, 0, getattr(model, "num_prefix_tokens", 1):]


def test_row_equals_the_unfused_matrix(model):
    images = torch.randn(2, 3, *model.patch_embed.img_size if hasattr(model.patch_embed, "img_size") else (224, 224))
    with torch.no_grad(), ClassAttention(model) as tap:
        output = tap(images)
        logits, matrix = unfused(model, images)
    assert torch.allclose(output.logits, logits, atol=1e-4)
    assert torch.allclose(output.attn.flatten(1), matrix.mean(1), atol=1e-6)
    assert output.attn.shape[1] * output.attn.shape[2] == matrix.shape[-1]


def test_bf16_row_is_a_float32_softmax_and_fused_attention_stays_on():
    model = timm.create_model("deit_tiny_patch16_224", depth=2, num_classes=5)
    kept = []
    model.blocks[-1].attn.qkv.register_forward_hook(lambda m, i, o: kept.append(o.detach()))
    with ClassAttention(model) as tap, torch.autocast("cpu", torch.bfloat16):
        output = tap(torch.randn(2, 3, 224, 224))
    assert kept[0].dtype == torch.bfloat16 and output.attn.dtype == torch.float32 and not output.attn.requires_grad
    q, k, _ = kept[0].float().reshape(2, 197, 3, 3, 64).permute(2, 0, 3, 1, 4)
    row = (q @ k.transpose(-2, -1) * 64**-0.5).softmax(-1)[:, :, 0, 1:].mean(1)
    assert torch.allclose(output.attn.flatten(1), row, atol=1e-6)
    assert all(block.attn.fused_attn for block in model.blocks)


def test_blocks_are_counted_from_one():
    model = timm.create_model("deit_tiny_patch16_224", depth=3, num_classes=5).eval()
    images = torch.randn(1, 3, 224, 224)
    maps = []
    for block in (1, "3", "last"):
        with ClassAttention(model, block) as tap, torch.no_grad():
            maps.append(tap(images).attn)
    assert torch.equal(maps[1], maps[2]) and not torch.equal(maps[0], maps[1])
    for block in (0, 4, "rollout", "-1"):
        with pytest.raises(ValueError, match="from 1 to 3"):
            ClassAttention(model, block)


def test_non_square_grid():
    model = timm.create_model("deit_tiny_patch16_224", depth=1, num_classes=5, dynamic_img_size=True).eval()
    with ClassAttention(model) as tap:
        assert tap(torch.randn(1, 3, 64, 96)).attn.shape == (1, 4, 6)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "vit_base_patch16_gap_224"])
def test_models_without_a_class_token_are_named(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(NoClassAttention, match=name):
        ClassAttention(model)
