"""Figures."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mixbench.mix import make_context, to_pixels
from mixbench.train import Learner


@torch.no_grad()
def mixed_grid(
    learners: list[Learner], images: torch.Tensor, labels: torch.Tensor, classes: tuple[str, ...], mean: Any, std: Any,
    path: Path, seed: int = 0, columns: int = 6,
) -> None:  # fmt: skip
    """A picture of what each strategy makes of one batch, with A's share by area and as used in the label."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(columns, len(images))
    figure, axes = plt.subplots(
        len(learners) + 1, columns, figsize=(2.1 * columns, 2.5 * (len(learners) + 1)), squeeze=False, layout="constrained"
    )

    def show(axis: Any, image: torch.Tensor, title: str, name: str) -> None:
        axis.imshow(image.permute(1, 2, 0).cpu().numpy())
        axis.set_title(title, fontsize=8)
        axis.set_ylabel(name, fontsize=9)
        axis.set(xticks=[], yticks=[])

    with torch.enable_grad():
        ctx = [make_context(x.strategy, x.model, images, seed=seed, step=2, mean=mean, std=std) for x in learners]
        mixes = [x.strategy.mix(images, labels, c) for x, c in zip(learners, ctx, strict=True)]
    mean, std = ctx[0].mean, ctx[0].std
    for column, image in enumerate(to_pixels(images[:columns], mean, std)):
        show(axes[0, column], image, f"A: {classes[labels[column]]}\nB: {classes[labels[-1 - column]]}",
             "image A" if column == 0 else "")
    for row, (learner, mixed) in enumerate(zip(learners, mixes, strict=True), 1):
        learner.model.eval()
        tap = learner.tap
        if tap:
            with tap:
                output = learner.net(mixed.images)
        else:
            output = learner.net(mixed.images)
        lam = learner.strategy.relabel(mixed, output)
        for column, image in enumerate(to_pixels(mixed.images[:columns], mean, std)):
            title = f"A by area {mixed.lam[column]:.2f}\nA in label {lam[column]:.2f}"
            show(axes[row, column], image, title, learner.spec if column == 0 else "")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
