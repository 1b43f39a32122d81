"""Label error against hand-worked cases, and by strategy."""

import pytest
import torch

from mixbench import MixedBatch, ModelOutput, create_strategy, make_context
from mixbench.data.normalisation import Normalisation
from mixbench.data.scenes import draw_scene
from mixbench.evaluations.label_error import label_error, visible_share
from mixbench.models.build import build_model
from mixbench.training.forward import Network

HALF = Normalisation.of((0.5,) * 3, (0.5,) * 3)


class Given(Network):
    """A network whose attention is given as a function of mixed images."""

    def __init__(self, model, attention):
        super().__init__(model)
        self.attention = attention

    def __call__(self, images):
        return ModelOutput(self.model(images), self.attention(images))


def network():
    return Network(build_model("resnet10t", num_classes=10, image_size=32, seed=0))


def scenes(count):
    return [draw_scene(0, index, 32) for index in range(count)]


def under(mask, move=None):
    """Two images of 2 x 4 pixels, each the other's partner."""
    images, labels = torch.zeros(2, 3, 2, 4), torch.tensor([0, 1])
    return MixedBatch(images=images, labels=labels, partner=labels.flip(0), mask=mask, move=move)


def test_visible_share_by_hand():
    objects = torch.zeros(2, 1, 2, 4)
    objects[0, 0, 0, :3] = 1  # 3 pixels in the upper row
    objects[1, 0, :, 3] = 1  # 2 pixels in the last column
    left = torch.zeros(1, 1, 1, 4)
    left[..., :2] = 1  # A on the left half
    assert visible_share(under(left), objects).tolist() == pytest.approx([2 / 4, 0 / 1])
    quarter = under(torch.full((1, 1, 1, 1), 0.25))
    assert visible_share(quarter, objects).tolist() == pytest.approx([0.75 / 2.25, 0.5 / 2.75])
    assert visible_share(quarter, objects * 0).isnan().all()
    turned = under(left, move=lambda maps: (left * maps.flip(3), (1 - left) * maps.flip(0)))
    assert visible_share(turned, objects).tolist() == pytest.approx([1 / 3, 2 / 3])


def test_error_by_strategy():
    errors = {
        spec: label_error(create_strategy(spec), network(), scenes(200), HALF)
        for spec in ("none", "cutmix", "mixup", "saliencymix")
    }
    assert errors["none"] == 0 and errors["saliencymix"] > 0
    assert 5 < errors["cutmix"] < 40 and 0 < errors["mixup"] < 15


def test_attention_on_the_objects_brings_the_label_to_what_is_visible():
    """Attention on the visible objects alone, in proportion, gives the visible share itself."""
    drawn, cutmix = scenes(50), create_strategy("cutmix")
    objects = torch.stack([torch.from_numpy(scene.mask) for scene in drawn]).float()

    def attention(images):  # the mix is drawn again: same seed, same step
        pixels = torch.stack([torch.from_numpy(scene.image) for scene in drawn])
        source = (pixels.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        labels = torch.zeros(50, dtype=torch.int64)
        ctx = make_context(
            cutmix, torch.nn.Identity(), source, seed=0, step=0, mean=HALF.mean, std=HALF.std
        )
        mixed = cutmix.mix(source, labels, ctx)
        assert torch.equal(mixed.images, images)
        return mixed.mask[:, 0] * objects + (1 - mixed.mask[:, 0]) * objects.flip(0)

    transmix = create_strategy("transmix(attention_weight=1.0)")
    error = label_error(transmix, Given(network().model, attention), drawn, HALF)
    assert error == pytest.approx(0, abs=1e-3)


def test_every_scene_counts_whatever_their_number():
    """Mixup's error in batches of 50 and a rest is the mean over all images, by a plain loop."""
    mixup, drawn = create_strategy("mixup"), scenes(70)
    objects = torch.stack([torch.from_numpy(scene.mask) for scene in drawn]).double()
    sizes = objects.sum((1, 2))
    errors = []
    for step, (begin, end) in enumerate([(0, 50), (50, 70)]):
        images = torch.zeros(end - begin, 3, 32, 32)
        ctx = make_context(
            mixup, torch.nn.Identity(), images, seed=0, step=step, mean=HALF.mean, std=HALF.std
        )
        lam = float(mixup.mix(images, torch.zeros(len(images)), ctx).lam[0])
        for ours, theirs in zip(range(begin, end), reversed(range(begin, end)), strict=True):
            visible = lam * sizes[ours] / (lam * sizes[ours] + (1 - lam) * sizes[theirs])
            errors.append(abs(lam - float(visible)))
    expected = 100 * sum(errors) / len(errors)
    assert label_error(mixup, network(), drawn, HALF) == pytest.approx(expected, rel=1e-5)
    assert label_error(mixup, network(), drawn[:7], HALF) > 0
    with pytest.raises(ValueError, match="2 scenes or more to mix, not 1"):
        label_error(mixup, network(), drawn[:1], HALF)


def test_strategies_that_move_pixels_and_say_where_have_one():
    moving = create_strategy("puzzlemix(beta=0, eta=0, transport_eps=0)")
    assert 0 < label_error(moving, network(), scenes(50), HALF) < 50


def test_strategies_that_change_pixels_have_none():
    changing = create_strategy("puzzlemix(adv_p=1.0)")
    assert label_error(changing, network(), scenes(50), HALF) is None
