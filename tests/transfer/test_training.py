"""Training: the rate, the loss, what is decayed; stopped and gone on with to the same end."""

import dataclasses

import numpy as np
import pytest
import torch

from mixbench.data.label_maps import IGNORED, open_labelled
from mixbench.transfer import training
from mixbench.transfer.candidates import Start
from mixbench.transfer.network import segmentation_network
from mixbench.transfer.recipe import SegmentationRecipe
from mixbench.transfer.segmentation import Segmentation, pixel_loss, poly_rate
from tests.support.coloured import write_folder
from tests.support.transfers import (
    CPU,
    MODEL,
    Stopped,
    equal,
    names_with_decay,
    stopped_at,
    transferred,
)

RECIPE = SegmentationRecipe(
    short_side=40,
    crop_size=32,
    window_stride=24,
    epochs=3,
    batch_size=3,
    opt="adamw",
    lr=1e-3,
    decoder="segmenter",
)


@pytest.fixture
def data(tmp_path):
    return open_labelled(write_folder(tmp_path / "data"))


def trained(data, file, runtime=CPU, recipe=RECIPE, seed=0):
    return transferred(Segmentation(recipe=recipe), data, file, runtime, seed)


def test_the_rate_falls_by_the_power_of_what_is_left():
    recipe = SegmentationRecipe(epochs=4)
    rates = [poly_rate(recipe, step, 20) for step in range(81)]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=recipe.lr - recipe.min_lr)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, 80, 0.9)
    for rate in rates:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"] + recipe.min_lr)
        optimizer.step()
        scheduler.step()
    assert (rates[0], rates[-1]) == (1e-3, 1e-5)


def test_the_loss_is_of_labelled_pixels_alone():
    logits = torch.randn(2, 4, 5, 6, requires_grad=True)
    labels = torch.randint(4, (2, 5, 6))
    labels[0, :2] = IGNORED
    each = -logits.log_softmax(1).gather(1, labels.clamp(max=3)[:, None])[:, 0]
    assert torch.allclose(pixel_loss(logits, labels), each[labels != IGNORED].mean())
    nothing = pixel_loss(logits, torch.full_like(labels, IGNORED))
    nothing.backward()
    assert nothing == 0 and not logits.grad.any()


@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_norms_biases_and_embeddings_are_not_decayed(opt):
    network = segmentation_network(Start(model=MODEL, weights=None), RECIPE, 4, 0)
    optimizer = training.build_optimizer(network, opt, RECIPE.lr, 0.1)
    names = names_with_decay(network, optimizer, 0.1)
    assert "encoder.blocks.0.attn.qkv.weight" in names and "decoder.of_patches" in names
    assert not [name for name in names if name.endswith(("bias", "token", "tokens", "embed"))]
    assert not [name for name in names if "norm" in name]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(
        list(network.parameters())
    )


def test_what_was_stopped_goes_on_to_the_same_weights(data, tmp_path, monkeypatch):
    whole = trained(data, tmp_path / "a.pt")
    monkeypatch.setattr(training, "KEEP_EVERY", 0.0)
    with pytest.raises(Stopped):
        trained(data, tmp_path / "b.pt", dataclasses.replace(CPU, say=stopped_at("epoch 3/3")))
    lines = []
    assert equal(
        whole, trained(data, tmp_path / "b.pt", dataclasses.replace(CPU, say=lines.append))
    )
    assert len(lines) == 1 and "epoch 3/3" in lines[0]
    lines.clear()
    assert equal(
        whole, trained(data, tmp_path / "b.pt", dataclasses.replace(CPU, say=lines.append))
    )
    assert lines == []
    (tmp_path / "b.pt").write_bytes(b"damaged")
    assert equal(
        whole, trained(data, tmp_path / "b.pt", dataclasses.replace(CPU, say=lines.append))
    )
    assert len(lines) == 3
    assert not equal(whole, trained(data, tmp_path / "c.pt", seed=1))


def test_a_loss_that_is_not_finite_ends_it(data, tmp_path):
    recipe = dataclasses.replace(RECIPE, lr=1e30, opt="sgd", decoder="linear", min_lr=0.0)
    with pytest.raises(ValueError, match=r"the loss is \S+ in epoch \d: lower --lr"):
        trained(data, tmp_path / "a.pt", recipe=recipe)
    assert not (tmp_path / "a.pt").exists()


def test_the_encoder_has_its_share_of_the_rate():
    network = segmentation_network(Start(model=MODEL, weights=None), RECIPE, 4, 0)
    optimizer = training.build_optimizer(network, "adamw", 1e-3, 0.1, encoder_scale=0.25)
    shares = {
        id(parameter): group["lr_scale"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    by_part = {"encoder": set(), "decoder": set()}
    for name, parameter in network.named_parameters():
        by_part[name.partition(".")[0]].add(shares[id(parameter)])
    assert by_part == {"encoder": {0.25}, "decoder": {1.0}}


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["linear", "segmenter"])
def test_four_classes_are_learned(decoder, data, tmp_path):
    recipe = SegmentationRecipe(
        short_side=40,
        crop_size=32,
        window_stride=24,
        scale=(1.0, 1.0),
        photometric=False,
        drop_path=0.0,
        decoder_depth=1,
        decoder_drop=0.0,
        epochs=150,
        batch_size=8,
        opt="adamw",
        lr=3e-3,
        decoder=decoder,
    )
    model = dataclasses.replace(MODEL, patch_size=4)
    task = Segmentation(recipe=recipe, ms=True)
    network = transferred(task, data, tmp_path / "x.pt", model=model)
    result = task.measure(network, data, model, CPU)
    figures = {(each.setting, each.metric): each.value for each in result.figures}
    assert figures["single-scale", "miou"] > 90
    assert figures["multi-scale", "miou"] > 80
    ious = [figures[name, "class_iou"] for name in data.classes]
    assert figures["single-scale", "miou"] == pytest.approx(np.mean(ious))
    assert result.images["pixel_accuracy"].shape == (4,)
    assert result.files[".png"].startswith(b"\x89PNG")
