"""Labels by true masks: by hand, against pixel loops over every base, where nothing is known."""

import dataclasses

import pytest
import torch

from baselines.reference import oacutmix as literal
from mixbench import MixedBatch, MixStrategy, ModelOutput, create_strategy, make_context
from mixbench.strategies.oacutmix import OACutMix, object_lam, visible_share
from mixbench.testing import MEAN, STD, check_strategy
from tests.support.pictures import mix, noise, normalised

SIZE = (24, 32)
BASES = ["cutmix", "cutmix(per_sample=True)", "mixup", "gridmix", "fmix(max_soft=0.4)", "maskmix"]
BASES += ["tokenmix", "saliencymix", "guidedmixup", "transmix(base=maskmix)", "alternate"]
BASES += ["resizemix", "puzzlemix", "transmix(base=puzzlemix)"]


def rectangles(boxes, size=SIZE):
    """Masks (B, 1, H, W) that are 1 in a box (top, left, bottom, right) an image."""
    masks = torch.zeros(len(boxes), 1, *size)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[:, top:bottom, left:right] = 1
    return masks


def mix_context(images, objects=None, step=0, strategy=None):
    """What strategies need of a linear model."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(images[0].numel(), 5))
    with torch.no_grad():
        model[1].weight.copy_(torch.linspace(-1, 1, model[1].weight.numel()).view(5, -1).sin())
    settings = {"seed": 0, "step": step, "mean": MEAN, "std": STD, "objects": objects}
    return make_context(strategy or create_strategy("none"), model, images, **settings)


def mix_with(strategy, images, objects, step=0):
    ctx = mix_context(images, objects, step, strategy)
    return strategy.mix(images, torch.arange(len(images)) % 3, ctx)


def relabelled(strategy, mixed):
    return strategy.relabel(mixed, ModelOutput(torch.zeros(len(mixed.labels), 3)))


def by_hand():
    """A box of B in a 4 x 4 image, in whose area A has 5 / 8."""
    mask = torch.ones(1, 1, 4, 4)
    mask[:, :, 1:3, 1:4] = 0
    objects = rectangles([(0, 0, 2, 2), (1, 1, 4, 4)], (4, 4))
    images = torch.zeros(2, 3, 4, 4)
    partner = torch.tensor([1, 0])
    mixed = MixedBatch(images=images, labels=partner, partner=partner, mask=mask)
    return mixed, objects


@dataclasses.dataclass(frozen=True)
class Given(MixStrategy):
    """A base that gives a mixed batch that a test made."""

    mixed: MixedBatch

    def mix(self, images, labels, ctx):
        return self.mixed


@pytest.mark.parametrize(
    ("target", "weight", "lam"),
    [("share", 1.0, 1 / 3), ("fraction", 1.0, 0.529412), ("share", 0.5, 0.479167)],
)
def test_by_hand(target, weight, lam):
    """Of A's object 3 of 4 pixels are seen, of B's the 6 of 9 that lie in the box."""
    mixed, objects = by_hand()
    assert mixed.lam[0] == 0.625
    strategy = OACutMix(base=Given(mixed), target=target, weight=weight)
    labels = relabelled(strategy, mix(strategy, mixed.images, objects=objects))
    assert float(labels[0]) == pytest.approx(lam, abs=1e-6)
    whole = [objects[row, 0].double().numpy() for row in (0, 1)]
    share = mixed.mask[0, 0].double().numpy()
    seen = whole[0] * share, whole[1] * (1 - share)
    assert literal.lam(seen, tuple(whole), 0.625, target, weight) == pytest.approx(lam, abs=1e-6)


def test_what_is_not_known_keeps_its_area():
    """No object in A or in B: the area; both hidden: one half."""
    mixed, objects = by_hand()
    for row in (0, 1):
        unknown = objects.clone()
        unknown[row] = 0
        assert object_lam(mixed, unknown).equal(mixed.lam)
        assert object_lam(mixed, unknown, "fraction").equal(mixed.lam)
    corners = rectangles([(1, 1, 2, 2), (0, 0, 1, 1)], (4, 4))  # A's is covered, B's left out
    assert visible_share(mixed, corners)[0].isnan()
    for target in ("share", "fraction"):
        assert object_lam(mixed, corners, target)[0] == 0.5


@pytest.mark.parametrize("target", ["share", "fraction"])
@pytest.mark.parametrize("base", BASES)
def test_objects_are_counted_where_the_mix_puts_them(base, target):
    boxes = [(2, 3, 9, 30), (10, 0, 24, 12), (0, 0, 4, 5), (4, 4, 20, 28), (23, 31, 24, 32)]
    objects = rectangles(boxes)
    pixels = noise(SIZE, batch=5, seed=3)
    strategy, images = (
        create_strategy(f"oacutmix(base={base}, target={target})"),
        normalised(pixels),
    )
    for step in range(3):
        mixed = mix_with(strategy, images, objects, step)
        plain = mix_with(create_strategy(base), images, objects, step)
        assert mixed.images.equal(plain.images) and mixed.mask.equal(plain.mask)
        lam, moved = relabelled(strategy, mixed), "resizemix" in base or "puzzlemix" in base
        for row in range(5):
            other = int(mixed.partner[row])
            share = plain.mask.expand(5, 1, *SIZE)[row, 0].double().numpy()
            whole = objects[row, 0].double().numpy(), objects[other, 0].double().numpy()
            if moved:
                nothing = torch.zeros_like(objects)
                parts = plain.compose(objects, nothing), plain.compose(nothing, objects)
                seen = tuple(part[row, 0].double().numpy() for part in parts)
            else:
                seen = whole[0] * share, whole[1] * (1 - share)
            area = float(plain.lam[row])
            expected = literal.lam(seen, whole, area, target, 1.0)
            assert float(lam[row]) == pytest.approx(expected, abs=1e-5)


def test_a_partner_made_small_has_all_of_its_object():
    """ResizeMix: B's object is seen in the box as a share of all of it."""
    objects = rectangles([(0, 0, 24, 32), (0, 0, 24, 16)])
    spec = "resizemix(min_scale=0.5, max_scale=0.5)"
    images = normalised(noise(SIZE))
    by_share = create_strategy(f"oacutmix(base={spec})")
    lam = relabelled(by_share, mix_with(by_share, images, objects))
    # A: all but a quarter of 768 pixels; B: half of the quarter. Then the other way around.
    a_then_b = 576 / (576 + 96)
    assert float(lam[0]) == pytest.approx(a_then_b, abs=1e-3)
    fraction = create_strategy(f"oacutmix(base={spec}, target=fraction)")
    lam = relabelled(fraction, mix_with(fraction, images, objects))
    assert float(lam[0]) == pytest.approx(0.75 / (0.75 + 0.25), abs=1e-3)


@pytest.mark.parametrize("wrapper", ["{}", "transmix(base={})", "alternate(first={})"])
@pytest.mark.parametrize(
    "spec",
    ["oacutmix", "oacutmix(target=fraction, weight=0.5)"]
    + [f"oacutmix(base={base})" for base in ("mixup", "puzzlemix", "smmix", "mixpro", "alternate")],
)
def test_the_kit(spec, wrapper):
    check_strategy(create_strategy(wrapper.format(spec)))


def test_masks_that_nobody_hands_on_are_an_error():
    strategy, images = create_strategy("oacutmix"), normalised(noise(SIZE))
    with pytest.raises(ValueError, match="the strategy needs the objects' masks"):
        mix(strategy, images)
    ctx = dataclasses.replace(mix_context(images), objects=None)
    with pytest.raises(ValueError, match=r"oacutmix needs MixContext.objects: hand"):
        strategy.mix(images, torch.arange(2), ctx)
