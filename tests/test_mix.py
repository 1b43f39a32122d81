"""The vocabulary: what strategies need, and what they may declare."""

import dataclasses
import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mixbench import (
    MixContext,
    MixedBatch,
    MixStrategy,
    ModelOutput,
    Needs,
    create_strategy,
    step_rng,
)
from mixbench.data.normalisation import Normalisation
from mixbench.mix import beta
from mixbench.models.build import build_model
from mixbench.registry import BUILTIN
from mixbench.services.context import make_context
from mixbench.strategies.mixup import Mixup
from mixbench.testing import MEAN, STD
from mixbench.training.guard import Guarded
from mixbench.training.parts import build_part


def test_needs_join_every_field():
    values = {"attention": "last", "network": "resnet50", "look": "class"}
    for field in dataclasses.fields(Needs):
        needs = Needs(**{field.name: values.get(field.name, True)})
        assert needs | Needs() == needs == Needs() | needs != Needs()


def test_a_new_need_is_joined_too():
    @dataclass(frozen=True, kw_only=True)
    class More(Needs):
        sound: bool = False

    both = More(pixels=True, sound=True)
    assert More(pixels=True) | More(sound=True) == both
    assert Needs(pixels=True) | More(sound=True) == both == More(sound=True) | Needs(pixels=True)
    assert Needs() | More() == More() | Needs() == More()
    with pytest.raises(ValueError, match="two kinds of attention, 'last' and '3': choose one"):
        Needs(attention="last") | Needs(attention="3")


def test_clean_weight_by_attribute_and_by_property():
    @dataclass(frozen=True)
    class Attribute(MixStrategy):
        clean_weight = 1.0

        def mix(self, images, labels, ctx):
            raise NotImplementedError

    assert Attribute().clean_weight == 1.0 and Mixup().clean_weight == 0.0
    assert create_strategy("puzzlemix(clean_lam=0.5)").clean_weight == 0.5
    assert [field.name for field in dataclasses.fields(Attribute)] == []


def mixed_of(strategy, images):
    """A mix of the images, whose gradient is that of smooth noise; attention is their redness."""
    normalised = Normalisation.of(MEAN, STD)
    objects = torch.zeros(len(images), 1, *images.shape[-2:])
    objects[..., 3:11, 2:9] = 1
    cells = torch.nn.AdaptiveAvgPool2d(4)
    services = {
        "look": lambda x: ModelOutput(x.mean((2, 3)), cells(x)[:, 0]),
        "part": strategy.build(SimpleNamespace(num_features=4), 3, 32),
        "objects": objects,
        "input_gradient": lambda x, labels: torch.nn.functional.avg_pool2d(x.float(), 5, 1, 2),
        "features": torch.nn.AdaptiveAvgPool2d(7),
    }
    ctx = MixContext(
        rng=step_rng(0, 0),
        mean=normalised.mean,
        std=normalised.std,
        pixels=normalised.pixels(images),
        **services,
    )
    return strategy.mix(images, torch.arange(len(images)), ctx)


class Permuting(Mixup):
    """Halves whose partner is the next row."""

    def mix(self, images, labels, ctx):
        mask = ctx.mean.new_zeros(1, 1, 1, images.shape[-1])
        mask[..., ::2] = 1
        partner = labels.roll(-1)
        return MixedBatch(
            images=images.where(mask == 1, images[partner]),
            labels=labels,
            partner=partner,
            mask=mask,
        )


def test_compose_by_hand():
    """a's pixel, 0.25 a + 0.75 b, and b's pixel, b being the partner's: row by row."""
    mixed = MixedBatch(
        images=torch.zeros(3, 1, 1, 3),
        labels=torch.arange(3),
        partner=torch.tensor([1, 2, 0]),
        mask=torch.tensor([1.0, 0.25, 0]).reshape(1, 1, 1, 3),
    )
    a = torch.tensor([[1.0, math.nan, math.inf], [2, 4, math.nan], [3, 8, 0]])
    b = torch.tensor([[math.inf, 10.0, 5], [math.nan, 20, 6], [7, 40, 7]])
    a, b = a.reshape(3, 1, 1, 3), b.reshape(3, 1, 1, 3)
    composed = mixed.compose(a, b).flatten(1)
    np.testing.assert_array_equal(composed, [[1, math.nan, 6], [2, 31, 7], [3, 9.5, 5]])
    objects = mixed.compose(a.nan_to_num() > 2, torch.zeros(3, 1, 1, 3))
    assert objects.flatten(1).tolist() == [[0, 0, 0], [0, 0.25, 0], [1, 0.25, 0]]


