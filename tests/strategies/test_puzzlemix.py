"""Puzzle-Mix against its literal NumPy form, and what its saliency pass does to a training step."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines.reference import puzzlemix as literal
from mixbench import MixContext, create_strategy, make_context, step_rng
from mixbench.data.normalisation import Normalisation
from mixbench.mix import beta, randint
from mixbench.puzzle.mask import solve_mask
from mixbench.strategies.puzzlemix import BLOCKS, block_numbers, cell_size
from mixbench.testing import check_strategy
from mixbench.training.batches import Micro
from mixbench.training.forward import Network
from mixbench.training.objective import Objective
from tests.support.energies import MEAN, STD, smooth_batch


def context(gradient, step=0):
    return MixContext(
        rng=step_rng(0, step), mean=MEAN, std=STD, input_gradient=lambda images, labels: gradient
    )


@pytest.mark.parametrize(
    "spec",
    [
        "puzzlemix",
        "puzzlemix(num_labels=2, transport=False)",
        "puzzlemix(num_labels=4, neigh_size=4, clean_lam=0.5)",
        "transmix(base=puzzlemix)",
        "alternate(first=puzzlemix, second=mixup)",
        "puzzlemix(transport_eps=0.0)",
    ],
)
def test_puzzlemix_passes_the_kit(spec):
    check_strategy(create_strategy(spec))


def test_perturbed_puzzlemix_passes_the_kit():
    """But for its pixels, which it changes before they are mixed."""
    check_strategy(create_strategy("puzzlemix(adv_p=1.0)"), moves_pixels=True)


@pytest.mark.parametrize(
    "spec", ["puzzlemix(transport=False)", "puzzlemix(transport=False, num_labels=2)"]
)
def test_without_transport_every_pixel_is_where_it_was(spec):
    check_strategy(create_strategy(spec))


@pytest.mark.parametrize(
    "fields", [{}, {"num_labels": 2, "transport_eps": 0.05}, {"num_labels": 4, "transport": False}]
)
def test_mix_equals_the_literal_form(fields):
    """Draws replayed, then image by image: pixels, mask and lam."""
    images, labels, gradient = smooth_batch(3, seed=8, height=64, width=32)
    strategy = create_strategy(f"puzzlemix({', '.join(f'{k}={v}' for k, v in fields.items())})")
    pixels, seen = (images * STD + MEAN).double().numpy(), set()

    def solve(*terms):  # held to brute force and maximum flow above
        return solve_mask(*(torch.from_numpy(t)[None] for t in terms))[0][0].numpy()

    for step in range(8):
        mixed = strategy.mix(images, labels, context(gradient, step))
        rng = step_rng(0, step)
        n = BLOCKS[randint(rng, 4)]
        alpha = beta(rng, 1.0)
        seen.add(n)
        for a in range(3):
            b = 2 - a
            expected, mask, lam = literal.puzzlemix(
                pixels[a],
                pixels[b],
                *(gradient[k].double().numpy() for k in (a, b)),
                alpha,
                n,
                num_labels=strategy.num_labels,
                cell=cell_size(64 // n, 32 // n, 2),
                transport_eps=strategy.transport_eps if strategy.transport else None,
                solve=literal.brute_force if n == 2 else solve,
            )
            assert np.allclose(mixed.mask[a, 0], mask, atol=1e-6)
            assert mixed.lam[a].item() == pytest.approx(lam, abs=1e-6)
            assert np.allclose((mixed.images * STD + MEAN)[a], expected, atol=1e-5)
        assert mixed.partner.tolist() == [2, 1, 0]
    assert len(seen) > 2


def test_block_numbers_are_those_that_divide():
    assert block_numbers(224, 224, 2) == [2, 4, 8, 16] and block_numbers(32, 32, 4) == [2, 4, 8, 16]
    assert block_numbers(224, 224, 4) == [2, 4, 8]  # the official code fails at 16
    assert block_numbers(224, 160, 2) == [2, 4, 8, 16] and block_numbers(36, 48, 2) == [2]
    assert block_numbers(230, 230, 2) == [2] and cell_size(115, 115, 2) == 1
    for size in ((33, 32), (32, 35)):
        with pytest.raises(
            ValueError,
            match=rf"{size[0]}x{size[1]}.*{size[0] + size[0] % 2}x{size[1] + size[1] % 2}",
        ):
            block_numbers(*size, 2)


@pytest.mark.parametrize(
    "spec",
    [
        "alpha=0",
        "num_labels=5",
        "gamma=1.5",
        "neigh_size=0",
        "transport_eps=-1",
        "adv_p=2",
        "clean_lam=-1",
        "beta=-1",
    ],
)
def test_wrong_parameters_are_refused(spec):
    with pytest.raises(ValueError, match=rf"puzzlemix {spec.split('=')[0]} must be"):
        create_strategy(f"puzzlemix({spec})")


def test_pixels_stay_finite_whatever_the_gradient():
    images, labels, gradient = smooth_batch(4, seed=9, height=32, width=32)
    for bad in (gradient * 0, gradient * math.nan, (gradient * 1e-6).half()):
        for spec in ("puzzlemix", "puzzlemix(adv_p=1.0)"):
            mixed = create_strategy(spec).mix(images, labels, context(bad))
            assert mixed.images.isfinite().all() and mixed.lam.isfinite().all()


def test_adversarial_noise_is_bounded_and_climbs():
    images, labels, gradient = smooth_batch(4, seed=10, height=32, width=32)
    gradient = gradient.abs() + 1e-9
    largest = 0.0
    for step in range(8):
        clean = create_strategy("puzzlemix(transport=False)").mix(
            images, labels, context(gradient, step)
        )
        noisy = create_strategy("puzzlemix(transport=False, adv_p=1.0)").mix(
            images, labels, context(gradient, step)
        )
        assert torch.equal(clean.mask, noisy.mask)
        pixels = noisy.images * STD + MEAN
        change = pixels - (clean.images * STD + MEAN)
        assert pixels.min() >= -1e-5 and pixels.max() <= 1 + 1e-5
        assert (
            change.min() >= -1e-5 and change.max() <= 10 / 255 + 1e-5
        )  # adv_eps + 2 outweighs any random start
        largest = max(largest, change.max().item())
    assert largest > 7 / 255
    half = [
        create_strategy("puzzlemix(transport=False, adv_p=0.5)").mix(
            images, labels, context(gradient, step)
        )
        for step in range(12)
    ]
    plain = [
        create_strategy("puzzlemix(transport=False)").mix(images, labels, context(gradient, step))
        for step in range(12)
    ]
    same = [torch.equal(a.images, b.images) for a, b in zip(half, plain, strict=True)]
    assert 0 < sum(same) < 12


class Small(torch.nn.Module):
    """Linear, with batch norm and dropout, so that a careless saliency pass shows."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.head = (
            torch.nn.BatchNorm2d(3),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(3 * 16 * 16, 5),
        )
        self.norm.bias.requires_grad_(False)

    def forward(self, images):
        return self.head(self.drop(self.norm(images)).flatten(1))


