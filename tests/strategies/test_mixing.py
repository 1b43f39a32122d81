"""The strategies against hand-worked cases, closed forms, timm and torchvision."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mixbench import MixedBatch, ModelOutput, create_strategy, make_context, soft_targets, step_rng
from mixbench.mix import beta, box_mask, cut_box, mirrored, paste_boxes, uniform
from mixbench.strategies.transmix import TransMix, attention_lam, downsample_mask
from mixbench.testing import MEAN, STD, check_strategy

SPECS = [
    "none",
    "mixup",
    "cutmix",
    "cutmix(per_sample=True)",
    "alternate",
    "transmix",
    "transmix(base=alternate, downsample=area)",
    "transmix(base=mixup, renormalise=False)",
]


def mix(spec, images, labels, step=0, seed=0):
    strategy = create_strategy(spec)
    return strategy.mix(
        images,
        labels,
        make_context(
            strategy, torch.nn.Identity(), images, seed=seed, step=step, mean=MEAN, std=STD
        ),
    )


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 32, 48, generator=rng), torch.randint(5, (6,), generator=rng)


def with_mask(mask, batch=1):
    labels = torch.arange(batch)
    return MixedBatch(
        images=torch.zeros(batch, 3, *mask.shape[-2:]),
        labels=labels,
        partner=labels.flip(0),
        mask=mask,
    )


@pytest.mark.parametrize("spec", SPECS)
def test_every_strategy_passes_the_kit(spec):
    check_strategy(create_strategy(spec))


def test_mixup_targets_by_hand():
    mixed = MixedBatch(
        images=torch.zeros(2, 3, 1, 1),
        labels=torch.tensor([0, 1]),
        partner=torch.tensor([1, 0]),
        mask=torch.full((1, 1, 1, 1), 0.3),
    )
    targets = soft_targets(mixed, mixed.lam, 4, smoothing=0.1)
    assert torch.allclose(
        targets, torch.tensor([[0.295, 0.655, 0.025, 0.025], [0.655, 0.295, 0.025, 0.025]])
    )


def test_soft_targets_equal_the_two_smoothed_losses(batch):
    mixed = mix("cutmix(per_sample=True)", *batch)
    logits = torch.randn(6, 5)
    ours = -(soft_targets(mixed, mixed.lam, 5, 0.1) * logits.log_softmax(1)).sum(1)
    of_a, of_b = (
        F.cross_entropy(logits, y, label_smoothing=0.1, reduction="none")
        for y in (batch[1], batch[1].flip(0))
    )
    assert torch.allclose(ours, mixed.lam * of_a + (1 - mixed.lam) * of_b, atol=1e-6)


def test_mixup_equals_timm(batch, monkeypatch):
    from timm.data import Mixup

    images, labels = batch
    mixed = mix("mixup", images, labels)
    lam = float(mixed.mask)
    theirs = Mixup(mixup_alpha=0.8, cutmix_alpha=0, label_smoothing=0.1, num_classes=5)
    monkeypatch.setattr(theirs, "_params_per_batch", lambda: (lam, False))
    x, y = theirs(images.clone(), labels)
    assert torch.allclose(mixed.images, x, atol=1e-6)
    assert torch.allclose(soft_targets(mixed, mixed.lam, 5, 0.1), y, atol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 1.0, 1 - 1e-12])
def test_mixup_copies_at_the_ends(batch, lam, monkeypatch):
    import mixbench.strategies.mixup as module

    monkeypatch.setattr(module, "beta", lambda rng, alpha: lam)
    images = batch[0].clone()
    images[0, 0, 0, 0] = math.inf
    mixed = mix("mixup", images, batch[1])
    assert torch.equal(mixed.images, images.flip(0) if lam == 0 else images)
    assert mixed.lam.tolist() == [round(lam)] * 6


def test_cutmix_equals_timm_given_the_box(batch, monkeypatch):
    import timm.data.mixup as timm_mixup

    images, labels = batch
    mixed = mix("cutmix", images, labels)
    rows, cols = torch.where(mixed.mask[0, 0] == 0)
    box = int(rows.min()), int(rows.max()) + 1, int(cols.min()), int(cols.max()) + 1
    monkeypatch.setattr(
        timm_mixup, "cutmix_bbox_and_lam", lambda shape, lam, **_: (box, float(mixed.lam[0]))
    )
    theirs = timm_mixup.Mixup(mixup_alpha=0, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=5)
    x, y = theirs(images.clone(), labels)
    assert mixed.images.equal(x)
    assert torch.allclose(soft_targets(mixed, mixed.lam, 5, 0.1), y, atol=1e-6)


def test_cut_box_equals_torchvision():
    from torchvision.transforms import v2

    for seed in range(30):
        torch.manual_seed(seed)
        params = v2.CutMix(alpha=1.0, num_classes=5).make_params([torch.zeros(2, 3, 33, 47)])
        x1, y1, x2, y2 = params["box"]
        torch.manual_seed(seed)
        lam = float(torch.distributions.Beta(torch.tensor([1.0]), torch.tensor([1.0])).sample())
        r_x, r_y = int(torch.randint(47, (1,))), int(torch.randint(33, (1,)))
        assert cut_box(33, 47, lam, (r_y, r_x)) == (y1, x1, y2, x2)


@pytest.mark.parametrize(
    ("lam", "side", "share"),
    [(0.5, 130.138393, 0.6624681), (0.9, 64.53125, None), (0.1, 161.8392857, 0.4779984)],
)
def test_mean_box_over_all_centers(lam, side, share):
    """2h - h^2 / N for a centre uniform on 0 .. N - 1, and the corrected lam it gives."""
    boxes = [cut_box(224, 224, lam, (c, 0)) for c in range(224)]
    mean = np.mean([bottom - top for top, _, bottom, _ in boxes])
    assert mean == pytest.approx(side, abs=1e-6)
    if share:
        assert 1 - (mean / 224) ** 2 == pytest.approx(share, abs=1e-6)


def test_cutmix_pixels_come_from_one_of_the_two(batch):
    images, labels = batch
    for step in range(20):
        mixed = mix("cutmix(per_sample=True)", images, labels, step)
        expected = torch.where(mixed.mask.bool(), images, images.flip(0))
        assert mixed.images.equal(expected)
        of_a = (mixed.images == images).all(1).float().mean((1, 2))  # drawn images are never equal
        assert torch.allclose(mixed.lam, of_a)


def test_pasting_slices_equals_selecting_by_mask(batch):
    images, _ = batch
    for boxes in ([(3, 5, 20, 40)], [(i, i, 2 * i, 3 * i) for i in range(6)], [(4, 4, 4, 9)]):
        mixed, mask = paste_boxes(images, torch.tensor(boxes))
        assert mask.equal(box_mask(boxes, images)) and mixed.equal(
            torch.where(mask.bool(), images, images.flip(0))
        )


def test_an_inf_never_reaches_its_partner(batch):
    images, labels = batch
    images[0] = math.inf
    mixed = mix("cutmix", images, labels)
    of_a = mixed.mask.expand_as(images[:1])[0].bool()
    assert of_a.any() and not of_a.all()
    assert mixed.images[5][of_a].isfinite().all()
    assert mixed.images[5][~of_a].isinf().all()


def test_beta_is_beta():
    stats = pytest.importorskip("scipy.stats")
    rng = step_rng(0, 0)
    draws = [beta(rng, 0.8) for _ in range(4000)]
    assert stats.kstest(draws, stats.beta(0.8, 0.8).cdf).pvalue > 0.001


def test_neighbouring_steps_draw_apart():
    draws = {
        float(torch.rand((), generator=step_rng(seed, step, shard)))
        for seed in range(4)
        for step in range(4)
        for shard in range(4)
    }
    assert len(draws) == 64


def test_cutmix_and_transmix_see_the_same_pixels(batch):
    for step in range(8):
        plain, relabelled = mix("cutmix", *batch, step), mix("transmix(base=cutmix)", *batch, step)
        assert torch.equal(plain.images, relabelled.images)
        assert torch.equal(plain.mask, relabelled.mask)


def hand_mask(top, left, bottom, right):
    return box_mask([(top, left, bottom, right)], torch.zeros(1, 3, 32, 32))


ATTN = torch.tensor([[[0.4, 0.3], [0.2, 0.05]]])


@pytest.mark.parametrize(
    ("fields", "lam_of_b"),
    [
        ({}, 0.3355263),
        ({"renormalise": False}, 0.325),
        ({"renormalise": False, "attention_weight": 1.0}, 0.4),
        ({"attention_weight": 1.0}, 0.4210526),
        ({"attention_weight": 0.0}, 0.25),
        ({"downsample": "area"}, 0.3355263),
    ],
)
def test_transmix_by_hand(fields, lam_of_b):
    lam = TransMix(**fields).relabel(
        with_mask(hand_mask(0, 0, 16, 16)), ModelOutput(torch.zeros(1, 2), ATTN)
    )
    assert 1 - float(lam) == pytest.approx(lam_of_b, abs=1e-6)


def test_transmix_aliasing_by_hand():
    output = ModelOutput(torch.zeros(1, 2), ATTN)
    assert 1 - float(
        TransMix().relabel(with_mask(hand_mask(1, 1, 16, 16)), output)
    ) == pytest.approx(0.1098633, abs=1e-6)
    dot = TransMix().relabel(with_mask(hand_mask(0, 0, 1, 1)), output)
    assert 1 - float(dot) == pytest.approx((0.0009765625 + 0.4210526) / 2, abs=1e-6)


def test_transmix_leaves_constant_masks_alone():
    for renormalise in (True, False):
        for mask in (
            torch.full((1, 1, 1, 1), 0.3),
            torch.full((1, 1, 32, 32), 0.3),
            torch.ones(1, 1, 32, 32),
        ):
            mixed = with_mask(mask)
            lam = TransMix(renormalise=renormalise).relabel(
                mixed, ModelOutput(torch.zeros(1, 2), ATTN)
            )
            assert torch.equal(lam, mixed.lam)


def test_transmix_survives_broken_attention():
    mixed = with_mask(hand_mask(0, 0, 16, 16))
    for attn in (ATTN * math.nan, ATTN * 0):
        assert torch.equal(
            TransMix().relabel(mixed, ModelOutput(torch.zeros(1, 2), attn)), mixed.lam
        )


def test_transmix_extremes():
    inside = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    mask = hand_mask(0, 0, 16, 16)
    assert float(attention_lam(mask, inside)) == 0
    assert float(attention_lam(mask, 1 - inside)) == 1
    assert float(attention_lam(mask, torch.ones(1, 2, 2))) == pytest.approx(0.75)


@pytest.mark.parametrize(("side", "cells"), [(224, 14), (224, 7), (240, 15), (384, 24), (230, 14)])
def test_nearest_takes_the_top_left_pixel(side, cells):
    mask = torch.arange(side).float().reshape(1, 1, side, 1).expand(1, 1, side, side)
    down = downsample_mask(mask, (cells, cells))[0, :, 0]
    assert down.tolist() == [math.floor(i * side / cells) for i in range(cells)]
    assert (
        torch.equal(
            downsample_mask(mask, (cells, cells)), F.interpolate(mask, (cells, cells))[:, 0]
        )
        or side == 230
    )


def test_alternate_relabels_with_what_it_drew(batch):
    strategy = create_strategy("alternate(first=transmix, second=mixup)")
    output = ModelOutput(torch.zeros(6, 5), torch.rand(6, 2, 3))
    seen = set()
    for step in range(20):
        mixed = mix("alternate(first=transmix, second=mixup)", *batch, step)
        ctx = make_context(
            strategy, torch.nn.Identity(), batch[0], seed=0, step=step, mean=MEAN, std=STD
        )
        drawn = TransMix() if uniform(ctx.rng) < 0.5 else create_strategy("mixup")
        seen.add(type(drawn).__name__)
        expected = drawn.mix(*batch, ctx)
        assert torch.equal(mixed.images, expected.images)
        assert torch.equal(strategy.relabel(mixed, output), drawn.relabel(expected, output))
    assert seen == {"TransMix", "Mixup"}


def test_partner_is_the_mirror():
    assert mirrored(torch.zeros(3, 1)).tolist() == [2, 1, 0]
