"""The rebuilt class-token row against the unfused attention matrix of the same block."""

import pytest
import timm
import torch
from timm.models.vision_transformer import Attention

from mixbench import ClassAttention, Needs, NoClassAttention, create_strategy, make_context
from mixbench.data.normalisation import Normalisation
from mixbench.models.checkpoints import model_record
from mixbench.services.attention import (
    PROVIDERS,
    AttentionProvider,
    AttentionRollout,
    Tap,
    attention_tap,
)
from mixbench.services.tokens import tap_of
from mixbench.training.forward import Network

FAMILIES = {
    "deit_small_patch16_224": {"depth": 2},
    "deit_small_distilled_patch16_224": {"depth": 2},
    "vit_small_patch14_reg4_dinov2": {"depth": 2, "img_size": 56},
    "cait_xxs24_224": {"depth": 1},
    "xcit_nano_12_p16_224": {"depth": 1},
    "ca_swin_tiny": {"embed_dim": 24, "img_size": 64},
}  # PVT: tests/models/test_pvt.py, against transformers


@pytest.fixture(params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    return timm.create_model(request.param, num_classes=5, **FAMILIES[request.param]).eval()


def blocks_of(model):
    if hasattr(model, "cls_block"):
        return [model.cls_block]
    return (
        getattr(model, "blocks_token_only", None)
        or getattr(model, "cls_attn_blocks", None)
        or model.blocks
    )


def unfused(model, images):
    """Logits, and the softmax matrix of the last class-attention block by timm's unfused path."""
    seen = []
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    handle = blocks_of(model)[-1].attn.attn_drop.register_forward_hook(
        lambda m, i, o: seen.append(i[0].detach().float())
    )
    logits = model(images)
    handle.remove()
    return logits, seen[-1][:, :, 0, getattr(model, "num_prefix_tokens", 1) :]


def test_row_equals_the_unfused_matrix(model):
    images = torch.randn(
        2, 3, *model.patch_embed.img_size if hasattr(model.patch_embed, "img_size") else (224, 224)
    )
    with torch.no_grad(), ClassAttention(model) as tap:
        output = tap(images)
        logits, matrix = unfused(model, images)
    assert torch.allclose(output.logits, logits, atol=1e-4)
    assert torch.allclose(output.attn.flatten(1), matrix.mean(1), atol=1e-6)
    assert output.attn.shape[1] * output.attn.shape[2] == matrix.shape[-1]


def test_bf16_row_is_a_float32_softmax_and_fused_attention_stays_on():
    model = timm.create_model("deit_tiny_patch16_224", depth=2, num_classes=5)
    outputs = []
    model.blocks[-1].attn.qkv.register_forward_hook(lambda m, i, o: outputs.append(o.detach()))
    with ClassAttention(model) as tap, torch.autocast("cpu", torch.bfloat16):
        output = tap(torch.randn(2, 3, 224, 224))
    assert (
        outputs[0].dtype == torch.bfloat16
        and output.attn.dtype == torch.float32
        and not output.attn.requires_grad
    )
    q, k, _ = outputs[0].float().reshape(2, 197, 3, 3, 64).permute(2, 0, 3, 1, 4)
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
    model = timm.create_model(
        "deit_tiny_patch16_224", depth=1, num_classes=5, dynamic_img_size=True
    ).eval()
    with ClassAttention(model) as tap:
        assert tap(torch.randn(1, 3, 64, 96)).attn.shape == (1, 4, 6)


@pytest.mark.parametrize(
    "name", ["resnet50", "swin_tiny_patch4_window7_224", "vit_base_patch16_gap_224", "pvt_v2_b0"]
)
def test_models_without_a_class_token_are_named(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    for attention in ("last", 1, "rollout"):
        with pytest.raises(
            NoClassAttention, match=f"{name} has no class token.*ca_swin_tiny.*provider"
        ):
            attention_tap(model, attention)


@pytest.mark.parametrize(
    "name",
    ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_patch14_reg4_dinov2"],
)
def test_vector_rollout_equals_the_product_of_unfused_matrices(name):
    torch.manual_seed(0)
    model = timm.create_model(
        name, depth=4, num_classes=5, img_size=56 if "dinov2" in name else 224
    ).eval()
    for parameter in (
        model.parameters()
    ):  # sharp attention: near its initial weights, that of every block is uniform
        parameter.data *= 1 + 3 * (parameter.ndim == 2)
    images = torch.randn(2, 3, *model.patch_embed.img_size)
    with attention_tap(model, "rollout") as tap, torch.no_grad():
        attn = tap(images).attn
        assert torch.equal(tap.mean(), attn)
        seen = []
        for block in model.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda m, i, o: seen.append(i[0]))
        model(images)
    product = torch.eye(seen[0].shape[-1])
    for matrix in seen:
        product = (matrix.mean(1) + torch.eye(len(product[-1]))) / 2 @ product
    expected = product[:, 0, model.num_prefix_tokens :]
    assert isinstance(tap, AttentionRollout) and len(seen) == 4
    assert (
        torch.allclose(attn.flatten(1), expected, atol=1e-6)
        and attn.shape[1:] == model.patch_embed.grid_size
    )
    last = seen[-1][:, :, 0, model.num_prefix_tokens :].mean(1)
    assert not torch.allclose(expected / expected.sum(1, True), last / last.sum(1, True), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "blocks", "kwargs"),
    [
        ("cait_xxs36_224", 2, {"depth": 1}),
        ("xcit_nano_12_p16_224", 2, {"depth": 1}),
        ("pvt_medium", 3, {}),
        ("ca_swin_tiny", 1, {}),
    ],
)
def test_blocks_with_class_attention_alone(name, blocks, kwargs):
    with torch.device("meta"):
        model = timm.create_model(name, **kwargs)
    attention_tap(model, blocks)
    for text in (0, blocks + 1, "-1"):
        with pytest.raises(
            ValueError, match=f"{name} is 'last' or a block from 1 to {blocks}, not"
        ):
            attention_tap(model, text)
    with pytest.raises(
        ValueError, match=f"class token of {name} is in its last {blocks} alone.*from 1 to {blocks}"
    ):
        attention_tap(model, "rollout")
    with pytest.raises(ValueError, match="did you mean 'rollout'"):
        attention_tap(model, "rolout")