def test_saliency_pass_leaves_the_model_as_it_was():
    images, labels, _ = smooth_batch(4, seed=11, height=16, width=16)
    model = Small().train()
    model.drop.eval()
    F.cross_entropy(model(images), labels).backward()
    state = copy.deepcopy(model.state_dict())
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    flags = [(m.training) for m in model.modules()], [p.requires_grad for p in model.parameters()]
    strategy = create_strategy("puzzlemix")
    mixed = strategy.mix(
        images, labels, make_context(strategy, model, images, seed=0, step=0, mean=MEAN, std=STD)
    )
    assert not mixed.images.requires_grad and not images.requires_grad and images.grad is None
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(
        torch.equal(p.grad, grads[name]) for name, p in model.named_parameters() if name in grads
    )
    assert flags == (
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
    )


def step_of(spec, model):
    """The loss of one training step."""
    images, labels, _ = smooth_batch(2, seed=12, height=32, width=32)
    objective = Objective(
        strategy=create_strategy(spec),
        num_classes=10,
        smoothing=0.1,
        normalisation=Normalisation(MEAN, STD),
        seed=0,
    )
    return objective(Network(model), Micro(images=images, labels=labels, step=1)).loss


def vit():
    import timm

    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=96,
        depth=4,
        num_heads=3,
        num_classes=10,
    )


def test_clean_lam_adds_the_loss_of_the_unmixed_batch():
    model = vit()
    images, labels, _ = smooth_batch(2, seed=12, height=32, width=32)
    mixed, both = step_of("puzzlemix", model), step_of("puzzlemix(clean_lam=0.7)", model)
    assert all(p.grad is None for p in model.parameters())
    clean = F.cross_entropy(model(images), labels, label_smoothing=0.1)
    assert both.item() == pytest.approx(mixed.item() + 0.7 * clean.item(), rel=1e-5)


def test_a_step_costs_as_much_as_one_forward_and_one_input_gradient_more():
    from torch.utils.flop_counter import FlopCounterMode

    flops = {}
    for spec in ("cutmix", "puzzlemix"):
        model = vit()
        with FlopCounterMode(display=False) as counter:
            step_of(spec, model).backward()
        flops[spec] = counter.get_total_flops()
    assert 1.5 < flops["puzzlemix"] / flops["cutmix"] < 1.71


def test_an_inf_or_nan_pixel_harms_no_other_row():
    images, labels, _ = smooth_batch(4, seed=3, height=32, width=32)
    for bad in (math.inf, math.nan):
        spoiled = images.clone()
        spoiled[0, 1, 3, 4] = bad
        strategy = create_strategy("puzzlemix")
        for step in range(6):
            mixed = strategy.mix(
                spoiled,
                labels,
                make_context(strategy, vit(), spoiled, seed=1, step=step, mean=MEAN, std=STD),
            )
            assert mixed.images[1:3].isfinite().all() and mixed.lam.isfinite().all()
