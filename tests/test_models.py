"""The zoo against the published counts, PVT against transformers, CA-Swin against Swin."""

import subprocess
import sys
from dataclasses import replace

import pytest
import timm
import torch
import yaml

import mixbench.models.register
from mixbench import create_strategies
from mixbench.data.datasets import open_data
from mixbench.models.zoo import ZOO, zoo_table, zoo_text
from mixbench.published import published_dir, published_table
from mixbench.recipe import config_dir, load_recipe
from mixbench.training.loop import train

COUNTS = {  # parameters, G multiply-adds at 224 px, blocks with class attention, grid
    "deit_tiny_patch16_224": (5_717_416, 1.25, 12, "14x14"),
    "deit_small_patch16_224": (22_050_664, 4.60, 12, "14x14"),
    "deit_base_patch16_224": (86_567_656, 17.56, 12, "14x14"),
    "cait_xxs36_224": (17_299_720, 3.76, 2, "14x14"),
    "xcit_tiny_24_p16_224": (12_116_896, 2.32, 2, "14x14"),
    "xcit_small_12_p16_224": (26_253_304, 4.80, 2, "14x14"),
    "xcit_medium_24_p16_224": (84_395_752, 16.08, 2, "14x14"),
    "xcit_large_24_p16_224": (189_096_136, 35.79, 2, "14x14"),
    "pvt_tiny": (13_229_288, 1.93, 2, "7x7"),
    "pvt_small": (24_485_864, 3.82, 3, "7x7"),
    "pvt_medium": (44_208_104, 6.66, 3, "7x7"),
    "pvt_large": (61_369_320, 9.81, 3, "7x7"),
    "swin_tiny_patch4_window7_224": (28_288_354, 4.49, 0, ""),
    "swin_small_patch4_window7_224": (49_606_258, 8.74, 0, ""),
    "ca_swin_tiny": (28_286_602, 4.205, 1, "7x7"),
    "ca_swin_small": (49_604_506, 8.455, 1, "7x7"),
    "vit_small_patch16_224": (21_665_664, 4.60, 12, "14x14"),
    "deit_small_distilled_patch16_224": (22_436_432, 4.62, 12, "14x14"),
    "resnet50": (25_557_032, 4.09, 0, ""),
}


def test_the_zoo_has_the_published_counts():
    rows = zoo_table()
    assert {row["name"] for row in rows} == set(COUNTS)
    for row in rows:
        params, macs, blocks, grid = COUNTS[row["name"]]
        assert (row["params"], row["blocks"], row["grid"]) == (params, blocks, grid), row
        assert row["macs"] / 1e9 == pytest.approx(macs, rel=0.01), row
        if row["paper_params_m"]:  # as rounded in the paper
            assert row["params"] / 1e6 == pytest.approx(float(row["paper_params_m"]), rel=0.023), (
                row
            )
    text = zoo_text(rows).splitlines()
    assert len(text) == len(rows) + 1 and "35.79   36.1" in next(
        line for line in text if "xcit_large" in line
    )


def test_every_row_of_tables_1_and_7_has_a_model():
    named = {(entry.table, entry.row) for entry in ZOO}
    assert {("table1", row["model"]) for row in published_table("table1")} <= named
    assert {
        ("table7", row["model"])
        for row in published_table("table7")
        if "TransMix" not in row["model"]
    } <= named


def test_published_tables_are_whole():
    rows = {
        "table1": 12,
        "table2": 5,
        "table3": 4,
        "table4": 2,
        "table5": 2,
        "table6": 4,
        "table7": 6,
        "table8": 6,
        "table9": 5,
        "table10": 10,
    }
    assert {name: len(published_table(name)) for name in rows} == rows
    assert {path.stem for path in published_dir().glob("*.csv")} == {*rows, "openmixup_deit"}
    for path in published_dir().glob("*.csv"):
        table = published_table(path.stem)
        assert path.read_text().startswith("# ") and all(
            None not in row and None not in row.values() for row in table
        ), path


def test_our_models_are_timms_once_both_are_imported(monkeypatch):
    code = """
import sys, mixbench
assert not {'torch', 'timm'} & set(sys.modules)
import importlib.util
importlib.util.find_spec('timm')  # as libraries do that ask whether it is there
import timm, torch
assert {'pvt_small', 'ca_swin_tiny'} <= set(timm.list_models())
with torch.device('meta'):
    print(sum(p.numel() for p in timm.create_model('pvt_small').parameters()), [f for f in sys.meta_path if 'mixbench' in type(f).__module__])
"""
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "24485864 []\n"
    )
    called = []  # and where timm was first, at once
    monkeypatch.setattr(mixbench.models.register, "_register", lambda: called.append(1))
    before = list(sys.meta_path)
    mixbench.models.register.register_models()
    assert called and sys.meta_path == before


