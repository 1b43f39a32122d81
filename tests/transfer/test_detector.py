"""Mask R-CNN: its parameters, anchors and regions, loss and rate; pictures that it learns."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

from mixbench.models.build import build_model
from mixbench.models.checkpoints import model_record, read_checkpoint
from mixbench.recipe import Recipe
from mixbench.transfer.candidates import Start
from mixbench.transfer.detector import StridedAnchors, detection_loss, detector, learning_rate
from mixbench.transfer.recipe import DetectionRecipe
from mixbench.transfer.training import build_optimizer
from tests.support.shapes import draw
from tests.support.transfers import names_with_decay

SMALL = DetectionRecipe(
    fpn_channels=64,
    box_head_dim=256,
    mask_layers=1,
    anchor_size=8,
    drop_path=0.0,
    rpn_post_nms_top_n_train=256,
    rois_per_image=64,
    short_side=64,
    long_side=96,
)
PARTS = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
VIT = Recipe(model="vit_tiny_patch16_224", image_size=64, **PARTS)
PVT = Recipe(model="pvt_tiny", image_size=64)
CLASSES = 2


def small(model=VIT, weights=None, seed=0, recipe=SMALL):
    return detector(Start(model=model, weights=weights), recipe, CLASSES, seed)


def count(module):
    return sum(each.numel() for each in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"), [("pvt_small", 44_142_581), ("resnet50", 44_400_693)]
)
def test_the_papers_networks_have_the_papers_parameters(name, parameters):
    with torch.device("meta"):
        network = detector(Start(model=Recipe(model=name), weights=None), DetectionRecipe(), 80, 0)
    assert count(network) == parameters


def test_the_defaults_are_torchvisions():
    with torch.device("meta"):
        start = Start(model=Recipe(model="resnet50"), weights=None)
        ours = detector(start, DetectionRecipe(), 80, 0)
        theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=81)

    def shapes(network):
        return {
            name: tuple(each.shape)
            for name, each in network.named_parameters()
            if not name.startswith("backbone.")
        }

    assert shapes(ours) == shapes(theirs)
    assert repr(ours.roi_heads) == repr(theirs.roi_heads)
    assert vars(ours.transform) == vars(theirs.transform)
    assert ours.rpn.anchor_generator.sizes == theirs.rpn.anchor_generator.sizes
    assert ours.rpn.anchor_generator.aspect_ratios == theirs.rpn.anchor_generator.aspect_ratios
    for name in ("nms_thresh", "score_thresh", "min_size"):
        assert getattr(ours.rpn, name) == getattr(theirs.rpn, name)
    assert (ours.rpn._post_nms_top_n["training"], ours.rpn._post_nms_top_n["testing"]) == (
        1000,
        1000,
    )


def test_anchors_are_torchvisions_where_halves_are_whole():
    maps = [torch.zeros(1, 1, 128 // 2**level, 192 // 2**level) for level in range(5)]
    images = ImageList(torch.zeros(2, 3, 512, 768), [(500, 768), (512, 700)])
    with torch.device("meta"):
        theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    ours = StridedAnchors(32, (4, 8, 16, 32, 64))(images, maps)
    for one, two in zip(ours, theirs.rpn.anchor_generator(images, maps), strict=True):
        assert torch.equal(one, two.to(one.dtype))


def test_anchors_lie_around_their_cells():
    maps = [torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 2, 1)]  # the second is every other cell
    [anchors] = StridedAnchors(10, (3.5, 7))(ImageList(torch.zeros(1, 3, 11, 7), [(11, 7)]), maps)
    squares = anchors[1::3]  # of the three ratios
    centres = (squares[:, :2] + squares[:, 2:]) / 2
    first = [[x, y] for y in (0, 3.5, 7) for x in (0, 3.5)]
    assert centres.tolist() == [*first, [0, 0], [0, 7]]
    sides = (squares[:, 2:] - squares[:, :2]).unique(dim=0)
    assert sides.tolist() == [[10, 10], [20, 20]]


def test_regions_are_cut_at_the_maps_strides():
    network = small(dataclasses.replace(VIT, image_size=56, patch_size=14))
    pool = network.roi_heads.box_roi_pool
    maps = {str(level): torch.randn(1, 4, 48 // 2**level, 48 // 2**level) for level in range(4)}
    boxes = torch.tensor([[10.0, 20, 60, 50], [3, 5, 150, 160]])
    found = pool(maps, [boxes], [(33, 40)])  # torchvision would infer the scales from these sizes
    for number, level in enumerate(("0", "1")):  # below 112 px of side, and from there
        box, scale = boxes[number : number + 1], 1 / (3.5 * 2**number)
        expected = roi_align(maps[level], [box], 7, scale, 2)
        assert torch.equal(found[number], expected[0])


def test_images_are_normalised_and_resized_by_the_model_and_the_recipe():
    model = dataclasses.replace(VIT, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    network = small(model)
    images, _ = network.transform([torch.full((3, 32, 40), 0.7), torch.full((3, 90, 30), 0.7)])
    assert images.image_sizes == [(64, 80), (96, 32)]
    assert images.tensors.shape == (2, 3, 96, 96)
    expected = (0.7 - torch.tensor(model.mean)) / torch.tensor(model.std)
    assert torch.allclose(images.tensors[0, :, 5, 5], expected)
    assert not images.tensors[0, :, 64:].any() and not images.tensors[0, :, :, 80:].any()


def test_photographs_are_reduced_as_training_images_are():
    transform = small().transform
    image = torch.zeros(3, 192, 360)
    image[:, :, ::2] = 1  # stripes, which a reduction without antialiasing keeps or loses
    target = {
        "boxes": torch.tensor([[36.0, 48, 180, 96]]),
        "labels": torch.tensor([1]),
        "masks": torch.zeros(1, 192, 360, dtype=torch.uint8),
    }
    target["masks"][0, 48:96, 36:180] = 1
    small_image, small_target = transform.resize(image, target)
    assert small_image.shape == (3, 51, 96)  # the long side allows no more
    assert (small_image[:, 5:-5, 5:-5] - 0.5).abs().max() < 0.1
    ratios = torch.tensor([96 / 360, 51 / 192])
    assert torch.allclose(small_target["boxes"], target["boxes"] * ratios.repeat(2))
    rows, columns = small_target["masks"][0].nonzero(as_tuple=True)
    box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert (small_target["boxes"][0] - box).abs().max() <= 1
    assert target["masks"].shape == (1, 192, 360)  # the caller's is as it was
    again, same = transform.resize(small_image, small_target)
    assert again is small_image and same is small_target


def test_the_same_seed_gives_every_start_the_same_heads(tmp_path):
    one, again, other = small(), small(), small(seed=1)
    state = build_model(VIT.model, 5, 7, image_size=64, **PARTS).state_dict()
    record = model_record(VIT.model, img_size=64, **PARTS)
    torch.save({"state_dict": state, **record}, tmp_path / "x.pt")
    loaded, pvt = small(weights=read_checkpoint(tmp_path / "x.pt")), small(PVT)
    deep = small(dataclasses.replace(VIT, depth=3))
    name = "blocks.0.mlp.fc1.weight"
    assert torch.equal(loaded.backbone.encoder.state_dict()[name], state[name])
    assert not torch.equal(one.backbone.encoder.state_dict()[name], state[name])

    def equal(a, b, *parts):
        one, two = a.state_dict(), b.state_dict()
        names = [name for name in one if name.startswith(parts)]
        assert names
        return all(torch.equal(one[name], two[name]) for name in names)

    assert equal(one, again, "")
    for start in (loaded, deep):
        assert equal(one, start, "backbone.neck", "rpn", "roi_heads")
    assert equal(one, pvt, "rpn", "roi_heads")
    for part in ("backbone.encoder.blocks", "backbone.neck", "rpn", "roi_heads"):
        assert not equal(one, other, part)


def test_the_loss_is_the_sum_of_five():
    network = small()
    images, targets = zip(*map(draw, range(3)), strict=True)
    torch.manual_seed(0)
    losses = network(list(images), list(targets))
    torch.manual_seed(0)
    loss = detection_loss(network, images, targets)
    assert len(losses) == 5 and torch.allclose(loss, sum(losses.values()))


def nothing(height, width):
    return {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, height, width, dtype=torch.uint8),
    }


def only(box, height, width):
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    mask[0, int(box[1]) : int(box[3]) + 1, int(box[0]) : int(box[2]) + 1] = 1
    return {"boxes": torch.tensor([box]), "labels": torch.tensor([1]), "masks": mask}


@pytest.mark.parametrize("model", [VIT, PVT])
@pytest.mark.parametrize(
    "targets",
    [
        [nothing(40, 600), nothing(64, 64)],
        [nothing(40, 600), draw(2)[1]],
        [only([5.0, 5.0, 5.0, 9.0], 40, 600), only([7.0, 9.0, 6.0, 8.0], 64, 64)],  # no area
        [only([5.0, 5.0, 6.0, 6.0], 40, 600), only([0.0, 0.0, 64.0, 1.0], 64, 64)],  # tiny
        [only([3.0, 5.0, 3.2, 5.1], 40, 600), only([0.0, 0.0, 64.0, 64.0], 64, 64)],
    ],
)
def test_the_loss_is_finite_whatever_is_to_be_found(targets, model):
    network = small(model)
    images = [torch.rand(3, *target["masks"].shape[-2:]) for target in targets]
    loss = detection_loss(network, images, targets)
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_boxes_below_a_pixel_are_left_out():
    network = small()
    image, target = draw(0)
    more = {
        "boxes": torch.cat([target["boxes"], torch.tensor([[9.0, 9, 9, 30], [9, 9, 9.9, 30]])]),
        "labels": torch.cat([target["labels"], torch.tensor([1, 2])]),
        "masks": torch.cat([target["masks"], target["masks"]]),
    }
    torch.manual_seed(0)
    expected = detection_loss(network, [image], [target])
    torch.manual_seed(0)
    assert detection_loss(network, [image], [more]) == expected
    assert len(more["boxes"]) == 4  # the caller's is as it was


@pytest.mark.parametrize("steps", [30, 400])
def test_the_rate_warms_up_and_falls_at_milestones(steps):
    recipe = DetectionRecipe(epochs=5, milestones=(2, 4), warmup_steps=100)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=recipe.lr)
    schedulers = [
        torch.optim.lr_scheduler.LinearLR(optimizer, recipe.warmup_ratio, 1.0, 100),
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [2 * steps, 4 * steps], 0.1),
    ]
    for step in range(5 * steps):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(recipe, step, steps) == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        for each in schedulers:
            each.step()
    assert learning_rate(DetectionRecipe(warmup_steps=0), 0, 10) == 2e-4


def test_position_embeddings_of_all_stages_are_not_decayed():
    network = small(PVT)
    optimizer = build_optimizer(network, "adamw", 1e-3, 0.1)
    names = names_with_decay(network, optimizer, 0.1)
    assert "backbone.encoder.block1.0.attn.q.weight" in names
    assert "roi_heads.mask_predictor.conv5_mask.weight" in names
    assert not [name for name in names if "pos_embed" in name or "norm" in name]
    assert not [name for name in names if name.endswith("bias")]


def train(network, pictures, steps, batch, lr):
    optimizer = build_optimizer(network.train(), "adamw", lr, 1e-4)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = lr * (min(1, 5 * (step + 1) / steps) if step < 0.8 * steps else 0.1)
        turn = [pictures[(step * batch + each) % len(pictures)] for each in range(batch)]
        loss = detection_loss(network, *zip(*turn, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("model", [VIT, PVT])
def test_five_steps_reduce_the_loss(model):
    network, pictures = small(model), [draw(0), draw(1)]

    def loss():
        torch.manual_seed(0)  # the same regions are drawn
        with torch.no_grad():
            return float(detection_loss(network, *zip(*pictures, strict=True)))

    before = loss()
    train(network, pictures, 5, 2, 2e-4)
    assert loss() < 0.9 * before


def precision(network, pictures, kind):
    """pycocotools' AP of the network's own proposals, in percent."""
    from pycocotools import mask as mask_tools
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entry(image, box, label, mask):
        left, top, right, bottom = map(float, box)
        return {
            "image_id": image,
            "category_id": int(label),
            "segmentation": mask_tools.encode(np.asfortranarray(mask.numpy().astype(np.uint8))),
            **({} if kind == "segm" else {"bbox": [left, top, right - left, bottom - top]}),
        }

    names = ("boxes", "labels", "masks")
    truths, found = [], []
    for number, (image, target) in enumerate(pictures):
        for box, label, mask in zip(*map(target.get, names), strict=True):
            truth = entry(number, box, label, mask)
            truth |= {"id": len(truths) + 1, "area": float(mask.sum()), "iscrowd": 0}
            truths.append(truth)
        with torch.inference_mode():
            [output] = network.eval()([image])
        assert output["masks"].shape[1:] == (1, *image.shape[1:])
        for box, label, mask, score in zip(*map(output.get, (*names, "scores")), strict=True):
            found.append(entry(number, box, label, mask[0] > 0.5) | {"score": float(score)})
    images = [
        {"id": number, "height": image.shape[1], "width": image.shape[2]}
        for number, (image, _) in enumerate(pictures)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": images,
            "annotations": truths,
            "categories": [{"id": label} for label in (1, 2)],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "steps"), [(VIT, 100), pytest.param(PVT, 150, marks=pytest.mark.fuzz)]
)
def test_eight_pictures_are_learned(model, steps):
    pytest.importorskip("pycocotools")
    pictures = [draw(number) for number in range(8)]
    network = small(model)
    losses = train(network, pictures, steps, 2, 1e-3)
    assert np.mean(losses[-4:]) < 0.3 * losses[0]
    assert precision(network, pictures, "bbox") > 60
    assert precision(network, pictures, "segm") > 60
