"""SMMix by hand, against loops over windows and pixels, its losses, and what it refuses."""

import itertools

import numpy as np
import pytest
import torch

from baselines.reference import smmix as literal
from mixbench import MixedBatch, ModelOutput, create_strategy, make_context, step_rng
from mixbench.loops import mixed_loss
from mixbench.mix import randint
from mixbench.models.build import build_model
from mixbench.services.tokens import tap_of
from mixbench.strategies.smmix import (
    Seen,
    SMMix,
    consistency_loss,
    find_windows,
    move_windows,
    moved,
    window_size,
)
from mixbench.testing import MEAN, STD, check_strategy
from mixbench.training.parts import build_part

A = [[9, 8, 1, 2], [7, 6, 2, 1], [3, 2, 4, 5], [2, 3, 6, 7]]
B = [[1, 2, 5, 1], [2, 9, 8, 1], [1, 7, 9, 2], [0, 1, 1, 1]]


@pytest.mark.parametrize("wrapper", ["{}", "transmix(base={})", "alternate(first={})"])
@pytest.mark.parametrize("spec", ["smmix", "smmix(low=14, high=14)"])
def test_the_kit(spec, wrapper):
    check_strategy(create_strategy(wrapper.format(spec)))


def test_windows_by_hand():
    """A's least window of 2 x 2 sums to 6, B's most to 33."""
    attn = torch.tensor([A, B], dtype=torch.float32)
    place, source = find_windows(attn, (2, 2))
    assert (place[0].tolist(), source[0].tolist()) == ([0, 2], [1, 1])
    size = torch.tensor([[2, 2]])
    images = torch.stack([attn, attn + 0.5], 1)
    mixed, mask = move_windows(images, place, source, size)
    of_a, of_b = moved(mask, source - place, images)
    assert mixed[0, 0].tolist() == [[9, 8, 9, 8], [7, 6, 7, 9], [3, 2, 4, 5], [2, 3, 6, 7]]
    assert (of_a + of_b).equal(mixed) and not (of_a[0] * of_b[0]).any()
    assert float(mask[0].mean()) == 0.75


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 6), (3, 1)])
def test_windows_are_those_of_a_search(size):
    generator = torch.Generator().manual_seed(0)
    for ties in (False, True):
        attn = torch.rand(5, 4, 6, generator=generator)
        attn = attn.mul(3).round() if ties else attn  # many windows have the same sum
        place, source = find_windows(attn, size)
        for row in range(5):
            a, b = attn[row].double().numpy(), attn[4 - row].double().numpy()
            assert tuple(place[row].tolist()) == literal.best_window(a, *size, -1)
            assert tuple(source[row].tolist()) == literal.best_window(b, *size, 1)


def test_window_sizes():
    assert [window_size(drawn, (14, 14)) for drawn in (3, 10)] == [(3, 3), (10, 10)]
    assert {window_size(drawn, (4, 4)) for drawn in range(3, 11)} == {(1, 1), (2, 2), (3, 3)}
    assert window_size(7, (4, 7)) == (2, 4) and window_size(1, (3, 50)) == (1, 4)
    assert window_size(14, (5, 9)) == (5, 9)
    areas = [1 - (drawn / 14) ** 2 for drawn in range(3, 11)]
    assert np.mean(areas) == pytest.approx(0.757653, abs=1e-6)


def test_the_divergence_by_hand():
    mask = torch.ones(1, 1, 2, 2)
    mask[..., 0, 0] = 0
    labels = torch.tensor([0, 1])
    mixed = MixedBatch(
        images=torch.zeros(2, 3, 2, 2), labels=labels, partner=labels.flip(0), mask=mask
    )
    looked = torch.tensor([[2.0, 0, 0], [0, 2, 0]])
    logits = torch.tensor(
        [[1, 0.5, 0], [0.5, 1, 0]]
    )  # the second row is the first, A and B swapped
    assert float(consistency_loss(looked, mixed, logits)) == pytest.approx(0.030167, abs=1e-6)
    rows = looked.double().numpy()
    assert literal.divergence(*rows, 0.75, np.array([1, 0.5, 0])) == pytest.approx(
        0.030167, abs=1e-6
    )


def vit(image_size=32, **options):
    fields = {"embed_dim": 24, "num_heads": 3, "depth": 2, "patch_size": 8} | options
    model = build_model(
        "vit_tiny_patch16_224", num_classes=5, image_size=image_size, seed=0, **fields
    )
    with torch.no_grad():  # attention that is far from uniform
        for block in model.blocks:
            torch.nn.init.normal_(block.attn.qkv.weight, std=0.5)
    return model.train()


def with_part(strategy, model):
    model.mixing = build_part(strategy, model, 5, 32, seed=0)
    with torch.no_grad():
        model.mixing.bias.normal_()
    return model


