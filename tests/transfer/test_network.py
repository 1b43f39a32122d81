"""The network: how many parameters, which weights, and what fits no plain ViT."""

import pytest
import timm
import torch

from mixbench.models.checkpoints import model_record, read_checkpoint
from mixbench.recipe import Recipe
from mixbench.transfer.candidates import Start
from mixbench.transfer.decoders import LinearDecoder, MaskTransformer, build_decoder
from mixbench.transfer.network import build_encoder, segmentation_network
from mixbench.transfer.recipe import SegmentationRecipe

TINY = {"model": "vit_tiny_patch16_224", "embed_dim": 24, "depth": 2, "num_heads": 2}
SMALL = SegmentationRecipe(crop_size=48, window_stride=32, short_side=52, drop_path=0.0)


def tiny(**changes):
    return Recipe(**{**TINY, "image_size": 32, **changes})


def count(module):
    return sum(each.numel() for each in module.parameters())


@pytest.mark.parametrize(
    ("decoder", "whole", "head"),
    [("linear", 21_959_100, 23_100), ("segmenter", 25_951_608, 4_015_608)],
)
def test_deit_small_has_the_papers_parameters(decoder, whole, head):
    recipe = SegmentationRecipe(decoder=decoder)
    with torch.device("meta"):
        network = segmentation_network(Start(model=Recipe(), weights=None), recipe, 60, 0)
    assert count(network.encoder) == 21_936_000
    assert count(network.decoder) == head and count(network) == whole


@pytest.mark.parametrize("decoder", ["linear", "segmenter"])
def test_every_parameter_has_a_gradient(decoder):
    recipe = SegmentationRecipe(decoder=decoder, crop_size=48, window_stride=32)
    network = segmentation_network(Start(model=tiny(), weights=None), recipe, 5, 0)
    logits = network(torch.randn(2, 3, 48, 48))
    assert logits.shape == (2, 5, 48, 48)
    logits.square().sum().backward()
    assert [name for name, each in network.named_parameters() if each.grad is None] == []


def test_logits_are_of_the_last_tokens_after_the_norm():
    network = segmentation_network(Start(model=tiny(), weights=None), SMALL, 5, 0).eval()
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        tokens = network.encoder.forward_features(images)[:, network.encoder.num_prefix_tokens :]
        by_token = network.decoder.head(tokens)  # (B, 9, 5)
        grid = by_token.mT.reshape(2, 5, 3, 3)
        expected = torch.nn.functional.interpolate(
            grid, (48, 48), mode="bilinear", align_corners=False
        )
        assert torch.allclose(network(images), expected, atol=1e-5)


def test_the_mask_transformer_is_the_formula():
    torch.manual_seed(0)
    decoder = MaskTransformer(16, 3, depth=1, drop=0.0).eval()
    tokens = torch.randn(2, 16, 2, 4)
    with torch.no_grad():
        found = decoder(tokens)
        patches = decoder.embed(tokens.flatten(2).transpose(1, 2))
        everything = torch.cat([patches, decoder.class_tokens.repeat(2, 1, 1)], 1)
        everything = decoder.norm(decoder.blocks[0](everything))
        for image in range(2):
            of_patches = everything[image, :8] @ decoder.of_patches
            of_classes = everything[image, 8:] @ decoder.of_classes
            cosines = torch.stack(
                [torch.cosine_similarity(of_patches, each[None]) for each in of_classes], 1
            )
            expected = decoder.norm_classes(cosines)  # (8, 3)
            assert torch.allclose(found[image].flatten(1).T, expected, atol=1e-5)


def test_the_same_seed_gives_every_strategy_the_same_decoder(tmp_path):
    one = segmentation_network(Start(model=tiny(), weights=None), SMALL, 5, 3)
    parts = {name: value for name, value in TINY.items() if name != "model"}
    state = timm.create_model(TINY["model"], img_size=32, num_classes=7, **parts).state_dict()
    record = model_record(TINY["model"], img_size=32, **parts)
    torch.save({"state_dict": state, **record}, tmp_path / "x.pt")
    weights = read_checkpoint(tmp_path / "x.pt")
    two = segmentation_network(Start(model=tiny(), weights=weights), SMALL, 5, 3)
    for a, b in zip(one.decoder.parameters(), two.decoder.parameters(), strict=True):
        assert torch.equal(a, b)
    deep = segmentation_network(Start(model=tiny(depth=3), weights=None), SMALL, 5, 3)
    assert torch.equal(one.decoder.head.weight, deep.decoder.head.weight)
    other = segmentation_network(Start(model=tiny(), weights=None), SMALL, 5, 4)
    assert not torch.equal(one.decoder.head.weight, other.decoder.head.weight)
    assert torch.equal(two.encoder.blocks[0].mlp.fc1.weight, state["blocks.0.mlp.fc1.weight"])
    assert not torch.equal(one.encoder.blocks[0].mlp.fc1.weight, state["blocks.0.mlp.fc1.weight"])
    assert two.encoder.pos_embed.shape == (1, 10, 24)  # of 4 tokens, resampled


@pytest.mark.parametrize(
    ("changes", "crop", "message"),
    [
        ({"model": "resnet18"}, 48, "seg takes a plain ViT .* and resnet18 is none"),
        ({"model": "swin_tiny_patch4_window7_224", "image_size": 224}, 224, "is none"),
        ({}, 50, "crop_size 50 must be a multiple of .*16.* take --crop-size 48 or 64"),
    ],
)
def test_what_does_not_fit_is_said(changes, crop, message):
    parts = {} if changes else {k: v for k, v in TINY.items() if k != "model"}
    recipe = SegmentationRecipe(crop_size=crop, window_stride=crop)
    model = Recipe(**{"model": TINY["model"], "image_size": 32, **parts, **changes})
    with pytest.raises(ValueError, match=message):
        build_encoder(model, recipe, 0)


def test_weights_of_another_model_are_refused(tmp_path):
    state = timm.create_model("vit_tiny_patch16_224", depth=1).state_dict()
    torch.save(state, tmp_path / "x.pth")
    start = Start(model=tiny(), weights=read_checkpoint(tmp_path / "x.pth"))
    with pytest.raises(ValueError, match=r"checkpoint .*x\.pth does not fit vit_tiny"):
        segmentation_network(start, SMALL, 5, 0)


def test_the_decoder_is_the_recipes():
    assert isinstance(build_decoder(SMALL, 24, 5), LinearDecoder)
    deep = SegmentationRecipe(decoder="segmenter", decoder_depth=3)
    assert len(build_decoder(deep, 24, 5).blocks) == 3
