"""Images and objects go through the augmentation together, by draws that say themselves."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection import MaskRCNN
from torchvision.ops import masks_to_boxes

from mixbench.data.coco import Instances, open_detection
from mixbench.data.instances import DetectionAugmentation, instance_loader
from mixbench.data.loaders import set_epoch
from tests.support.coco import write_detection

pytest.importorskip("pycocotools")
PLAIN = DetectionAugmentation(short_side=60, long_side=200, hflip=0.5)
CORNERS = ((5, 10, 25, 40), (0, 0, 12, 8), (20, 30, 40, 60))  # top, left, bottom, right


def rng(seed):
    return torch.Generator().manual_seed(seed)


def scene(corners=CORNERS, height=40, width=60):
    """Boxes of grey levels 60, 120, ... on black, and these as instances; later ones on top."""
    pixels = np.zeros((height, width, 3), np.uint8)
    masks = np.zeros((len(corners), height, width), bool)
    for number, (top, left, bottom, right) in enumerate(corners):
        pixels[top:bottom, left:right] = 60 * (number + 1)
        masks[number, top:bottom, left:right] = True
    boxes = np.array([(left, top, right, bottom) for top, left, bottom, right in corners])
    boxes = boxes.reshape(-1, 4).astype(np.float32)
    labels = np.arange(1, len(corners) + 1, dtype=np.int64)
    return Image.fromarray(pixels), Instances(boxes, labels, masks)


@pytest.mark.parametrize("sides", [(60, 200), (40, 60), (80, 90), (23, 999)])
def test_boxes_and_masks_stay_on_their_object(sides):
    augmentation = dataclasses.replace(PLAIN, short_side=sides[0], long_side=sides[1])
    image, instances = scene(CORNERS[:2])  # they do not overlap
    flips = set()
    for seed in range(12):
        pixels, target = augmentation(image, instances, rng(seed))
        assert type(pixels) is type(target["boxes"]) is type(target["masks"]) is torch.Tensor
        assert pixels.dtype == torch.float32 and pixels.min() >= 0 and pixels.max() <= 1
        assert (
            target["masks"].dtype == torch.uint8 and target["masks"].shape[1:] == pixels.shape[1:]
        )
        assert target["labels"].tolist() == [1, 2]
        assert (target["boxes"] - masks_to_boxes(target["masks"])).abs().max() < 1.5
        for label, mask in zip(target["labels"], target["masks"].bool(), strict=True):
            near = (pixels[0][mask] * 255 - 60 * label).abs() < 4
            assert near.float().mean() > 0.6  # others are at the edges
        flips.add(float(target["boxes"][1, 0]) == 0)
    assert flips == {True, False}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((640, 427), (1199, 800)),
        ((375, 500), (800, 1067)),
        ((300, 640), (625, 1333)),  # the long side is at most 1333
        ((640, 300), (1333, 625)),
        ((800, 800), (800, 800)),
    ],
)
def test_sizes_are_mmdetections(size, expected):
    image, instances = scene((), *size)
    large = DetectionAugmentation(short_side=800, long_side=1333, hflip=0.0)
    pixels, target = large(image, instances, rng(0))
    assert tuple(pixels.shape[1:]) == expected
    assert target["boxes"].shape == (0, 4) and target["masks"].shape == (0, *expected)


def test_a_flip_is_the_mirror_image_and_comes_in_half_of_the_cases():
    image, instances = scene()
    same = dataclasses.replace(PLAIN, short_side=40)
    straight, at = dataclasses.replace(same, hflip=0.0)(image, instances, rng(0))
    assert torch.equal(at["boxes"], torch.from_numpy(instances.boxes))
    mirrored, mirror_at = dataclasses.replace(same, hflip=1.0)(image, instances, rng(0))
    assert torch.equal(mirrored, straight.flip(-1))
    assert torch.equal(mirror_at["masks"], at["masks"].flip(-1))
    left, top, right, bottom = at["boxes"].T
    assert torch.equal(mirror_at["boxes"], torch.stack([60 - right, top, 60 - left, bottom], 1))
    seen = [torch.equal(same(image, instances, rng(seed))[0], mirrored) for seed in range(200)]
    assert 70 < sum(seen) < 130


def test_what_vanishes_in_the_resize_is_left_out():
    small = dataclasses.replace(PLAIN, short_side=20)  # half of the size
    corners = [(5, 5, 6, 20), (0, 0, 12, 8), (7, 9, 9, 11), (4, 5, 5, 20)]
    image, instances = scene(corners)  # of the last a row stays, and half a pixel of its box
    _, target = small(image, instances, rng(0))
    assert target["labels"].tolist() == [2, 3] and target["masks"].shape == (2, 20, 30)
    _, target = small(*scene([(5, 5, 6, 20)]), rng(0))
    assert [len(target[key]) for key in ("boxes", "labels", "masks")] == [0, 0, 0]
    full = Instances(instances.boxes, instances.labels, np.zeros_like(instances.masks))
    _, target = PLAIN(image, full, rng(0))  # large boxes whose masks have no pixel
    assert target["boxes"].shape == (0, 4)


class Backbone(torch.nn.Module):
    out_channels = 8

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3, 16, 1)

    def forward(self, images):
        return {"0": self.convolution(images)}


@pytest.mark.parametrize("corners", [CORNERS, ()])
def test_torchvision_learns_from_targets_also_from_empty_ones(corners):
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    torch.manual_seed(0)
    network = MaskRCNN(
        Backbone(),
        num_classes=4,
        rpn_anchor_generator=AnchorGenerator(((16, 32),), ((1.0,),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
        mask_roi_pool=MultiScaleRoIAlign(["0"], 4, 2),
        min_size=60,
    )
    images, targets = zip(*[PLAIN(*scene(corners), rng(seed)) for seed in (0, 1)], strict=True)
    losses = network(list(images), list(targets))
    sum(losses.values()).backward()
    assert len(losses) == 5 and all(torch.isfinite(loss) for loss in losses.values())
    gradients = [each.grad for each in network.parameters() if each.grad is not None]
    assert gradients and all(torch.isfinite(each).all() for each in gradients)
    assert (losses["loss_mask"] > 0) == bool(corners)


def same(a, b):
    return a[0].equal(b[0]) and all(a[1][key].equal(b[1][key]) for key in a[1] | b[1])


def test_samples_depend_on_seed_epoch_and_image_alone(tmp_path):
    data = open_detection(write_detection(tmp_path))

    def samples(seed, epoch, workers=0, batch=1):
        loader = instance_loader(data.train, PLAIN, batch, seed, workers, torch.device("cpu"))
        set_epoch(loader, epoch)
        batches = list(loader)
        assert all(len(images) == len(targets) == batch for images, targets in batches)
        return [pair for images, targets in batches for pair in zip(images, targets, strict=True)]

    first = samples(0, 1)
    assert len(first) == 3 and first[0][0].shape == (3, 60, 90)
    torch.manual_seed(5)
    for other in (samples(0, 1), samples(0, 1, workers=2), samples(0, 1, batch=3)):
        assert all(map(same, first, other))
    assert len(samples(0, 1, batch=2)) == 2
    plain = DetectionAugmentation(short_side=60, long_side=200, hflip=0.0)
    straight = [plain(data.train.load(i), data.train.instances(i), rng(0)) for i in range(3)]
    flips = set()
    for seed, epoch in ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)):
        by_sum = sorted(samples(seed, epoch), key=lambda each: float(each[0].double().sum()))
        of = sorted(straight, key=lambda each: float(each[0].double().sum()))
        flips.add(tuple(not same(*pair) for pair in zip(by_sum, of, strict=True)))
    assert len(flips) > 2  # an image is mirrored in some epochs, and another with it or not
    with pytest.raises(ValueError, match="batch_size 4 is larger than the 3 training images"):
        samples(0, 0, batch=4)
