"""Pictures for saliency, what OpenCV finds in them, and a network small enough for a test."""

import numpy as np
import pytest
import timm
import torch

from mixbench import create_strategy, make_context, step_rng
from mixbench.mix import MixContext
from mixbench.testing import MEAN, STD


def noise(size, batch=2, seed=0):
    return torch.randint(
        256, (batch, 3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def scene(size, batch=2):
    """Smooth backgrounds with bright and dark shapes, a sensor's noise on top."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: size[0], : size[1]]
    pictures = []
    for _ in range(batch):
        light = 120 + 60 * np.sin(x / 17 + rng.uniform(0, 6)) * np.cos(y / 23 + rng.uniform(0, 6))
        picture = light[..., None] * rng.uniform(0.6, 1.2, 3)
        for _ in range(4):
            inside = np.hypot(
                y - rng.uniform(0, size[0]), x - rng.uniform(0, size[1])
            ) < rng.uniform(2, 20)
            picture[inside] = rng.uniform(0, 255, 3)
        pictures.append(np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def normalised(pixels):
    return (pixels.float() / 255 - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(
        3, 1, 1
    )


def opencv_detector():
    """OpenCV's detector of fine-grained saliency; the test is skipped without it."""
    cv2 = pytest.importorskip("cv2", reason="needs opencv-contrib-python")
    if not hasattr(cv2, "saliency"):
        pytest.skip("this OpenCV has no saliency module: needs opencv-contrib-python")
    return cv2.saliency.StaticSaliencyFineGrained_create()


def of_opencv(detector, images):
    """OpenCV's map of each image (B, 3, H, W) RGB."""
    return np.stack(
        [
            detector.computeSaliency(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))[1]
            for image in images
        ]
    )


def tiny_network(folder):
    """The name of a tiny network whose weights are in a file, batch norms far from the identity."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    path = folder / "tiny.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    return f"test_resnet:{path}"


def mix(strategy, images, labels=None, step=0, **services):
    strategy = create_strategy(strategy) if isinstance(strategy, str) else strategy
    labels = torch.arange(len(images)) if labels is None else labels
    if services:
        mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
        ctx = MixContext(rng=step_rng(0, step), mean=mean, std=std, **services)
    else:
        ctx = make_context(
            strategy, torch.nn.Identity(), images, seed=0, step=step, mean=MEAN, std=STD
        )
    return strategy.mix(images, labels, ctx)
