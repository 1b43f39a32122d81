"""The training of a segmentation network, step by step, which goes on where it was stopped."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from mixbench.data.joint import JointAugmentation, crop_loader
from mixbench.data.label_maps import IGNORED, LabelMaps
from mixbench.data.loaders import readable, set_epoch
from mixbench.files import replacing
from mixbench.mix import hashed_seed
from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.transfer.network import SegmentationNetwork
from mixbench.transfer.recipe import SegmentationRecipe

MOMENTUM = 0.9  # of sgd
KEEP_EVERY = 60.0  # seconds, after which the state is written at an epoch's end
UNDECAYED = ("pos_embed", "cls_token", "reg_token", "dist_token", "class_tokens")


def augmentation_of(recipe: SegmentationRecipe, model: Recipe) -> JointAugmentation:
    """The augmentation of a recipe with the normalisation of a model's."""
    return JointAugmentation(
        short_side=recipe.short_side,
        crop_size=recipe.crop_size,
        scale=recipe.scale,
        cat_max_ratio=recipe.cat_max_ratio,
        hflip=recipe.hflip,
        photometric=recipe.photometric,
        mean=model.mean,
        std=model.std,
    )


def poly_rate(recipe: SegmentationRecipe, step: int, steps: int) -> float:
    """The learning rate of a step of `steps`, from lr towards min_lr."""
    left = (1 - step / steps) ** recipe.poly_power
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * left


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of the pixels that count; 0 where none does, never NaN."""
    total = nn.functional.cross_entropy(
        logits.float(), labels, ignore_index=IGNORED, reduction="sum"
    )
    return total / (labels != IGNORED).sum().clamp(min=1)


def build_optimizer(network: nn.Module, recipe: SegmentationRecipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; biases, norms and embeddings have no weight decay."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        decayed = parameter.ndim > 1 and name.rpartition(".")[2] not in UNDECAYED
        groups[decayed].append(parameter)
    params = [
        {"params": parameters, "weight_decay": recipe.weight_decay if decayed else 0.0}
        for decayed, parameters in groups.items()
    ]
    if recipe.opt == "adamw":
        return torch.optim.AdamW(params, lr=recipe.lr)
    return torch.optim.SGD(params, lr=recipe.lr, momentum=MOMENTUM)


def train_network(
    network: SegmentationNetwork,
    maps: LabelMaps,
    augmentation: JointAugmentation,
    recipe: SegmentationRecipe,
    seed: int,
    file: Path,
    runtime: Runtime,
    name: str,
) -> None:
    """Train a network, on the runtime's device, and write its weights to `file`.

    What the file holds of the same training is gone on from, to the same numbers on a CPU; a file
    that cannot be read is as if it were not there. ValueError where the loss is not finite.
    """
    loader = crop_loader(
        maps, augmentation, recipe.batch_size, seed, runtime.workers, runtime.device
    )
    optimizer = build_optimizer(network, recipe)
    steps = len(loader)
    total = steps * recipe.epochs
    begun = _restore(file, network, optimizer, runtime.device)
    last_kept = time.monotonic()
    for epoch in range(begun, recipe.epochs):
        network.train()
        set_epoch(loader, epoch)
        start, losses = time.monotonic(), []
        for number, (images, labels) in enumerate(readable(loader)):
            step = epoch * steps + number
            for group in optimizer.param_groups:
                group["lr"] = poly_rate(recipe, step, total)
            torch.manual_seed(hashed_seed("transfer", seed, step))  # drop path and dropout
            loss = pixel_loss(
                network(images.to(runtime.device, non_blocking=True)),
                labels.to(runtime.device, non_blocking=True),
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        mean = float(torch.stack(losses).mean())
        if mean != mean or mean in (float("inf"), float("-inf")):
            raise ValueError(f"the loss is {mean} in epoch {epoch + 1}: lower --lr")
        now = time.monotonic()
        runtime.say(
            f"seed {seed}  epoch {epoch + 1}/{recipe.epochs}  {name}  loss {mean:.3f}  "
            f"{(now - start) / steps:.2f} s a step"
        )
        if epoch + 1 == recipe.epochs:
            _keep(file, {"network": network.state_dict(), "epochs": epoch + 1})
        elif now - last_kept >= KEEP_EVERY:
            states = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            _keep(file, states | {"epochs": epoch + 1})
            last_kept = time.monotonic()


def _keep(file: Path, content: dict[str, object]) -> None:
    with replacing(file) as partial:
        torch.save(content, partial)


def _restore(
    file: Path, network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> int:
    """Load what a file holds of this training; the epochs that are done, 0 without a file."""
    if not file.is_file():
        return 0
    try:
        content = torch.load(file, map_location=device, weights_only=True)
    except Exception:  # torch, pickle and zipfile each raise their own for a damaged file
        return 0
    network.load_state_dict(content["network"])
    if "optimizer" in content:
        optimizer.load_state_dict(content["optimizer"])
    return int(content["epochs"])
