"""Batches of a tiny recipe's loader, and what a model sees of them."""

import torch

from mixbench.data.augment import augment
from mixbench.data.loaders import set_epoch, train_loader
from mixbench.data.normalisation import Normalisation

CPU = torch.device("cpu")


def batches(data, recipe, workers=0, micro=8, epochs=2):
    loader = train_loader(data, recipe, 5, micro, workers, CPU)
    for epoch in range(epochs):
        set_epoch(loader, epoch)
        yield from loader


def augmented(data, recipe, workers=0, micro=8):
    """Every image of two epochs as the model would see it."""
    normalisation = Normalisation.of(recipe.mean, recipe.std)
    return torch.cat(
        [
            images
            if isinstance(images, torch.Tensor)
            else augment(images, normalisation, recipe.remode)
            for images, _ in batches(data, recipe, workers, micro)
        ]
    )
