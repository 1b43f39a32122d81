"""Mask R-CNN on a classifier's pyramid: the network, the loss of a batch, the rate of a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper
from torchvision.transforms.v2 import InterpolationMode, functional

from mixbench.data.coco import LEAST
from mixbench.data.joint import resized
from mixbench.mix import hashed_seed
from mixbench.transfer.candidates import Start
from mixbench.transfer.pyramids import LEVELS, build_pyramid
from mixbench.transfer.recipe import DetectionRecipe

RATIOS = (0.5, 1.0, 2.0)  # of an anchor's height to its width
BOX_GRID, MASK_GRID = 7, 14  # cells on a side of a region
SAMPLES = 2  # of a cell, on a side
GAMMA = 0.1  # factor of the rate at a milestone


class StridedAnchors(AnchorGenerator):
    """Anchors around the cells of maps whose strides are given.

    torchvision's own divide the image's side by the map's: 48 for 64 where an odd map was halved,
    and 3 for 3.5.
    """

    def __init__(self, smallest: int, strides: Sequence[float]):
        sizes = tuple((smallest * 2**level,) for level in range(len(strides)))
        super().__init__(sizes, (RATIOS,) * len(strides))
        self.strides = tuple(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """The anchors of each image, (N, 4) left, top, right and bottom, finest maps first."""
        dtype, device = feature_maps[0].dtype, feature_maps[0].device
        self.set_cell_anchors(dtype, device)
        steps = [[torch.tensor(stride, dtype=dtype, device=device)] * 2 for stride in self.strides]
        grids = [list(each.shape[-2:]) for each in feature_maps]
        anchors = torch.cat(self.grid_anchors(grids, steps))
        return [anchors for _ in image_list.image_sizes]


class AntialiasedTransform(GeneralizedRCNNTransform):
    """Normalises, resizes and pads; images of the size that is wanted stay as they are.

    torchvision's own resizes without antialiasing: a photograph that is reduced to a fifth looks
    otherwise than the training images, which are resized when they are loaded.
    """

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """An image (3, H, W) and its target at the size that `data.joint.resized` says."""
        old = list(image.shape[-2:])
        new = resized(old[0], old[1], self.min_size[0], long_side=self.max_size)
        if old == new:
            return image, target
        image = functional.resize(image, new, antialias=True)
        if target is not None:
            masks = functional.resize(target["masks"], new, InterpolationMode.NEAREST)
            target = {**target, "boxes": resize_boxes(target["boxes"], old, new), "masks": masks}
        return image, target


def detector(start: Start, recipe: DetectionRecipe, num_classes: int, seed: int) -> MaskRCNN:
    """The network as its training begins; label 0 is the background, 1 to num_classes the classes.

    Images are (3, H, W) from 0 to 1, of any size: it normalises as the start's model does, resizes
    and pads. The heads' initial weights are the same for the same seed, whatever the start.
    ValueError where the model has no pyramid, or the weights do not fit it.

    Differs: mmdet, which the paper's figures come from, has L1 as loss of the boxes (here
    smooth-L1, quadratic below 1/9), samples a cell as often as it has pixels (here 2 x 2) and
    shifts regions by half a pixel.
    """
    pyramid = build_pyramid(start, recipe, seed)
    torch.manual_seed(hashed_seed("heads", seed))
    channels, dim = recipe.fpn_channels, recipe.box_head_dim
    network = MaskRCNN(
        pyramid,
        rpn_anchor_generator=StridedAnchors(recipe.anchor_size, pyramid.strides),
        rpn_head=RPNHead(channels, len(RATIOS)),
        rpn_post_nms_top_n_train=recipe.rpn_post_nms_top_n_train,
        box_roi_pool=_region_pool(BOX_GRID, pyramid.strides),
        box_head=TwoMLPHead(channels * BOX_GRID**2, dim),
        box_predictor=FastRCNNPredictor(dim, num_classes + 1),
        box_batch_size_per_image=recipe.rois_per_image,
        mask_roi_pool=_region_pool(MASK_GRID, pyramid.strides),
        mask_head=MaskRCNNHeads(channels, (channels,) * recipe.mask_layers, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, num_classes + 1),
    )
    network.transform = AntialiasedTransform(
        recipe.short_side,
        recipe.long_side,
        list(start.model.mean),
        list(start.model.std),
        size_divisible=pyramid.divisor,
    )
    return network


def _region_pool(side: int, strides: Sequence[float]) -> MultiScaleRoIAlign:
    """A pool of regions to side x side cells.

    torchvision would take the scales of the maps from the first batch, rounded to powers of two,
    and wrongly so for small images and for patches of 14.
    """
    pool = MultiScaleRoIAlign(list(LEVELS), side, SAMPLES)
    pool.scales = [1 / stride for stride in strides[: len(LEVELS)]]
    pool.map_levels = initLevelMapper(2, 5)
    return pool


def detection_loss(
    network: nn.Module, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]
) -> Tensor:
    """The sum of the five losses of a batch; finite also where nothing is to be found.

    A target has boxes (N, 4) left, top, right and bottom in pixels of its image, labels (N,) from
    1 and masks (N, H, W). Boxes with a side below LEAST are left out, as in mmdet.
    """
    losses = network(list(images), [_large_enough(each) for each in targets])
    return torch.stack(list(losses.values())).sum()


def _large_enough(target: dict[str, Tensor]) -> dict[str, Tensor]:
    boxes = target["boxes"]
    large = (boxes[:, 2:] - boxes[:, :2] >= LEAST).all(1)
    return {name: target[name][large] for name in ("boxes", "labels", "masks")}


def learning_rate(recipe: DetectionRecipe, step: int, steps_per_epoch: int) -> float:
    """The rate of a step: a linear warm-up, and a tenth after each milestone."""
    rate = recipe.lr
    for milestone in recipe.milestones:
        if step >= milestone * steps_per_epoch:
            rate *= GAMMA
    if step < recipe.warmup_steps:
        rate *= recipe.warmup_ratio + (1 - recipe.warmup_ratio) * step / recipe.warmup_steps
    return rate
