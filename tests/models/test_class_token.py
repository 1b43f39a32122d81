"""The patches that models make of images."""

import pytest
import timm

import mixbench  # noqa: F401  PVT
from mixbench.models.class_token import patch_grid, patches_of


@pytest.mark.parametrize(
    ("name", "parts", "grid", "seen"),
    [
        ("deit_tiny_patch16_224", {"img_size": 64, "depth": 1}, (4, 4), True),
        ("vit_base_patch16_siglip_224", {"img_size": 64, "depth": 1}, (4, 4), False),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "embed_dim": 24}, (16, 16), False),
        ("pvt_tiny", {"img_size": 64, "depths": (1, 1, 1, 1)}, (2, 2), True),
        ("test_resnet", {}, None, False),
        ("poolformer_s12", {}, None, False),
    ],
)
def test_patches_are_there_without_a_class_token_too(name, parts, grid, seen):
    model = timm.create_model(name, num_classes=2, **parts)
    assert patches_of(model, 64, 64) == grid
    assert patch_grid(model, 64, 64) == (grid if seen else None)
