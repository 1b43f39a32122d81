"""Every kind of checkpoint through a small file in its own layout, and files that are refused."""

import argparse
import hashlib
import pickle
import sys
import zipfile

import pytest
import timm
import torch
from safetensors.torch import save_file

import mixbench  # noqa: F401  PVT and CA-Swin
from mixbench.models.checkpoints import load_any, load_model, model_record

SIZE = {"img_size": 64}


def reduced(name, **parts):
    """The name of a smaller version of a timm model, so that files are small."""

    def build(pretrained=False, **kwargs):
        return timm.create_model(name, **(parts | kwargs))

    build.__name__, build.__module__ = f"reduced_{name}", __name__
    return timm.models.register_model(build).__name__


DEIT = reduced("deit_tiny_patch16_224", depth=2)
DISTILLED = reduced("deit_tiny_distilled_patch16_224", depth=2)
VIT = reduced("vit_tiny_patch16_224", depth=2)
reduced("vit_small_patch16_224", depth=2)
CAIT = reduced("cait_xxs24_224", depth=2)
XCIT = reduced("xcit_nano_12_p16_224", depth=1)
PVT = reduced("pvt_tiny", embed_dims=(16, 32, 40, 64), num_heads=(1, 2, 5, 4))
CA_SWIN = reduced("ca_swin_tiny", depths=(1, 1, 1, 2), embed_dim=24)
BEIT = reduced("beit_base_patch16_224", depth=1, embed_dim=48, num_heads=3)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def small(name, **kwargs):
    """A model with no weight at its initial value."""
    model = timm.create_model(name, **{"num_classes": 4, **SIZE, **kwargs}).eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value))
    return model


def same(loaded, expected):
    theirs = expected.state_dict()
    return set(loaded.state_dict()) == set(theirs) and all(
        torch.equal(value, theirs[name]) for name, value in loaded.state_dict().items()
    )


def check(name, path, expected, *, key, weights="raw", **kwargs):
    loaded = load_model(name, checkpoint=path, **{**SIZE, **kwargs})
    assert same(loaded, expected)
    source = loaded.weights_source
    assert (source.key, source.weights, source.head) == (key, weights, "loaded")
    assert (
        source.path == str(path) and source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    )


@pytest.mark.parametrize("name", [DEIT, DISTILLED, CAIT, CA_SWIN, "resnet18"])
def test_plain_state_dicts_and_safetensors(name, tmp_path):
    model = small(name, **({"img_size": None} if name == "resnet18" else {}))
    torch.save(
        {f"module.{key}": value for key, value in model.state_dict().items()},
        tmp_path / "plain.pth",
    )
    check(name, tmp_path / "plain.pth", model, key="")
    save_file(model.state_dict(), tmp_path / "plain.safetensors")
    check(name, tmp_path / "plain.safetensors", model, key="")


def test_official_deit_and_cait(tmp_path):
    for name in (DEIT, CAIT):
        model = small(name)
        state = {
            ("module." if "cait" in name else "") + key: value
            for key, value in model.state_dict().items()
        }
        torch.save({"model": state, "epoch": 3}, tmp_path / f"{name}.pth")
        check(name, tmp_path / f"{name}.pth", model, key="model")


def test_transmix_training_file(tmp_path):
    raw, ema = small(DEIT), small(DEIT)
    args = argparse.Namespace(model=f"{DEIT}_return_attn", lr=1e-3)
    content = {
        "epoch": 9,
        "arch": args.model,
        "state_dict": raw.state_dict(),
        "optimizer": {"state": {}},
        "version": 2,
        "args": args,
        "amp_scaler": {"scale": 1.0},
        "state_dict_ema": ema.state_dict(),
        "metric": 80.7,
    }
    path = tmp_path / "model_best.pth.tar"
    torch.save(content, path)
    check(f"{DEIT}_return_attn", path, ema, key="state_dict_ema", weights="ema")
    check(DEIT, path, ema, key="state_dict_ema", weights="ema", use_ema=True)
    check(DEIT, path, raw, key="state_dict", use_ema=False)
    torch.save({"model": raw.state_dict(), "model_ema": ema.state_dict()}, path)
    check(DEIT, path, ema, key="model_ema", weights="ema")
    torch.save({"state_dict_ema": ema.state_dict()}, path)
    with pytest.raises(ValueError, match="moving average alone"):
        load_model(DEIT, checkpoint=path, use_ema=False)
    torch.save(raw.state_dict(), path)
    with pytest.raises(ValueError, match="has no moving average"):
        load_model(DEIT, checkpoint=path, use_ema=True)
    with pytest.raises(ValueError, match="'auto', True or False, not 'yes'"):
        load_model(DEIT, checkpoint=path, use_ema="yes")


