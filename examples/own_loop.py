"""TransMix in a training loop of your own."""

import timm
import torch

from mixbench import attention_tap, create_strategy, make_context, soft_targets

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def train(steps: int = 3, num_classes: int = 10) -> list[float]:
    """Train a tiny model on noise: the loss of each step."""
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=num_classes
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    strategy = create_strategy("transmix(attention_weight=0.5)")
    losses = []
    with attention_tap(model, strategy.needs.attention) as tap:
        for step in range(steps):
            # your loader
            images, labels = torch.randn(8, 3, 32, 32), torch.randint(num_classes, (8,))
            ctx = make_context(strategy, model, images, seed=0, step=step, mean=MEAN, std=STD)
            mixed = strategy.mix(images, labels, ctx)
            output = tap(mixed.images)
            lam = strategy.relabel(mixed, output)
            targets = soft_targets(mixed, lam, num_classes, smoothing=0.1)
            loss = torch.nn.functional.cross_entropy(output.logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(train())
