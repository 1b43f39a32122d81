"""Label error against hand-worked cases, and by strategy."""

import pytest
import torch

from mixbench import ModelOutput, create_strategies, create_strategy
from mixbench.data.scenes import draw_scene
from mixbench.evaluations.label_error import label_error, visible_share
from mixbench.models.build import build_model
from mixbench.training.learner import Learner
from mixbench.training.objective import forward_pass

HALF = ((0.5,) * 3, (0.5,) * 3)


class Given:
    """A tap whose attention is given."""

    def __init__(self, call):
        self.call = call

    def __call__(self, images):
        return self.call(images)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def learner(spec, attention=None):
    """A learner whose class attention is `attention`, a function of mixed images."""
    strategy = create_strategy(spec)
    model = build_model("resnet10t", 10, 0, image_size=32)
    tap = Given(lambda images: ModelOutput(model(images), attention(images))) if attention else None
    return Learner(
        strategy=strategy,
        mixing=strategy,
        model=model,
        net=forward_pass(model, tap, False),
        tap=tap,
    )


def test_visible_share_by_hand():
    objects = torch.zeros(2, 1, 2, 4)
    objects[0, 0, 0, :3] = 1  # 3 pixels in the upper row
    objects[1, 0, :, 3] = 1  # 2 pixels in the last column
    left = torch.zeros(1, 1, 1, 4)
    left[..., :2] = 1  # A on the left half
    assert visible_share(left, objects, torch.tensor([1, 0])).tolist() == pytest.approx(
        [2 / 4, 0 / 1]
    )
    assert visible_share(
        torch.full((1, 1, 1, 1), 0.25), objects, torch.tensor([1, 0])
    ).tolist() == pytest.approx([0.75 / 2.25, 0.5 / 2.75])
    assert visible_share(torch.ones(1, 1, 1, 1), objects * 0, torch.tensor([1, 0])).isnan().all()


def test_error_by_strategy():
    scenes = [draw_scene(0, index, 32) for index in range(200)]
    mean, std = HALF
    errors = {
        spec: label_error(learner(spec), scenes, mean=mean, std=std, device=torch.device("cpu"))
        for spec in ("none", "cutmix", "mixup", "saliencymix")
    }
    assert (
        errors["none"] == 0
        and 5 < errors["cutmix"] < 40
        and 0 < errors["mixup"] < 15
        and errors["saliencymix"] > 0
    )


def test_attention_on_the_objects_brings_the_label_to_what_is_visible():
    """Attention that lies on the visible objects alone, in proportion, gives the visible share itself."""
    scenes = [draw_scene(0, index, 32) for index in range(50)]
    objects = torch.stack([torch.from_numpy(scene.mask) for scene in scenes]).float()
    strategy = create_strategies("cutmix")[0]
    mean, std = HALF

    def attention(images):  # the mix is drawn again: same seed, same step
        from mixbench import make_context

        pixels = torch.stack([torch.from_numpy(s.image) for s in scenes]).permute(0, 3, 1, 2)
        source = (pixels / 255 - 0.5) / 0.5
        mixed = strategy.mix(
            source,
            torch.zeros(50, dtype=torch.int64),
            make_context(strategy, torch.nn.Identity(), source, seed=0, step=0, mean=mean, std=std),
        )
        assert torch.equal(mixed.images, images)
        return mixed.mask[:, 0] * objects + (1 - mixed.mask[:, 0]) * objects.flip(0)

    error = label_error(
        learner("transmix(attention_weight=1.0)", attention),
        scenes,
        mean=mean,
        std=std,
        device=torch.device("cpu"),
    )
    assert error == pytest.approx(0, abs=1e-3)


def test_strategies_that_move_pixels_have_none():
    scenes = [draw_scene(0, index, 32) for index in range(50)]
    moving = learner("puzzlemix(transport_eps=0.0)")
    assert (
        label_error(moving, scenes, mean=HALF[0], std=HALF[1], device=torch.device("cpu")) is None
    )