def test_dino(tmp_path):
    model = small(VIT, num_classes=0)
    wrapped = {f"module.backbone.{key}": value for key, value in model.state_dict().items()}
    projection = {
        "module.head.mlp.0.weight": torch.rand(2, 192),
        "module.head.last_layer.weight_g": torch.rand(2, 1),
    }
    student = {key: value + 1 for key, value in wrapped.items()}
    torch.save(
        {
            "student": student | projection,
            "teacher": wrapped | projection,
            "epoch": 1,
            "args": argparse.Namespace(arch="vit_small"),
            "dino_loss": {"center": torch.zeros(1, 2)},
        },
        tmp_path / "dino.pth",
    )
    loaded = load_model(VIT, checkpoint=tmp_path / "dino.pth", **SIZE)
    assert (
        same(loaded, model)
        and loaded.weights_source.key == "teacher"
        and loaded.weights_source.head == "none"
    )
    torch.save(
        {key.removeprefix("module.backbone."): value for key, value in wrapped.items()},
        tmp_path / "backbone.pth",
    )
    loaded = load_model(VIT, checkpoint=tmp_path / "backbone.pth", num_classes=7, **SIZE)
    assert loaded.head.out_features == 7 and loaded.weights_source.head == "new"


def test_official_pvt(tmp_path):
    model = small(PVT)
    assert {
        "pos_embed1",
        "patch_embed4.proj.weight",
        "block1.0.attn.q.weight",
        "block3.1.attn.kv.bias",
        "block1.0.attn.sr.weight",
        "block2.0.attn.norm.weight",
        "block4.1.attn.proj.weight",
        "cls_token",
        "norm.weight",
        "head.bias",
    } <= set(model.state_dict())
    for content, key in (
        ({"model": model.state_dict(), "epoch": 1}, "model"),
        (model.state_dict(), ""),
    ):
        torch.save(content, tmp_path / "pvt.pth")
        check(PVT, tmp_path / "pvt.pth", model, key=key)
    larger = load_model(PVT, checkpoint=tmp_path / "pvt.pth", img_size=128)
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.allclose(
            larger.eval()(images), model(images), atol=1e-4
        )  # resampled on loading or on the way: the same


def test_official_xcit(tmp_path):
    model = small(XCIT)
    official = {}
    for key, value in model.state_dict().items():
        official[key.replace("pos_embed.", "pos_embeder.")] = value
    for block in range(2):
        at = f"cls_attn_blocks.{block}.attn."
        for kind in ("weight", "bias"):
            official[f"{at}qkv.{kind}"] = torch.cat(
                [official.pop(f"{at}{part}.{kind}") for part in "qkv"]
            )
    torch.save({"model": official}, tmp_path / "xcit.pth")
    check(XCIT, tmp_path / "xcit.pth", model, key="model")


