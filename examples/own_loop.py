"""TransMix in a training loop of your own."""

import timm
import torch

from mixbench import create_strategy
from mixbench.loops import MixedCriterion


def train(steps: int = 3, num_classes: int = 10) -> list[float]:
    """Train a tiny model on noise: the loss of each step."""
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=num_classes
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = MixedCriterion(
        create_strategy("transmix(attention_weight=0.5)"),
        num_classes=num_classes,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        smoothing=0.1,
    )
    losses = []
    for _ in range(steps):
        # your loader
        images, labels = torch.randn(8, 3, 32, 32), torch.randint(num_classes, (8,))
        loss = criterion(model, images, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(train())
