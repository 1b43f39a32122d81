"""The training of a task's network, step by step, which goes on where it was stopped."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mixbench.data.loaders import readable, set_epoch
from mixbench.files import replacing
from mixbench.mix import hashed_seed
from mixbench.runtime import Runtime

MOMENTUM = 0.9  # of sgd
KEEP_EVERY = 60.0  # seconds, after which the state is written at an epoch's end
UNDECAYED = ("cls_token", "reg_token", "dist_token", "class_tokens")  # and position embeddings


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a task brings to the common steps."""

    loader: DataLoader[Any]  # the batches of the epoch that `set_epoch` says
    loss: Callable[[Any, Any, torch.device], Tensor]  # of the network and a batch
    optimizer: torch.optim.Optimizer
    rate: Callable[[int, int], float]  # of a step, and how many make an epoch
    epochs: int


def build_optimizer(
    network: nn.Module, opt: str, lr: float, weight_decay: float, encoder_scale: float = 1.0
) -> torch.optim.Optimizer:
    """AdamW or SGD of what is not frozen; biases, norms and embeddings have no weight decay.

    The encoder's rate is `encoder_scale` of the others'; a group's `lr_scale` says so.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            last = name.rpartition(".")[2]
            embeds = last in UNDECAYED or last.startswith("pos_embed")  # PVT has four
            decayed = parameter.ndim > 1 and not embeds
            of_encoder = "encoder" in name.split(".")
            groups.setdefault((decayed, of_encoder), []).append(parameter)
    params = [
        {
            "params": parameters,
            "weight_decay": weight_decay if decayed else 0.0,
            "lr_scale": encoder_scale if of_encoder else 1.0,
        }
        for (decayed, of_encoder), parameters in groups.items()
    ]
    if opt == "adamw":
        return torch.optim.AdamW(params, lr=lr)
    return torch.optim.SGD(params, lr=lr, momentum=MOMENTUM)


def train_network(
    network: nn.Module, training: Training, seed: int, file: Path, runtime: Runtime, name: str
) -> None:
    """Train a network, on the runtime's device, and write its weights to `file`.

    What the file holds of the same training is gone on from, to the same numbers on a CPU; a file
    that cannot be read is as if it were not there. ValueError where the loss is not finite.
    """
    loader, optimizer, epochs = training.loader, training.optimizer, training.epochs
    steps = len(loader)
    begun = _restore(file, network, optimizer, runtime.device)
    last_kept = time.monotonic()
    for epoch in range(begun, epochs):
        network.train()
        set_epoch(loader, epoch)
        start, losses = time.monotonic(), []
        for number, batch in enumerate(readable(loader)):
            step = epoch * steps + number
            for group in optimizer.param_groups:
                group["lr"] = training.rate(step, steps) * group["lr_scale"]
            torch.manual_seed(hashed_seed("transfer", seed, step))  # drop path, dropout, samplers
            loss = training.loss(network, batch, runtime.device)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise ValueError(f"the loss is {mean} in epoch {epoch + 1}: lower --lr")
        now = time.monotonic()
        runtime.say(
            f"seed {seed}  epoch {epoch + 1}/{epochs}  {name}  loss {mean:.3f}  "
            f"{(now - start) / steps:.2f} s a step, {peak_memory(runtime.device):.1f} GiB"
        )
        if epoch + 1 == epochs:
            _keep(file, {"network": network.state_dict(), "epochs": epoch + 1})
        elif now - last_kept >= KEEP_EVERY:
            states = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            _keep(file, states | {"epochs": epoch + 1})
            last_kept = time.monotonic()


def peak_memory(device: torch.device) -> float:
    """The most GiB so far: what tensors had of a GPU, or what the process had of a CPU's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource  # Windows lacks it

    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


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
