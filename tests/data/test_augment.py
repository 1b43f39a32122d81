"""Augmentation on the device: the loader's own pixels, whatever the batch and the workers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mixbench import create_strategies
from mixbench.data.augment import augment, erase, normal_noise
from mixbench.data.datasets import open_data
from mixbench.data.normalisation import Normalisation
from mixbench.data.operations import OPERATIONS
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime
from mixbench.training.loop import train
from tests.support.batches import CPU, augmented, batches


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photographs):
    return photographs(tmp_path_factory.mktemp("photographs") / "data")


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("deit_small", {"image_size": 32, "batch_size": 8})


def test_the_device_makes_the_loaders_pixels(folder, recipe):
    """Exactly, with everything that DeiT's recipe draws, whatever the batch and the workers."""
    data = open_data(data=folder)
    for changes in (
        {},
        {"aa": None, "hflip": 0.0},
        {"aa": "rand-m5-n3-p0.9", "train_interpolation": "bicubic", "aug_repeats": 3},
        {"reprob": 0.7, "remode": "const", "recount": 3},
    ):
        loader = replace(recipe, **changes)
        expected = augmented(data, loader)
        device = replace(loader, augment_on="device")
        assert len(expected) >= 32 and torch.equal(augmented(data, device), expected)
        assert torch.equal(augmented(data, device, micro=4), expected)
    assert torch.equal(augmented(data, device, workers=2), expected)


def test_training_is_the_same_on_either_side(folder):
    recipe = load_recipe(
        "quick",
        {
            "embed_dim": 24,
            "depth": 1,
            "epochs": 1,
            "batch_size": 8,
            "micro_batch": 4,
            "aa": "rand-m9-mstd0.5-inc1",
        },
    )
    learned = []
    for where in ("loader", "device"):
        said = []
        [learner] = train(
            create_strategies("transmix"),
            replace(recipe, augment_on=where),
            open_data(data=folder),
            Runtime(device=CPU, say=said.append),
        )
        learned.append(learner.log[-1].train_loss)
        assert (
            any("waiting for images: " in line for line in said) and 0 < learner.loading_share < 1
        )
        assert 0 < learner.train_im_per_sec < 32 / learner.seconds
    assert learned[0] == learned[1]


@pytest.mark.parametrize("mode", ["pixel", "rand"])
def test_erased_boxes_hold_normal_noise(folder, recipe, mode):
    """Boxes are timm's (the constant mode shows them), and nothing but their noise changes."""
    data = open_data(data=folder)
    erasing = replace(recipe, reprob=1.0, image_size=64, augment_on="device", remode=mode)
    clean, const, noisy = (
        augmented(data, r)
        for r in (replace(erasing, reprob=0.0), replace(erasing, remode="const"), erasing)
    )
    inside = const != clean
    assert torch.equal(noisy.where(~inside, 0), clean.where(~inside, 0)) and not (noisy == 0).any()
    assert torch.equal(augmented(data, erasing, micro=4), noisy) and not torch.equal(
        noisy[:24], noisy[24:]
    )
    erased = [
        image[channel][inside[i, channel]] for i, image in enumerate(noisy) for channel in range(3)
    ]
    assert (
        all(values.min() == values.max() for values in erased)
        if mode == "rand"
        else all(0.6 < values.std() < 1.4 for values in erased)
    )


def test_noise_is_normal_and_belongs_to_the_image():
    from scipy.stats import kstest

    seeds = torch.tensor([1, 2, 2**62 - 1])
    noise = normal_noise(seeds, 30_000)
    assert all(kstest(row.numpy(), "norm").pvalue > 1e-3 for row in noise)
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.03
    assert abs(np.corrcoef(noise[:, 1:].flatten(), noise[:, :-1].flatten())[0, 1]) < 0.02
    assert torch.equal(normal_noise(seeds[1:2], 100)[0], noise[1, :100])


def test_two_boxes_of_one_image_hold_different_noise():
    boxes = torch.tensor([[[0, 0, 4, 8], [4, 0, 8, 8]]])
    erased = erase(torch.zeros(1, 3, 8, 8), boxes, torch.tensor([9]), "pixel")
    assert not torch.equal(erased[:, :, :4], erased[:, :, 4:]) and (erased != 0).all()
    assert torch.equal(
        erase(torch.ones(1, 3, 8, 8), boxes[:, :1], torch.tensor([9]), "const")[0, :, :, 0].sum(1),
        torch.full((3,), 4.0),
    )


def test_augmenting_never_waits_for_the_device(folder, recipe):
    class NoWaits(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.overloadpacket.__name__
            assert name not in (
                "_local_scalar_dense",
                "nonzero",
                "masked_select",
                "unique",
                "_unique2",
                "bincount",
                "repeat_interleave",
            ), name
            if name in ("index", "index_put", "index_put_"):
                # a mask would be counted on the host
                assert all(i is None or i.dtype == torch.int64 for i in args[1])
            return func(*args, **(kwargs or {}))

    normalisation = Normalisation.of(recipe.mean, recipe.std)
    device, kinds = replace(recipe, augment_on="device", reprob=1.0), set()
    for raw, _ in batches(open_data(data=folder), device, epochs=6):
        kinds |= {kind for spans in raw.spans for kind in spans}
        with NoWaits():
            augment(raw, normalisation, "pixel")
    assert kinds == set(OPERATIONS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_same_pixels_without_waiting(folder, recipe):
    device = torch.device("cuda")
    normalisation = Normalisation.of(recipe.mean, recipe.std)
    for raw, _ in batches(open_data(data=folder), replace(recipe, augment_on="device")):
        moved, there = raw.to(device), normalisation.to(device)
        torch.cuda.set_sync_debug_mode("error")
        try:
            got = augment(moved, there, "pixel")
        finally:
            torch.cuda.set_sync_debug_mode("default")
        expected = augment(raw, normalisation, "pixel")
        torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("aa", ["augmix-m5", "original", "3a", "rand-m9-t3a"])
def test_what_the_device_cannot_do_is_refused(aa):
    load_recipe("deit_small", {"aa": aa})
    with pytest.raises(ValueError, match="use augment_on loader"):
        load_recipe("deit_small", {"aa": aa, "augment_on": "device"})
