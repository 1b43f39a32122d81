"""Decoded images in memory and augmentation on the device: the loader's own pixels, whatever the batch, the workers or the cache."""

import random
from dataclasses import replace

import kills
import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import (
    _RAND_INCREASING_TRANSFORMS,
    _RAND_TRANSFORMS,
    AugmentOp,
    rand_augment_transform,
)
from torch.utils._python_dispatch import TorchDispatchMode

import mixbench.data.memory as data_module
from mixbench import create_strategies
from mixbench.cli import main
from mixbench.data.augment import OPERATIONS, Draw, StandIn, augment, erase, normal_noise
from mixbench.data.datasets import open_data
from mixbench.data.loaders import train_loader
from mixbench.data.memory import MemorySource, keep_in_memory
from mixbench.data.sources import UnreadableImage
from mixbench.data.transforms import train_transform
from mixbench.recipe import load_recipe
from mixbench.training.clock import Waiting
from mixbench.training.loop import train

CPU = torch.device("cpu")
NAMES = list(dict.fromkeys([*_RAND_INCREASING_TRANSFORMS, *_RAND_TRANSFORMS]))
FILL = (124, 116, 104)


def picture(seed, width, height):
    """A smooth colourful picture with noise on it."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return Image.fromarray(
        np.clip(np.asarray(coarse) + rng.normal(0, 9, (height, width, 3)), 0, 255).astype(np.uint8)
    )


def flat_pictures():
    few = np.random.default_rng(0).integers(90, 95, (23, 31, 3)).astype(np.uint8)
    return [
        Image.new("RGB", (31, 23), (7, 7, 200)),
        Image.fromarray(few),
        Image.fromarray(np.where(few > 92, 255, 0).astype(np.uint8)),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of many sizes in both splits, JPEG, PNG, grey and with a palette."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 24), ("val", 3)):
        for label in "ab":
            (root / split / label).mkdir(parents=True)
            for i in range(count // 2 + 1):
                image = picture(100 * ord(label) + 7 * count + i, 40 + 7 * i, 60 - 2 * i)
                image = image.convert({1: "L", 2: "P"}.get(i, "RGB"))
                image.save(root / split / label / f"{i}{'.png' if i % 3 else '.jpg'}")
    return root


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("deit_small", {"image_size": 32, "batch_size": 8})


def batches(data, recipe, workers=0, micro=8, epochs=2):
    loader = train_loader(data, recipe, 5, micro, workers, CPU)
    for epoch in range(epochs):
        loader.batch_sampler.sampler.epoch = epoch
        yield from loader


def augmented(data, recipe, workers=0, micro=8):
    """Every image of two epochs as the model would see it."""
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (recipe.mean, recipe.std))
    return torch.cat(
        [
            x if isinstance(x, torch.Tensor) else augment(x, mean, std, recipe.remode)
            for x, _ in batches(data, recipe, workers, micro)
        ]
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("interpolation", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_operations_are_pillows(name, interpolation):
    images = [*(picture(seed, 31, 23) for seed in range(3)), *flat_pictures()]
    for level in (0.2, 4.5, 7.4) if name.startswith("Posterize") else (0.2, 4.5, 9, 9.7, 10):
        theirs = AugmentOp(
            name,
            prob=1.0,
            magnitude=level,
            hparams={"img_mean": FILL, "interpolation": interpolation},
        )
        if name.startswith("Posterize") and theirs.level_fn(level, {})[0] < 1:
            continue
        expected, found = [], []
        for number, image in enumerate(images):
            random.seed(number)
            expected.append(np.asarray(theirs(image)))
            random.seed(number)
            found.append(drawn_by(theirs)(StandIn(*image.size)))
        [kind] = {one.kinds[0] for one in found}
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        numbers, tables = (
            torch.from_numpy(np.concatenate([getattr(one, part) for one in found]))
            for part in ("numbers", "tables")
        )
        got = OPERATIONS[kind](pixels, numbers, tables)
        assert got.dtype == torch.uint8 and torch.equal(
            got.permute(0, 2, 3, 1), torch.from_numpy(np.stack(expected))
        ), level


def drawn_by(op):
    class OneStep:
        transforms = [None, rand_augment_transform("rand-m9-inc1", {"img_mean": FILL})]

    OneStep.transforms[1].ops = [op]
    return Draw(OneStep).randaugment.ops[0]


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
            0,
            CPU,
            say=said.append,
        )
        learned.append(learner.log[-1]["train_loss"])
        assert (
            any("waiting for images: " in line for line in said) and 0 < learner.loading_share < 1
        )
        assert 0 < learner.train_im_per_sec < 32 / learner.seconds
    assert learned[0] == learned[1]


@pytest.mark.parametrize("mode", ["pixel", "rand"])
def test_erased_boxes_hold_normal_noise(folder, recipe, mode):
    """Boxes are timm's (the constant mode shows them); their noise is each image's own, and nothing else changes."""
    data, erasing = (
        open_data(data=folder),
        replace(recipe, reprob=1.0, image_size=64, augment_on="device", remode=mode),
    )
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


def test_draws_are_distributed_as_timm_says(recipe):
    """Two of 15 operations with replacement, each with probability one half, magnitude 9 with deviation 0.5, cut at 10."""
    draw, count = Draw(train_transform(recipe)), 12_000
    random.seed(0)
    np.random.seed(0)
    kinds, factors = {}, []
    for _ in range(count):
        found = draw.randaugment(StandIn(32, 32))
        for kind, numbers in zip(found.kinds, found.numbers, strict=True):
            kinds[kind] = kinds.get(kind, 0) + 1
            if kind == "Contrast":
                factors.append(numbers[0])
    shares = {
        "AutoContrast": 1,
        "Equalize": 1,
        "Color": 1,
        "Contrast": 1,
        "Sharpness": 1,
        "table": 5,
        "bilinear": 2.5,
        "bicubic": 2.5,
    }
    for kind, share in shares.items():
        assert kinds[kind] == pytest.approx(
            count * share / 15, abs=5 * (count * share / 15) ** 0.5
        ), kind
    magnitude = np.abs(np.array(factors) - 1) / 0.09
    up = np.array(factors) > 1
    assert up.mean() == pytest.approx(0.5, abs=0.09) and magnitude[up].max() == pytest.approx(10)
    assert np.median(magnitude[up]) == pytest.approx(9, abs=0.15) and (
        magnitude[up] > 9.5
    ).mean() == pytest.approx(0.159, abs=0.07)


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
                assert all(
                    i is None or i.dtype == torch.int64 for i in args[1]
                )  # a mask would be counted on the host
            return func(*args, **(kwargs or {}))

    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (recipe.mean, recipe.std))
    device, kinds = replace(recipe, augment_on="device", reprob=1.0), set()
    for raw, _ in batches(open_data(data=folder), device, epochs=6):
        kinds |= {kind for spans in raw.spans for kind in spans}
        with NoWaits():
            augment(raw, mean, std, "pixel")
    assert kinds == set(OPERATIONS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_same_pixels_without_waiting(folder, recipe):
    device = torch.device("cuda")
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (recipe.mean, recipe.std))
    for raw, _ in batches(open_data(data=folder), replace(recipe, augment_on="device")):
        moved, there = raw.to(device), (mean.to(device), std.to(device))
        torch.cuda.set_sync_debug_mode("error")
        try:
            got = augment(moved, *there, "pixel")
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.testing.assert_close(got.cpu(), augment(raw, mean, std, "pixel"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("aa", ["augmix-m5", "original", "3a", "rand-m9-t3a"])
def test_what_the_device_cannot_do_is_refused(aa):
    load_recipe("deit_small", {"aa": aa})
    with pytest.raises(ValueError, match="use augment_on loader"):
        load_recipe("deit_small", {"aa": aa, "augment_on": "device"})


def test_images_in_memory_are_the_same_pixels(folder, recipe, tmp_path):
    """Bit for bit with 0 and 2 workers; the files are not read again."""
    moved = tmp_path / "data"
    moved.symlink_to(folder)
    data, said = open_data(data=moved), []
    expected = augmented(data, recipe)
    kept = keep_in_memory(data, said.append)
    sizes = [data.train.load(i).size for i in range(26)] + [data.val.load(i).size for i in range(4)]
    amount = 3 * sum(w * h for w, h in sizes)
    assert len(said) == 1 and said[0].startswith(
        f"keeping 30 images of {amount / 30 / 1024:.0f} KiB on average, {amount / 2**20:.1f} MiB, in memory: "
    )
    moved.unlink()
    with pytest.raises(UnreadableImage):
        data.train.load(0)
    for workers in (0, 2):
        assert torch.equal(augmented(kept, recipe, workers), expected)
    assert (
        isinstance(kept.val, MemorySource)
        and kept.val.load(3).size == (47, 58)
        and kept.train.levels.is_shared()
    )
    assert (kept.train.labels, kept.train.fingerprint) == (
        data.train.labels,
        data.train.fingerprint,
    )


def test_memory_that_is_not_there_is_refused(folder, monkeypatch):
    data = open_data(data=folder)
    assert data_module.free_memory() > 2**20
    needed = sum(
        3 * s.load(i).width * s.load(i).height
        for s in (data.train, data.val)
        for i in range(len(s.labels))
    )
    monkeypatch.setattr(data_module, "free_memory", lambda: 2 * needed)
    keep_in_memory(data, print, processes=2)
    monkeypatch.setattr(data_module, "free_memory", lambda: 2 * needed - 1)
    with pytest.raises(
        ValueError,
        match=r"--cache ram needs 30 images of .* KiB on average, 2 copies, .* are free: leave it out",
    ):
        keep_in_memory(data, print, processes=2)


def test_an_unreadable_image_is_named_before_training(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "data")
    victim = tmp_path / "data/train/a/3.jpg"
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(UnreadableImage, match=r"3\.jpg"):
        keep_in_memory(open_data(data=tmp_path / "data"), print)


def test_the_command_keeps_images_and_says_how_long_it_waited(tmp_path, capsys):
    assert (
        main(
            [
                "--strategies",
                "cutmix",
                "--mode",
                "accuracy",
                "--out",
                str(tmp_path),
                *kills.TINY,
                "--epochs",
                "1",
                "--cache",
                "ram",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert (
        "keeping 136 images of 3 KiB on average, 0.4 MiB, in memory: " in out
        and "seed 0  waiting for images: " in out
    )


def test_a_wait_counts_where_the_device_has_nothing_to_do(recipe):
    class Event:
        def query(self):
            return self.done

    waiting, event = Waiting(total=10.0), Event()
    waiting.add(1.0)  # on a CPU each does
    waiting.busy = event
    for event.done in (False, True):
        waiting.add(4.0)
    assert waiting.waited == 5.0
    assert waiting.sentence(recipe, False, torch.device("cuda")) == (
        "waiting for images: 50 % of the time: more --workers, --cache ram, --augment-on device would help"
    )
    assert (
        waiting.sentence(recipe, True, CPU)
        == "waiting for images: 50 % of the time: more --workers would help"
    )
    assert Waiting(1.0, 10.0).sentence(recipe, False, CPU) == "waiting for images: 10 % of the time"
