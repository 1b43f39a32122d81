"""CA-Swin against Swin."""

import pytest
import timm
import torch

import mixbench  # noqa: F401  CA-Swin


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