def test_a_map_moves_as_the_pixels_did():
    """By loops over blocks that look for each block of the mix where it came from."""
    images = torch.randn(3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    strategy = create_strategy("puzzlemix(num_labels=2, beta=0, eta=0, transport_eps=0)")
    mixed = mixed_of(strategy, images)
    numbers = torch.arange(3.0 * 32 * 48).reshape(3, 1, 32, 48)  # each pixel's place
    places, moved = mixed.compose(numbers, numbers).long().flatten(1), 0
    for row in range(3):
        for place in range(0, 32 * 48, 7):
            source, y, x = np.unravel_index(int(places[row, place]), (3, 32, 48))
            shown = mixed.images[row].flatten(1)[:, place]
            assert torch.equal(shown, images[source, :, y, x])
            assert source == (row if mixed.mask[row].flatten()[place] else 2 - row)
            moved += (y, x) != divmod(place, 48)
    assert moved > 10


RULES = ("alternate", "transmix", "tlalign", "mixpro", "oacutmix")
WRAPPED = ["oacutmix(base={})", "transmix(base={})", "alternate(first={}, switch_prob=1.0)"]


@pytest.mark.parametrize("wrapper", ["{}", *WRAPPED])
@pytest.mark.parametrize("base", [name for name in BUILTIN if name not in RULES])
def test_compose_gives_the_mix_of_any_base_inside_any_wrapper(base, wrapper):
    images = torch.randn(5, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    strategy = create_strategy(wrapper.format(base))
    for held in (strategy, Guarded(strategy, print)):
        mixed = mixed_of(held, images)
        torch.testing.assert_close(mixed.compose(images, images), mixed.images)
        assert held.moves_pixels == (base in ("puzzlemix", "resizemix", "smmix"))


def test_compose_follows_a_partner_that_is_no_mirror():
    images = torch.randn(4, 3, 8, 8)
    mixed = mixed_of(Permuting(), images)
    assert torch.equal(mixed.compose(images, images), mixed.images)


def photographs(side):
    """Smooth colours with grain, as photographs have, (6, 3, side, side) normalised."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 3, 5, 5, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return (smooth + 0.05 * torch.randn(smooth.shape, generator=rng)).clamp(0, 1) * 2 - 1


@pytest.mark.parametrize("name", [name for name in BUILTIN if name != "attentivecutmix"])
@pytest.mark.parametrize("step", range(3))
def test_compose_adds_up_to_every_strategys_images_of_photographs(name, step):
    """A's part and B's part of the pixels are the mix, whatever the strategy draws or moves."""
    model = build_model("vit_tiny_patch16_224", 10, 0, image_size=64, depth=2).eval()
    images, labels = photographs(64), torch.arange(6)
    strategy = create_strategy(name)
    part = build_part(strategy, model, 10, 64, 0)
    half = torch.full((3, 1, 1), 0.5)
    objects = (images.mean(1, keepdim=True) > 0).float()
    ctx = make_context(
        strategy, model, images, seed=1, step=step, mean=half, std=half, objects=objects, part=part
    )
    mixed = strategy.mix(images, labels, ctx)
    nothing = torch.zeros_like(images)
    parts = mixed.compose(images, nothing) + mixed.compose(nothing, images)
    torch.testing.assert_close(parts, mixed.images, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.compose(images, images), mixed.images, atol=1e-5, rtol=0)


def test_draws_of_beta_gather_at_one_half_as_alpha_grows():
    """Beta(a, a) has the variance 1 / (4 (2 a + 1)); numpy's own draws are 0 from 9e307 on."""
    for alpha in (1.0, 10.0, 1e4):
        draws = [beta(step_rng(0, step, 0), alpha) for step in range(400)]
        assert np.mean(draws) == pytest.approx(0.5, abs=0.05)
        assert np.var(draws) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.25)
    assert all(beta(step_rng(0, step, 0), 1e308) == 0.5 for step in range(5))
