"""A frozen model over images of other sizes than its own, against torchvision's resizing."""

import pytest
import torch
from torchvision.transforms.v2.functional import InterpolationMode, resize

from mixbench.models.build import build_model
from mixbench.models.checkpoints import model_record
from mixbench.services.attention import ClassAttention
from mixbench.services.frozen_attention import FrozenAttention

CPU = torch.device("cpu")
PARTS = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


@pytest.fixture
def provider(tmp_path):
    model = build_model("vit_tiny_patch16_224", 5, 0, image_size=32, **PARTS)
    record = model_record("vit_tiny_patch16_224", img_size=32, **PARTS)
    torch.save({"state_dict": model.state_dict(), **record}, tmp_path / "provider.pt")
    return model.eval(), str(tmp_path / "provider.pt")


@pytest.mark.parametrize("side", [32, 20, 50])
def test_images_are_seen_at_the_providers_size(provider, side):
    model, file = provider
    pixels = torch.rand(3, 3, side, side)
    own = pixels
    if side != 32:
        own = resize(pixels, [32, 32], InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(model.default_cfg[name])[:, None, None] for name in ("mean", "std"))
    with ClassAttention(model) as tap, torch.no_grad():
        tap((own - mean) / std)
        expected = tap.per_head()
    heads = FrozenAttention(file, CPU)(pixels)
    assert heads.shape == (3, 3, 4, 4) and not heads.requires_grad
    assert torch.allclose(heads, expected, atol=1e-6)


def test_a_file_says_how_its_images_were_normalised(provider):
    model, file = provider
    content = torch.load(file) | {"preprocessing": {"mean": [0.1, 0.2, 0.3], "std": [0.4] * 3}}
    torch.save(content, file)
    pixels = torch.rand(2, 3, 32, 32)
    with ClassAttention(model) as tap, torch.no_grad():
        tap((pixels - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.4)
        expected = tap.per_head()
    assert torch.allclose(FrozenAttention(file, CPU)(pixels), expected, atol=1e-6)


def test_unknown_names():
    with pytest.raises(ValueError, match="saliency 'dinoo' is no provider and no file of weights"):
        FrozenAttention("dinoo", CPU)
