"""Pictures of red boxes and blue discs, with what Mask R-CNN learns them from."""

import numpy as np
import torch

COLOURS = np.float32([[0.9, 0.1, 0.1], [0.1, 0.2, 0.9]])  # of labels 1 and 2
SIZES = ((64, 96), (96, 64), (80, 80))  # height and width, by turns


def shape(label, top, left, height, width, size):
    """The pixels of a box (label 1) or a disc (2), a mask (H, W)."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    y, x = (y - top) / height, (x - left) / width
    if label == 2:
        return (2 * y - 1) ** 2 + (2 * x - 1) ** 2 <= 1
    return (y > 0) & (y < 1) & (x > 0) & (x < 1)


def draw(number):
    """An image (3, H, W) with a shape in each half, and its target."""
    rng, size = np.random.default_rng(number), SIZES[number % len(SIZES)]
    image = rng.uniform(0.35, 0.65, (3, *size)).astype(np.float32)
    masks, labels, boxes = [], [], []
    for half in (0, size[1] // 2):
        height, width = map(int, rng.integers(18, 32, 2))
        top = int(rng.integers(0, size[0] - height))
        left = half + int(rng.integers(0, size[1] // 2 - width + 1))
        labels.append(int(rng.integers(1, 3)))
        masks.append(shape(labels[-1], top, left, height, width, size))
        boxes.append([left, top, left + width, top + height])
        image[:, masks[-1]] = COLOURS[labels[-1] - 1][:, None]
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "labels": torch.tensor(labels),
        "masks": torch.from_numpy(np.stack(masks).astype(np.uint8)),
    }
    return torch.from_numpy(image), target