SMALL = {"img_size": 64, "embed_dim": 48, "num_heads": 3, "depth": 2}


def small_vit():
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, **SMALL)


@pytest.mark.parametrize("attention", ["last", "rollout", "provider.pth"])
def test_a_tap_is_compiled_in_one_graph(attention, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch._dynamo.reset()
    model, images = small_vit().eval(), torch.randn(2, 3, 64, 64)
    torch.save(
        {"state_dict": small_vit().state_dict()} | model_record("vit_tiny_patch16_224", **SMALL),
        "provider.pth",
    )
    with attention_tap(model, attention) as tap:
        expected = tap(images)
        output = torch.compile(lambda x: tap(x), fullgraph=True, backend="eager")(images)
    assert torch.allclose(output.logits, expected.logits, atol=1e-6) and torch.allclose(
        output.attn, expected.attn, atol=1e-6
    )
    assert output.logits.requires_grad and not output.attn.requires_grad


def test_a_provider_with_the_models_weights_gives_the_labels_of_its_own_attention(tmp_path):
    torch.manual_seed(0)
    model = small_vit().eval()
    torch.save(model.state_dict(), tmp_path / "twin.pth")
    images, labels = torch.randn(4, 3, 64, 64), torch.arange(4)
    lams = {}
    for name in ("last", str(tmp_path / "twin.pth")):
        strategy = create_strategy(f"transmix(attention={name!r}, attention_weight=1.0)")
        ctx = make_context(strategy, model, images, seed=1, step=0, mean=(0.5,) * 3, std=(0.2,) * 3)
        mixed = strategy.mix(images, labels, ctx)
        with attention_tap(model, strategy.needs.attention) as tap:
            output = tap(mixed.images)
        lams[name] = strategy.relabel(mixed, output)
        assert not torch.allclose(lams[name], mixed.lam, atol=1e-4)
    assert torch.equal(*lams.values())


def test_a_provider_is_frozen_shared_and_counted(tmp_path):
    torch.manual_seed(0)
    path = str(tmp_path / "provider.pth")
    torch.save(
        {"state_dict": small_vit().state_dict()} | model_record("vit_tiny_patch16_224", **SMALL),
        path,
    )
    model = timm.create_model("resnet18", num_classes=5)  # no class token of its own
    first, second = attention_tap(model, path), attention_tap(small_vit(), path)
    provider = first._tap.model
    assert isinstance(first, AttentionProvider) and provider is second._tap.model
    assert first.extra_parameters == sum(p.numel() for p in small_vit().parameters()) - 48 * 5 - 5
    assert (
        attention_tap(small_vit()).extra_parameters
        == attention_tap(small_vit(), "rollout").extra_parameters
        == 0
    )
    before = {name: value.clone() for name, value in provider.state_dict().items()}
    images = torch.randn(2, 3, 64, 64)
    with first as tap:
        output = tap(images)
        assert torch.equal(tap(images).attn, output.attn)  # nothing random is left in it
        (output.logits.sum() * (1 + output.attn.sum())).backward()
    assert output.attn.shape == (2, 4, 4) and not output.attn.requires_grad
    assert not provider.training and all(
        p.grad is None and not p.requires_grad for p in provider.parameters()
    )
    assert all(torch.equal(value, before[name]) for name, value in provider.state_dict().items())
    assert not provider.blocks[-1].attn.qkv._forward_hooks
    assert create_strategy("transmix(attention=deit-distilled)").needs.attention in PROVIDERS
    with pytest.raises(ValueError, match="made for 64x64 images, and these have 32x48"):
        first(torch.randn(1, 3, 32, 48))


@pytest.mark.parametrize("mean", [(0.5, 0.5, 0.5), (0.2, 0.3, 0.4)], ids=["timm's", "others"])
def test_a_provider_sees_images_as_its_weights_were_trained(mean, tmp_path):
    """By its file, else by timm; the network that trains sees them as they came."""
    torch.manual_seed(0)
    std, path = (0.3, 0.2, 0.25), str(tmp_path / "provider.pth")
    content = {"state_dict": small_vit().state_dict()}
    content |= model_record("vit_tiny_patch16_224", **SMALL)
    content["preprocessing"] = {"mean": list(mean), "std": list(std)}
    torch.save(content, path)
    model, levels = small_vit().eval(), torch.rand(3, 3, 64, 64)
    run = Normalisation.of((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = run.apply(levels)
    tap = attention_tap(model, path, normalisation=run)
    alone = ClassAttention(tap._tap.model)
    with torch.no_grad(), alone:
        wanted = alone(
            (levels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        )
        as_given = alone(images)
    with torch.no_grad(), tap:
        output = tap(images)
    assert torch.allclose(output.attn, wanted.attn, atol=1e-6)
    assert not torch.allclose(output.attn, as_given.attn, atol=1e-4)
    assert torch.equal(output.logits, model(images))
    own = Normalisation.of(mean, std)
    with torch.no_grad(), attention_tap(model, path, normalisation=own) as tap:
        assert torch.equal(tap(own.apply(levels)).attn, wanted.attn)  # nothing to convert


def test_a_run_hands_its_normalisation_to_the_provider(tmp_path):
    """In the harness and in a loop of one's own: labels are those of images as the provider's."""
    torch.manual_seed(0)
    path = str(tmp_path / "provider.pth")
    content = {"state_dict": small_vit().state_dict()}
    content["preprocessing"] = {"mean": [0.1, 0.2, 0.3], "std": [0.3, 0.3, 0.3]}
    torch.save(content | model_record("vit_tiny_patch16_224", **SMALL), path)
    run, needs = Normalisation.of((0.5,) * 3, (0.25,) * 3), Needs(attention=path)
    images = run.apply(torch.rand(2, 3, 64, 64))
    with torch.no_grad(), tap_of(small_vit(), needs, normalisation=run) as tap:
        wanted = tap(images).attn
    with torch.no_grad(), Network(small_vit(), needs, run) as network:
        assert torch.equal(network(images).attn, wanted)
    with torch.no_grad(), Network(small_vit(), needs) as network:
        assert not torch.allclose(network(images).attn, wanted, atol=1e-4)


def test_a_provider_must_have_class_attention(tmp_path):
    torch.save(
        {
            "arch": "resnet18",
            "state_dict": timm.create_model("resnet18", num_classes=5).state_dict(),
        },
        tmp_path / "cnn.pth",
    )
    with pytest.raises(NoClassAttention, match="resnet18"):
        attention_tap(small_vit(), str(tmp_path / "cnn.pth"))
    with pytest.raises(ValueError, match=r"not 'nowhere.pth'"):
        attention_tap(small_vit(), "nowhere.pth")


@pytest.mark.parametrize("name", ["last", "rollout"])
def test_a_tap_forgets_and_leaves_no_hook(name):
    model = small_vit().eval()
    before = {id(module): len(module._forward_hooks) for module in model.modules()}
    with attention_tap(model, name) as tap, torch.no_grad():
        assert isinstance(tap, Tap) and tap(torch.randn(1, 3, 64, 64)).attn.shape == (1, 4, 4)
        assert any(len(m._forward_hooks) > before[id(m)] for m in model.modules())
        tap.forget()
        with pytest.raises(NoClassAttention, match=r"no forward pass of vit_tiny\S* was seen"):
            tap.mean()
    assert all(len(m._forward_hooks) == before[id(m)] for m in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


PLAIN = {  # model: arguments; every timm family whose class attention is accepted
    "deit_tiny_patch16_224": {"img_size": 64},
    "deit_tiny_distilled_patch16_224": {"img_size": 64},
    "deit3_small_patch16_224": {"img_size": 64, "depth": 3},
    "vit_tiny_patch16_224": {"img_size": 64, "qk_norm": True},
    "vit_small_patch14_reg4_dinov2": {"img_size": 56, "depth": 3},
    "vit_tiny_r_s16_p8_224": {"img_size": 64},
    "flexivit_small": {"img_size": 64, "depth": 3},
    "convit_tiny": {},
    "cait_xxs24_224": {"img_size": 64, "depth": 1},
    "xcit_nano_12_p16_224": {"img_size": 64, "depth": 1},
    "ca_swin_tiny": {"embed_dim": 24, "img_size": 64},
}
OTHER = {  # model: arguments; models with a class token whose attention is more than q and k
    "vit_relpos_base_patch16_cls_224": {"depth": 1},
    "vit_relpos_base_patch16_clsgap_224": {"depth": 1},
    "beit_base_patch16_224": {"depth": 1, "global_pool": "token"},
    "eva02_tiny_patch14_224": {"depth": 1, "global_pool": "token"},
    "vit_base_patch16_xp_224": {"depth": 1},
    "pit_ti_224": {},
    "tnt_s_patch16_224": {"depth": 1},
    "volo_d1_224": {},
    "mvitv2_small_cls": {},
    "crossvit_tiny_240": {},
    "coat_tiny": {},
}


def sharpened(name, arguments):
    """A model whose attention is far from uniform, all of it in timm's unfused path."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **arguments).eval()
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    for key, parameter in model.named_parameters():
        if any(part in key for part in ("qkv.weight", "attn.q.weight", "attn.k.weight")):
            torch.nn.init.normal_(parameter, std=0.15)
        if "cls_token" in key:  # near 0 its query is the same for every key
            torch.nn.init.normal_(parameter)
    return model


def attention_matrices(model, images):
    """What timm's own forward pass multiplies the values by, in each block, (B, heads, M, N)."""
    seen = []
    handles = [
        module.register_forward_hook(lambda m, i, o: seen.append(i[0].detach()))
        for key, module in model.named_modules()
        if key.endswith("attn.attn_drop")
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return seen


def images_for(model):
    size = getattr(model.patch_embed, "img_size", (32, 32))
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_attention_that_is_accepted_is_what_timm_multiplies_by(name):
    model = sharpened(name, PLAIN[name])
    images = images_for(model)
    with attention_tap(model) as tap:
        attn = tap(images).attn.flatten(1)
    expected = attention_matrices(model, images)[-1][:, :, 0, model_prefix(model) :].mean(1)
    torch.testing.assert_close(attn, expected, rtol=1e-4, atol=1e-6)
    assert (expected.amax(1) / expected.amin(1)).max() > 1.5  # far from uniform


def model_prefix(model):
    return getattr(model, "num_prefix_tokens", 1)


@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_rollout_is_the_product_or_is_refused(name):
    model = sharpened(name, PLAIN[name])
    if name.startswith(("convit", "cait", "xcit", "ca_swin")):
        with pytest.raises(
            ValueError, match=r"in its last \d alone: choose attention=last .*tlalign"
        ):
            attention_tap(model, "rollout")
        return
    images = images_for(model)
    with attention_tap(model, "rollout") as tap:
        attn = tap(images).attn.flatten(1)
    matrices = attention_matrices(model, images)
    assert len(matrices) == len(model.blocks)
    row = torch.eye(matrices[0].shape[-1])[:1].expand(2, 1, -1)
    for matrix in reversed(matrices):
        row = (row + row @ matrix.mean(1)) / 2
    torch.testing.assert_close(attn, row[:, 0, model_prefix(model) :], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("attention", ["last", "rollout"])
def test_attention_that_is_more_than_q_and_k_is_refused(name, attention):
    with torch.device("meta"):
        model = timm.create_model(name, **OTHER[name])
    with pytest.raises(NoClassAttention) as error:
        attention_tap(model, attention)
    assert name in str(error.value) and "choose a model" in str(error.value)
    assert len(str(error.value)) < 500


class TalkingHeads(Attention):
    """Heads that exchange their scores (Shazeer et al. 2020), which hooks on q and k cannot see."""

    def forward(self, tokens, attn_mask=None, is_causal=False):
        return super().forward(tokens)


def test_an_attention_class_of_ones_own_is_refused():
    """Also a subclass of timm's, and in one block alone."""
    model = small_vit()
    model.blocks[0].attn = TalkingHeads(48, num_heads=3, qkv_bias=True)
    for attention in ("last", 2, "rollout"):
        with pytest.raises(NoClassAttention, match=r"TalkingHeads.*rebuilt wrongly"):
            attention_tap(model, attention)


def test_rollout_refuses_blocks_of_ones_own():
    class MyBlock(type(small_vit().blocks[0])):
        pass

    model = small_vit()
    model.blocks[1].__class__ = MyBlock
    attention_tap(model, "last")
    with pytest.raises(ValueError, match="its own MyBlock: choose attention=last"):
        attention_tap(model, "rollout")


class Holder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.backbone = model

    def forward(self, images):
        return self.backbone(images)


def distributed(model):
    """A model in DistributedDataParallel, whose __init__ would want a group of processes."""
    kind = torch.nn.parallel.DistributedDataParallel
    wrapped = kind.__new__(kind)
    torch.nn.Module.__init__(wrapped)
    wrapped.module = model
    return wrapped


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (distributed, r"DistributedDataParallel only holds .* one, model\.module$"),
        (torch.nn.DataParallel, r"DataParallel only holds .* pass the inner one, model\.module$"),
        (Holder, r"Holder only holds .* model\.backbone$"),
        (lambda model: Holder(Holder(model)), r"model\.backbone\.backbone$"),
        (
            lambda model: torch.nn.Sequential(torch.nn.Identity(), model),
            r"model\.get_submodule\('1'\)$",
        ),
        (lambda model: torch.compile(model, backend="eager"), r"compiled.*model\._orig_mod"),
    ],
)
@pytest.mark.parametrize("attention", ["last", "rollout"])
def test_a_wrapped_model_is_told_to_pass_the_inner_one(wrap, message, attention):
    with pytest.raises(NoClassAttention, match=message):
        attention_tap(wrap(small_vit()), attention)


def test_a_model_compiled_in_place_is_refused():
    model = small_vit()
    model.compile(backend="eager")
    with pytest.raises(NoClassAttention, match=r"before torch\.compile"):
        attention_tap(model)


def hugging_face_vit(**changes):
    transformers = pytest.importorskip("transformers")
    shape = dict(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        initializer_range=0.5,  # far from even attention
        attn_implementation="eager",  # the other ways give no maps
    )
    torch.manual_seed(0)
    config = transformers.ViTConfig(**{**shape, **changes})
    return transformers.ViTForImageClassification(config)


@pytest.mark.parametrize("block", [1, 2, "last"])
def test_hugging_faces_vit(block):
    """The row is what transformers itself gives, on an oblong image too."""
    model = hugging_face_vit(image_size=(32, 48))
    images = torch.randn(3, 3, 32, 48)
    with torch.no_grad(), ClassAttention(model.vit, block) as tap:
        maps = model(images, output_attentions=True).attentions
    expected = maps[-1 if block == "last" else block - 1][:, :, 0, 1:]
    assert tap.per_head().shape == (3, 2, 4, 6) and expected.std() > 0.02
    torch.testing.assert_close(tap.per_head().flatten(2), expected, atol=1e-5, rtol=0)


def test_keys_may_come_before_queries():
    """As in transformers 4."""
    model, rows = hugging_face_vit(), []
    states = torch.randn(2, 17, 24)
    with torch.no_grad(), ClassAttention(model.vit) as tap:
        model(torch.randn(2, 3, 32, 32))
        for names in (("q_proj", "k_proj"), ("k_proj", "q_proj"), ("q_proj", "k_proj")):
            for name in names:
                getattr(tap._attn, name)(states if len(rows) < 2 else states.flip(0))
            rows.append(tap.mean())
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[2], rows[1].flip(0))


def test_what_of_hugging_face_is_refused():
    transformers = pytest.importorskip("transformers")
    model = hugging_face_vit()
    with pytest.raises(NoClassAttention, match=r"pass the inner one, model\.vit$"):
        attention_tap(model)
    with pytest.raises(ValueError, match="is Hugging Face's: choose attention=last"):
        attention_tap(model.vit, "rollout")
    shape = dict(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    beit = transformers.BeitModel(transformers.BeitConfig(**shape))
    with pytest.raises(NoClassAttention, match=r"Beit.* would be rebuilt wrongly"):
        attention_tap(beit)
    mixer = transformers.PoolFormerForImageClassification(transformers.PoolFormerConfig())
    with pytest.raises(NoClassAttention, match=r"Hugging Face's transformers.*pass ViTFor"):
        attention_tap(mixer)