def test_head_and_position_embedding_are_adapted(tmp_path):
    model, path = small(DEIT), tmp_path / "x.pth"
    torch.save(model.state_dict(), path)
    loaded = load_model(DEIT, checkpoint=path, num_classes=9, img_size=96)
    assert loaded.head.out_features == 9 and loaded.weights_source.head == "new"
    assert (
        load_model(DEIT, checkpoint=path, num_classes=0, img_size=64).weights_source.head == "none"
    )
    grid = (
        model.pos_embed[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    )  # as DeiT and DINO do it: bicubic without antialiasing
    expected = (
        torch.nn.functional.interpolate(grid, (6, 6), mode="bicubic").flatten(2).transpose(1, 2)
    )
    assert torch.allclose(loaded.pos_embed[:, 1:], expected, atol=1e-6) and torch.equal(
        loaded.pos_embed[:, :1], model.pos_embed[:, :1]
    )
    cait = small(CAIT)  # its position embedding has no row for the class token
    torch.save(cait.state_dict(), path)
    assert load_model(CAIT, checkpoint=path, img_size=96).pos_embed.shape == (1, 36, 192)


@pytest.mark.parametrize("name", [BEIT, "mvitv2_tiny"])
def test_positions_of_other_families_are_resampled_as_timm_does_it(name, tmp_path):
    path = tmp_path / "x.pth"
    torch.save(small(name, img_size=96).state_dict(), path)
    expected = timm.create_model(name, num_classes=4, **SIZE)
    timm.models.load_pretrained(
        expected,
        pretrained_cfg=expected.pretrained_cfg | {"file": str(path), "num_classes": 4},
        num_classes=4,
        filter_fn=sys.modules[type(expected).__module__].checkpoint_filter_fn,
    )
    assert same(load_model(name, checkpoint=path, **SIZE), expected)


def test_what_does_not_fit_is_listed(tmp_path):
    model, path = small(DEIT), tmp_path / "x.pth"
    state = model.state_dict()
    torch.save(
        {key: value for key, value in state.items() if key != "norm.bias"}
        | {"extra.weight": torch.zeros(1)},
        path,
    )
    with pytest.raises(
        ValueError,
        match=r"does not fit deit_tiny_patch16_224: 1 missing: norm.bias; "
        r"1 unexpected: extra.weight$",
    ):
        load_model(DEIT, checkpoint=path, **SIZE)
    torch.save(state, path)
    for other in (VIT.replace("tiny", "small"), PVT, XCIT, CA_SWIN, CAIT, "resnet18", DISTILLED):
        with pytest.raises(ValueError, match=f"does not fit {other.removeprefix('reduced_')}"):
            load_model(other, checkpoint=path, img_size=None if other == "resnet18" else 224)
    with pytest.raises(ValueError, match=r"of another shape: .*patch_embed.proj.weight .* more$"):
        load_model(VIT.replace("tiny", "small"), checkpoint=path, **SIZE)
    with pytest.raises(ValueError, match="unknown model 'pvt_tinny': did you mean 'pvt_tiny'"):
        load_model("pvt_tinny", checkpoint=path)
    with pytest.raises(ValueError, match="exclude each other"):
        load_model(DEIT, checkpoint=path, pretrained=True)
    with pytest.raises(ValueError, match="pvt_tiny cannot be had"):
        load_model("pvt_tiny", pretrained=True)


def test_timms_own_weights(monkeypatch):
    weights, create = small(DEIT), timm.create_model

    def offline(name, pretrained=False, **kwargs):
        model = create(name, **kwargs | (SIZE if pretrained else {}))
        if pretrained:
            model.load_state_dict(
                {k: v for k, v in weights.state_dict().items() if "head" not in k}, strict=False
            )
        return model

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr("mixbench.models.build.reach_hub", lambda repository: None)
    loaded = load_model(DEIT, pretrained=True, num_classes=7, img_size=64)
    assert (loaded.weights_source.weights, loaded.weights_source.head) == ("pretrained", "new")
    assert loaded.weights_source.path == "deit_tiny_patch16_224.fb_in1k" and torch.equal(
        loaded.pos_embed, weights.pos_embed
    )
    larger = load_model(DEIT, pretrained=True, img_size=96)
    assert larger.weights_source.head == "loaded" and torch.equal(
        larger.blocks[0].attn.qkv.weight, weights.blocks[0].attn.qkv.weight
    )
    grid = weights.pos_embed[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    expected = (
        torch.nn.functional.interpolate(grid, (6, 6), mode="bicubic").flatten(2).transpose(1, 2)
    )
    assert torch.allclose(
        larger.pos_embed[:, 1:], expected, atol=1e-6
    )  # not antialiased, as a file's
    assert load_model(DEIT).weights_source.weights == "random"


class Runs:
    def __reduce__(self):
        return eval, ("open('was_run', 'w').close()",)


def test_files_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    model = small(DEIT)
    torch.save({"state_dict": model.state_dict(), "args": Runs()}, path)
    with pytest.raises(ValueError, match=r"more than weights \(.*eval\) and was not opened"):
        load_model(DEIT, checkpoint=path)
    path.write_bytes(pickle.dumps(Runs(), protocol=2))
    with pytest.raises(ValueError, match=r"more than weights|cannot be read"):
        load_model(DEIT, checkpoint=path)
    torch.save(model, path)
    with pytest.raises(ValueError, match=r"more than weights \(timm.*VisionTransformer\)"):
        load_model(DEIT, checkpoint=path)
    assert not (tmp_path / "was_run").exists()
    torch.save(model.state_dict(), path)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"<html>not found</html>"):
        path.write_bytes(broken)
        for name in ("bad.pth", "bad.safetensors"):
            (tmp_path / name).write_bytes(broken)
            with pytest.raises(ValueError, match=f"{name} cannot be read"):
                load_model(DEIT, checkpoint=tmp_path / name)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no weights")
    with pytest.raises(ValueError, match="cannot be read"):
        load_model(DEIT, checkpoint=path)
    for content, message in (
        ([1, 2], "holds a list"),
        ({"epoch": 3}, "entries are epoch"),
        ({}, "no weights"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            load_model(DEIT, checkpoint=path)
    with pytest.raises(ValueError, match=r"not found: gone.pth"):
        load_model(DEIT, checkpoint="gone.pth")


def test_the_model_of_a_checkpoint_is_found(tmp_path):
    path = tmp_path / "x.pth"
    model = small(DEIT)
    torch.save(
        {
            "state_dict": model.state_dict(),
            "args": argparse.Namespace(model=f"{DEIT}_return_attn"),
            "model_args": SIZE,
        },
        path,
    )
    named = load_any(path)
    assert named.num_classes == 0 and torch.equal(
        named.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight
    )
    matched = timm.create_model("deit_tiny_patch16_224", num_classes=3)
    torch.save(matched.state_dict(), path)
    assert torch.equal(load_any(path).pos_embed, matched.pos_embed)
    torch.save(model.state_dict(), path)  # of no size that the zoo has
    assert torch.equal(load_any(path, like=small(DEIT, num_classes=3)).pos_embed, model.pos_embed)
    with pytest.raises(ValueError, match="fit none of the zoo: cls_token, pos_embed"):
        load_any(path, like=small(DEIT, depth=3))
    for parts in ({"pretrained": True}, ["depth"]):
        torch.save({"state_dict": model.state_dict(), "arch": DEIT, "model_args": parts}, path)
        with pytest.raises(
            ValueError, match=r"model_args may hold img_size, .*, not .*(pretrained|depth)"
        ):
            load_any(path)
    torch.save(
        {"state_dict": model.state_dict()} | model_record("resnet18", depth=2, embed_dim=None), path
    )
    with pytest.raises(ValueError, match="resnet18 does not take all of depth"):
        load_any(path)


def test_a_training_file_says_which_parts_its_model_has(tmp_path):
    name, parts = (
        "vit_tiny_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3},
    )
    model, path = small(name, **parts), tmp_path / "last.pt"
    torch.save({"state_dict": model.state_dict(), "epoch": 3} | model_record(name, **parts), path)
    loaded = load_model(name, checkpoint=path)
    images = torch.randn(2, 3, 32, 32)
    assert same(loaded, model) and torch.equal(loaded.eval()(images), model(images))
    assert load_model(name, checkpoint=path, img_size=64).pos_embed.shape == (1, 65, 24)
    with pytest.raises(
        ValueError, match="does not fit vit_small"
    ):  # another model's parts are not taken
        load_model("vit_small_patch16_224", checkpoint=path)


def test_files_that_a_familys_filter_stumbles_over_are_sentences(tmp_path):
    """Swin's into CA-Swin, which has another last block; Hiera's at another size."""
    swin = timm.create_model("swin_tiny_patch4_window7_224", embed_dim=24, img_size=64)
    torch.save(swin.state_dict(), tmp_path / "swin.pth")
    with pytest.raises(ValueError, match=r"does not fit .*ca_swin.* missing: cls_token"):
        load_model(CA_SWIN, checkpoint=tmp_path / "swin.pth", **SIZE)
    hiera = timm.create_model("hiera_tiny_224", num_classes=2)
    torch.save(hiera.state_dict(), tmp_path / "hiera.pth")
    way_out = r"of another shape: pos_embed .*: take the weights' own, 224 px$"
    with pytest.raises(ValueError, match=way_out):
        load_model("hiera_tiny_224", checkpoint=tmp_path / "hiera.pth", img_size=192)


def test_batch_norms_may_lack_their_counts(tmp_path):
    """As torch's own strict loading takes them."""
    model = timm.create_model("test_resnet", num_classes=3)
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(state) < len(model.state_dict())
    model.load_state_dict(state, strict=True)
    torch.save(state, tmp_path / "a.pth")
    loaded = load_model("test_resnet", checkpoint=tmp_path / "a.pth")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in state.items())