def from_transformers(theirs, ours):
    """transformers' PVT weights under the official names, which `ours` has."""
    state, given = {}, dict(theirs.state_dict())
    blocks = [len(getattr(ours, f"block{stage}")) for stage in range(1, 5)]
    for name in ours.state_dict():
        head, _, rest = name.partition(".")
        stage = int(head[-1]) - 1 if head[-1].isdigit() else None
        if head.startswith("patch_embed"):
            layer = {"proj": "projection", "norm": "layer_norm"}[rest.split(".")[0]]
            source = [f"pvt.encoder.patch_embeddings.{stage}.{layer}.{rest.split('.')[1]}"]
        elif head.startswith("pos_embed"):
            source = [f"pvt.encoder.patch_embeddings.{stage}.position_embeddings"]
        elif head.startswith("block"):
            index, part = rest.split(".", 1)
            assert int(index) < blocks[stage]
            at = f"pvt.encoder.block.{stage}.{index}."
            kind = part.rsplit(".", 1)[1]
            known = {
                "norm1": "layer_norm_1",
                "norm2": "layer_norm_2",
                "attn.q": "attention.self.query",
                "attn.proj": "attention.output.dense",
                "attn.sr": "attention.self.sequence_reduction",
                "attn.norm": "attention.self.layer_norm",
                "mlp.fc1": "mlp.dense1",
                "mlp.fc2": "mlp.dense2",
            }
            part = part.rsplit(".", 1)[0]
            parts = (
                ("attention.self.key", "attention.self.value")
                if part == "attn.kv"
                else (known[part],)
            )
            source = [f"{at}{p}.{kind}" for p in parts]
        else:
            source = [
                {
                    "cls_token": "pvt.encoder.patch_embeddings.3.cls_token",
                    "norm.weight": "pvt.encoder.layer_norm.weight",
                    "norm.bias": "pvt.encoder.layer_norm.bias",
                }.get(name, name.replace("head.", "classifier."))
            ]
        state[name] = torch.cat([given.pop(key) for key in source])
    assert not given, list(given)
    return state


def test_pvt_equals_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.PvtForImageClassification(
        transformers.PvtConfig(num_labels=1000, attn_implementation="eager")
    ).eval()
    ours = timm.create_model("pvt_tiny").eval()
    ours.load_state_dict(from_transformers(theirs, ours))
    for (
        name,
        module,
    ) in theirs.named_modules():  # the official code has two epsilons, transformers one
        if isinstance(module, torch.nn.LayerNorm) and (
            "patch_embeddings" in name or "self.layer_norm" in name
        ):
            module.eps = 1e-5
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad(), mixbench.ClassAttention(ours) as tap:
        expected = theirs(images, output_attentions=True, output_hidden_states=True)
        output = tap(images)
        per_head = tap.per_head()
        pyramid = ours.forward_pyramid(images)
    assert torch.allclose(output.logits, expected.logits, atol=1e-5)
    matrix = expected.attentions[-1]  # (B, heads, 50, 50)
    assert matrix.shape == (2, 8, 50, 50)
    assert torch.allclose(per_head.flatten(2), matrix[:, :, 0, 1:], atol=1e-6)
    assert torch.allclose(output.attn.flatten(1), matrix[:, :, 0, 1:].mean(1), atol=1e-6)
    assert [tuple(m.shape[1:]) for m in pyramid] == [
        (64, 56, 56),
        (128, 28, 28),
        (320, 14, 14),
        (512, 7, 7),
    ]
    for stage, maps in enumerate(
        pyramid[:3]
    ):  # two blocks a stage; only our last one runs without a class token here
        assert torch.allclose(
            maps,
            expected.hidden_states[2 * stage + 1].transpose(1, 2).reshape(maps.shape),
            atol=1e-4,
        )
    ours.cls_token.data += 100
    assert torch.equal(ours.forward_pyramid(images)[3], pyramid[3])


