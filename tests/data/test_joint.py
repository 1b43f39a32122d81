"""Images and labels go through the augmentation together, by draws that say themselves."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from mixbench.data.joint import (
    JointAugmentation,
    crop_loader,
    distorted,
    one_sided,
    resized,
    tensors,
)
from mixbench.data.label_maps import IGNORED, open_labelled
from mixbench.data.loaders import set_epoch
from tests.support.coloured import COLOURS, coloured, write_folder

PLAIN = JointAugmentation(
    short_side=40,
    crop_size=32,
    scale=(1.0, 1.0),
    cat_max_ratio=1.0,
    hflip=0.5,
    photometric=False,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def pair(seed=0, **size):
    return map(Image.fromarray, coloured(np.random.default_rng(seed), **size))


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0)])
def test_pixels_keep_the_colour_of_their_label(scale):
    augmentation = dataclasses.replace(PLAIN, scale=scale)
    image, labels = pair(cell=20)
    flips = set()
    for seed in range(20):
        pixels, classes = augmentation(image, labels, rng(seed))
        assert pixels.shape == (3, 32, 32) and classes.shape == (32, 32)
        assert type(pixels) is type(classes) is torch.Tensor
        known = classes != IGNORED
        colours = torch.from_numpy(COLOURS.astype(np.float32))[classes[known]]
        near = (255 * pixels.movedim(0, -1)[known] - colours).abs().amax(-1) < 45
        assert near.float().mean() > 0.75  # others are at the edges of blocks
        assert not pixels[:, ~known].any()
        flips.add(float(pixels.sum()))
    assert len(flips) > 10


def test_half_of_the_images_are_mirrored():
    image, labels = pair(height=32, width=32)
    whole = dataclasses.replace(PLAIN, short_side=32)
    straight = torch.from_numpy(np.asarray(labels).copy()).long()
    seen = [whole(image, labels, rng(seed))[1] for seed in range(200)]
    mirrored = sum(torch.equal(each, straight.flip(-1)) for each in seen)
    assert all(torch.equal(each, straight) or torch.equal(each, straight.flip(-1)) for each in seen)
    assert 70 < mirrored < 130


def test_a_small_image_is_filled_up():
    image, labels = pair()
    small = dataclasses.replace(PLAIN, scale=(0.5, 0.5), hflip=0.0, mean=(0.5, 0.5, 0.5))
    pixels, classes = small(image, labels, rng(0))
    assert (classes[:20, :28] != IGNORED).all() and (classes[20:] == IGNORED).all()
    assert (classes[:, 28:] == IGNORED).all()
    assert not pixels[:, 20:].any() and not pixels[:, :, 28:].any() and pixels[:, :20, :28].any()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((375, 500), [520, 693]),
        ((500, 375), [693, 520]),
        ((100, 1600), [260, 4160]),  # the long side is at most 8 * 520
        ((480, 480), [520, 520]),
    ],
)
def test_the_short_side_is_as_long_as_asked(size, expected):
    assert resized(*size, 520) == expected


def test_one_class_may_not_fill_the_crop():
    half = torch.zeros(1, 4, 4, dtype=torch.uint8)
    half[0, :2] = 1
    assert not one_sided(half, 0.75) and one_sided(half, 0.5)
    assert one_sided(torch.zeros_like(half), 1.0)
    assert one_sided(torch.full_like(half, IGNORED), 0.75)
    quarter = torch.full_like(half, IGNORED)
    quarter[0, 0], quarter[0, 1] = 2, 3  # what is not labelled does not count
    assert not one_sided(quarter, 0.75)


def test_crops_are_drawn_again_where_one_class_fills_them():
    labels = np.zeros((32, 250), np.uint8)
    labels[:, 115:130] = 1  # seen by one crop in five
    image, maps = Image.new("RGB", (250, 32)), Image.fromarray(labels)
    strict = dataclasses.replace(PLAIN, short_side=32, cat_max_ratio=0.99)
    both = [len(strict(image, maps, rng(seed))[1].unique()) == 2 for seed in range(100)]
    assert sum(both) > 70  # of single tries 21


def test_colours_change_within_their_bounds():
    image, labels = pair(height=16, width=16)
    pixels, _ = tensors(image, labels)
    plain = pixels.float() / 255
    results = [distorted(pixels, rng(seed)) for seed in range(60)]
    for each in results:
        assert each.dtype == torch.float32 and each.min() >= 0 and each.max() <= 1
    unchanged = sum(torch.allclose(each, plain, atol=1e-6) for each in results)
    assert 0 < unchanged < 15  # a sixteenth of them
    assert torch.equal(distorted(pixels, rng(3)), distorted(pixels, rng(3)))


def test_crops_depend_on_seed_epoch_and_image_alone(tmp_path):
    data = open_labelled(write_folder(tmp_path))

    def batches(seed, epoch, workers=0, batch=3):
        loader = crop_loader(data.train, PLAIN, batch, seed, workers, torch.device("cpu"))
        set_epoch(loader, epoch)
        return list(loader)

    first = batches(0, 1)
    assert len(first) == 2 and first[0][0].shape == (3, 3, 32, 32)
    torch.manual_seed(5)
    for other in (batches(0, 1), batches(0, 1, workers=2)):
        assert all(
            torch.equal(a, b)
            for one, two in zip(first, other, strict=True)
            for a, b in zip(one, two, strict=True)
        )
    crops = [batches(*key, batch=8)[0][0].sum((1, 2, 3)) for key in ((0, 1), (1, 1), (0, 2))]
    for other in crops[1:]:  # of the same images, in another order
        assert not torch.equal(crops[0].sort().values, other.sort().values)


def test_too_few_images_for_a_batch(tmp_path):
    data = open_labelled(write_folder(tmp_path))
    with pytest.raises(ValueError, match="batch_size 9 is larger than the 8 training images"):
        crop_loader(data.train, PLAIN, 9, 0, 0, torch.device("cpu"))
