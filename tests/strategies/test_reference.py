"""Each strategy against a slow, literal form of its publication that shares no code with it."""

import numpy as np
import pytest
import torch

from baselines.reference import attentivecutmix, cutmix, mixup, saliencymix, transmix
from mixbench import ModelOutput, create_strategy, make_context, soft_targets, step_rng
from mixbench.mix import MixContext, beta, randint
from mixbench.services.saliency import fine_grained
from mixbench.testing import MEAN, STD

BATCH, SIZE = 5, (24, 40)
PARTNER = np.arange(BATCH)[::-1]
LABELS = torch.tensor([3, 0, 2, 2, 1])


@pytest.fixture
def pixels():
    """Smooth noise, so that maps have shape."""
    coarse = torch.randint(
        256, (BATCH, 3, 6, 8), generator=torch.Generator().manual_seed(2)
    ).float()
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear").to(torch.uint8)


def normalised(pixels):
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


@pytest.fixture
def images(pixels):
    return normalised(pixels)


def context(strategy, images, step):
    return make_context(
        strategy, torch.nn.Identity(), images, seed=0, step=step, mean=MEAN, std=STD
    )


def draws(step, count):
    """lam and center of each box, as CutMix and SaliencyMix draw them."""
    rng = step_rng(0, step)
    return [(beta(rng, 1.0), (randint(rng, SIZE[0]), randint(rng, SIZE[1]))) for _ in range(count)]


def literal_mixup(pixels, images, step):
    """Mixed images, A's share of each pixel and of each label, as in the other literal forms."""
    lam = beta(step_rng(0, step), 0.8)
    return *mixup.mix(images.numpy(), PARTNER, lam), np.full(BATCH, lam)


def literal_cutmix(pixels, images, step, per_sample=False):
    boxes = draws(step, BATCH) if per_sample else draws(step, 1) * BATCH
    return cutmix.mix(images.numpy(), PARTNER, *zip(*boxes, strict=True))


def literal_saliencymix(pixels, images, step, scope="sample"):
    boxes = []
    for row, (lam, center) in enumerate(draws(step, BATCH if scope == "sample" else 1)):
        pasted = pixels[PARTNER[row]].permute(1, 2, 0).numpy()
        boxes.append((lam, saliencymix.center(saliencymix.saliency(pasted), center)))
    boxes = boxes if scope == "sample" else boxes * BATCH
    return cutmix.mix(images.numpy(), PARTNER, *zip(*boxes, strict=True))


LITERAL = {"mixup": literal_mixup, "cutmix": literal_cutmix, "saliencymix": literal_saliencymix}


def assert_same(mixed, lam, images, mask, lams):
    """Same pixels, same mask and same targets as the literal form's."""
    assert np.allclose(mixed.images.numpy(), images, atol=1e-6)
    assert np.allclose(mixed.mask.expand(BATCH, 1, *SIZE)[:, 0].numpy(), mask, atol=1e-6)
    assert np.allclose(lam.numpy(), lams, atol=1e-6)
    expected = mixup.targets(LABELS.numpy(), PARTNER, lams, 4, smoothing=0.1)
    assert np.allclose(soft_targets(mixed, lam, 4, smoothing=0.1).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("step", range(3))
def test_mixup(step, pixels, images):
    strategy = create_strategy("mixup")
    mixed = strategy.mix(images, LABELS, context(strategy, images, step))
    assert_same(mixed, mixed.lam, *literal_mixup(pixels, images, step))


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("per_sample", [False, True])
def test_cutmix(step, per_sample, pixels, images):
    strategy = create_strategy(f"cutmix(per_sample={per_sample})")
    mixed = strategy.mix(images, LABELS, context(strategy, images, step))
    assert_same(mixed, mixed.lam, *literal_cutmix(pixels, images, step, per_sample))


def test_fine_grained_saliency(pixels):
    pixels = torch.cat(
        [
            pixels,
            torch.randint(256, (1, 3, *SIZE), dtype=torch.uint8),
            torch.full((1, 3, *SIZE), 9, dtype=torch.uint8),
        ]
    )
    literal = np.stack(
        [saliencymix.saliency(image) for image in pixels.permute(0, 2, 3, 1).numpy()]
    )
    assert np.array_equal((fine_grained(pixels) * 255).round().numpy(), literal)


@pytest.mark.parametrize("step", range(2))
@pytest.mark.parametrize("scope", ["sample", "batch"])
def test_saliencymix(step, scope, pixels):
    pixels[3] = 50  # a flat image: its box goes where it was drawn
    images = normalised(pixels)
    strategy = create_strategy(f"saliencymix(scope={scope})")
    mixed = strategy.mix(images, LABELS, context(strategy, images, step))
    assert_same(mixed, mixed.lam, *literal_saliencymix(pixels, images, step, scope))


@pytest.mark.parametrize("channel", ["mean", "last"])
@pytest.mark.parametrize("k", [0, 1, 6, 35])
def test_attentivecutmix(k, channel, images):
    features = torch.randint(
        4, (BATCH, 3, 7, 5), generator=torch.Generator().manual_seed(k)
    ).float()  # many ties
    strategy = create_strategy(f"attentivecutmix(k={k}, channel={channel})")
    ctx = MixContext(
        rng=step_rng(0, 0),
        mean=torch.zeros(3, 1, 1),
        std=torch.ones(3, 1, 1),
        features=lambda x: features,
    )
    mixed = strategy.mix(images, LABELS, ctx)
    rows = []
    for row, other in enumerate(PARTNER):
        cells = attentivecutmix.best_cells(features[row].double().numpy(), k, channel)
        rows.append(attentivecutmix.mix(images[row].numpy(), images[other].numpy(), cells, (7, 5)))
    assert_same(mixed, mixed.lam, *(np.stack(part) for part in zip(*rows, strict=True)))


@pytest.mark.parametrize("base", ["cutmix", "saliencymix", "mixup"])
@pytest.mark.parametrize("fields", [{}, {"attention_weight": 1.0}, {"renormalise": False}])
def test_transmix(base, fields, pixels, images):
    strategy = create_strategy(
        f"transmix(base={base}, {', '.join(f'{key}={value}' for key, value in fields.items())})"
    )
    for step in range(3):
        mixed = strategy.mix(images, LABELS, context(strategy, images, step))
        based = create_strategy(base)
        expected = based.mix(images, LABELS, context(based, images, step))
        assert mixed.images.equal(expected.images) and mixed.mask.equal(expected.mask)
        literal_images, mask, areas = LITERAL[base](pixels, images, step)
        attn = torch.rand((BATCH, 3, 5), generator=torch.Generator().manual_seed(step))
        attn /= attn.sum((1, 2), keepdim=True) * 1.1  # the rest lies on the class token itself
        lams = [
            transmix.lam(share, weights, **fields)
            for share, weights in zip(mask, attn.double().numpy(), strict=True)
        ]
        if base == "mixup":  # Differs: a constant mask keeps its label by area, not by equation 7
            lams = areas
        lam = strategy.relabel(mixed, ModelOutput(torch.zeros(BATCH, 4), attn))
        assert_same(mixed, lam, literal_images, mask, np.array(lams))
