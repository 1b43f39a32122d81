"""PVT against transformers."""

import pytest
import timm
import torch

from mixbench import ClassAttention


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
    with torch.no_grad(), ClassAttention(ours) as tap:
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
        with torch.no_grad(), ClassAttention(model) as tap:
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