@pytest.mark.parametrize("low", [3, 10, 14])
def test_a_step_is_its_literal_form(low):
    strategy = SMMix(low=low, high=low)
    model = with_part(strategy, vit())
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 3, 1, 2, 4])
    ctx = make_context(strategy, model, images, seed=0, step=0, mean=MEAN, std=STD)
    looked = ctx.look(images)
    mixed = strategy.mix(images, labels, ctx)
    with tap_of(model, strategy.needs) as tap:
        output = tap(mixed.images)
    size = window_size(low, (4, 4))
    total = 0.0
    attn, pictures = looked.attn.double().numpy(), images.double().numpy()
    for row in range(5):
        other = 4 - row
        wanted, share = literal.mix(pictures[row], pictures[other], attn[row], attn[other], size)
        np.testing.assert_allclose(mixed.images[row], wanted, atol=1e-6)
        assert np.array_equal(mixed.mask[row, 0].numpy(), share)
        total += literal.extra_loss(
            output.tokens[row].detach().double().numpy(),
            share[::8, ::8] == 1,
            (int(labels[row]), int(labels[other])),
            (looked.logits[row].double().numpy(), looked.logits[other].double().numpy()),
            output.logits[row].detach().double().numpy(),
            float(share.mean()),
            tuple(p.detach().double().numpy() for p in (model.mixing.weight, model.mixing.bias)),
        )
    loss = strategy.extra_loss(mixed, output)
    assert float(loss.detach()) == pytest.approx(total / 5, abs=1e-5)
    loss.backward()
    assert model.mixing.weight.grad.abs().sum() > 0
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert strategy.relabel(mixed, output).equal(mixed.lam)


def test_one_size_a_batch_and_every_size():
    strategy, model = SMMix(), vit()
    with_part(strategy, model)
    images, labels = torch.randn(3, 3, 32, 32), torch.arange(3)
    seen = set()
    for step in range(20):
        ctx = make_context(strategy, model, images, seed=0, step=step, mean=MEAN, std=STD)
        mixed = strategy.mix(images, labels, ctx)
        size = window_size(3 + randint(step_rng(0, step), 8), (4, 4))
        seen.add(size)
        assert mixed.lam.eq(1 - size[0] * size[1] / 16).all()
    assert len(seen) == 3


def test_the_harness_adds_its_loss():
    """The whole loss is that of the soft labels and the extra one."""
    strategy, model = SMMix(low=7, high=7), vit()
    with_part(strategy, model)
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    settings = {"num_classes": 5, "step": 0, "seed": 0, "mean": MEAN, "std": STD}
    loss = mixed_loss(strategy, model, images, labels, smoothing=0.0, **settings)
    ctx = make_context(strategy, model, images, seed=0, step=0, mean=MEAN, std=STD)
    mixed = strategy.mix(images, labels, ctx)
    with tap_of(model, strategy.needs) as tap:
        output = tap(mixed.images)
    log_probs = output.logits.log_softmax(1)
    a, b = (-log_probs.gather(1, y[:, None])[:, 0] for y in (labels, labels.flip(0)))
    of_labels = (mixed.lam * a + (1 - mixed.lam) * b).mean()
    expected = of_labels + strategy.extra_loss(mixed, output)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_images_of_any_precision(rows, dtype):
    strategy, model = SMMix(), vit()
    with_part(strategy, model)
    images = torch.randn(rows, 3, 32, 32).to(dtype)
    amp = dtype is torch.bfloat16
    ctx = make_context(strategy, model, images, seed=0, step=0, mean=MEAN, std=STD, amp=amp)
    mixed = strategy.mix(images, torch.arange(rows), ctx)
    assert mixed.images.dtype == dtype
    with torch.autocast("cpu", torch.bfloat16, enabled=amp), tap_of(model, strategy.needs) as tap:
        output = tap(mixed.images)
        loss = strategy.extra_loss(mixed, output)
    assert loss.dtype == torch.float32 and loss.isfinite()


def test_what_it_refuses():
    with pytest.raises(ValueError, match="smmix low must be at most high, not 9 and 4"):
        create_strategy("smmix(low=9, high=4)")
    with pytest.raises(ValueError, match="images of 36x36 px are no multiple of the model's grid"):
        SMMix().check_images(36, 36, (5, 5))
    SMMix().check_images(36, 36, (9, 9))
    strategy, images = SMMix(), torch.randn(2, 3, 32, 32)
    ctx = make_context(strategy, vit(), images, seed=0, step=0, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match=r"smmix needs MixContext.look and MixContext.part"):
        strategy.mix(images, torch.arange(2), ctx)
    seen = Seen(torch.zeros(2, 5), torch.nn.Linear(24, 5), (4, 4), (1, 1))
    mixed = MixedBatch(
        images=images,
        labels=torch.arange(2),
        partner=torch.tensor([1, 0]),
        mask=torch.ones(1, 1, 32, 32),
        memo=seen,
    )
    with pytest.raises(ValueError, match=r"smmix needs ModelOutput.tokens"):
        strategy.extra_loss(mixed, ModelOutput(torch.zeros(2, 5)))


def test_every_cell_is_reached():
    """Windows lie anywhere, also at the borders."""
    attn = torch.zeros(2, 5, 5)
    for top, left in itertools.product(range(4), range(4)):
        peak = attn.clone()
        peak[1, top : top + 2, left : left + 2] = 1
        assert find_windows(peak, (2, 2))[1][0].tolist() == [top, left]