def test_pvt_takes_any_size():
    torch.manual_seed(0)
    model = timm.create_model("pvt_tiny", num_classes=3, depths=(1, 1, 1, 1), img_size=64).eval()
    for size, grid in {
        (64, 64): (2, 2),
        (128, 128): (4, 4),
        (100, 160): (3, 5),
    }.items():  # at 128, stage 2 has as many patches as stage 1 at 64
        with torch.no_grad(), mixbench.ClassAttention(model) as tap:
            output = tap(torch.randn(1, 3, *size))
        assert output.logits.shape == (1, 3) and output.attn.shape == (1, *grid)
    assert model._position(2, (8, 8)) is model.pos_embed2
    ramp = (
        torch.arange(64.0).expand(1, 64, 64).clone()
    )  # each of 64 channels holds the patch's number
    model.pos_embed2.data = ramp.transpose(1, 2).repeat(1, 1, 2)
    bigger = model._position(2, (16, 16))[0, :, 0].unflatten(0, (16, 16))
    inner = (
        torch.arange(16) - 0.5
    ) / 2  # bilinear sampling of a plane is the plane, away from the border
    assert torch.allclose(
        bigger[1:-1, 1:-1], (8 * inner[1:-1, None] + inner[None, 1:-1]), atol=1e-4
    )


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


def test_ca_swin_is_swin_but_for_its_last_block():
    torch.manual_seed(0)
    parts = {"img_size": 64, "embed_dim": 24, "num_classes": 5}
    swin = timm.create_model("swin_tiny_patch4_window7_224", **parts).eval()
    model = timm.create_model("ca_swin_tiny", **parts).eval()
    missing, unexpected = model.load_state_dict(swin.state_dict(), strict=False)
    assert len(missing) == 19 and all(name.startswith("cls_") for name in missing)
    assert len(unexpected) == 13 and all(
        name.startswith("layers.3.blocks.1.") for name in unexpected
    )
    images = torch.randn(2, 3, 64, 64)
    seen = []
    with torch.no_grad():
        swin.layers[-1].blocks[-1].register_forward_pre_hook(lambda m, i: seen.append(i[0]))
        model.cls_block.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
        swin(images), model(images)
        assert torch.equal(seen[0].flatten(1, 2), seen[1])
        token = model.cls_block(seen[1], model.cls_token.expand(2, -1, -1))
        assert torch.allclose(model(images), model.head.fc(model.norm(token)[:, 0]), atol=1e-6)
    assert timm.create_model("ca_swin_tiny").cls_block.drop_path.drop_prob == pytest.approx(0.2)


def test_ca_swin_passes_gradient_to_its_backbone():
    """Spec: with CaiT's layer scale of 1e-5 the backbone's gradient is 1.8e-4, with 1 it is 9.7."""
    norms, spreads = {}, {}
    for scale in (1.0, 1e-5):
        torch.manual_seed(0)
        model = timm.create_model(
            "ca_swin_tiny", img_size=64, embed_dim=24, num_classes=10, ca_layer_scale=scale
        ).eval()
        logits = model(torch.randn(8, 3, 64, 64))
        torch.nn.functional.cross_entropy(logits, torch.arange(8)).backward()
        gradients = [
            p.grad
            for n, p in model.named_parameters()
            if n.startswith(("patch_embed", "layers")) and p.grad is not None
        ]
        norms[scale], spreads[scale] = (
            torch.stack([g.norm() for g in gradients]).norm(),
            logits.std(0).mean(),
        )
    assert norms[1.0] > 0.1 and norms[1.0] > 1e3 * norms[1e-5]
    assert spreads[1.0] > 1e3 * spreads[1e-5]


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
    [learner] = train(create_strategies("transmix"), recipe, data, 0, torch.device("cpu"))
    losses = [row["train_loss"] for row in learner.log]
    assert learner.status == "ok" and losses[-1] < losses[0], losses


def test_each_row_of_the_zoo_has_a_recipe():
    fixed = load_recipe("deit_small")
    recipes = {path.stem: load_recipe(path) for path in config_dir().glob("*.yaml")}
    trained = {recipe.model for recipe in recipes.values()}
    assert {entry.name for entry in ZOO if entry.table != "table6"} <= trained
    for stem, recipe in recipes.items():
        assert timm.is_model(recipe.model), stem
        if stem != "quick" and not stem.startswith(
            "deit_small"
        ):  # a departure says no more than it changes
            assert recipe.speed_model == recipe.model
            written = yaml.safe_load((config_dir() / f"{stem}.yaml").read_text())
            assert not [key for key in written if getattr(recipe, key) == getattr(fixed, key)], stem
