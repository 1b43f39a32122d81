"""Every parameter of every built-in strategy: what is refused, and that the rest works."""

import dataclasses
import itertools
import math

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from mixbench import ModelOutput, create_strategy, make_context, soft_targets, strategy_spec
from mixbench.registry import BUILTIN, strategy_class
from mixbench.spec import field_types
from mixbench.strategies.attentivecutmix import AttentiveCutMix
from mixbench.strategies.cutmix import CutMix
from mixbench.strategies.mixup import Mixup
from mixbench.strategies.transmix import TransMix
from mixbench.testing import MEAN, STD

POSITIVE = ([5e-324, 0.5, 1, 1e308], [0, -1])
SHARE = ([0, 0.5, 1], [-0.01, 1.01, 2])
WEIGHT = ([0, 0.5, 2, 1e6], [-1, 1.1e6, 1e308])
SWITCH = ([True, False], [2])
STRATEGY = ([Mixup(0.5), CutMix(per_sample=True)], [CutMix])
PARAMETERS = {  # of each the values that make sense by its paper, and values that do not
    "mixup alpha": POSITIVE,
    "cutmix alpha": POSITIVE,
    "cutmix per_sample": SWITCH,
    "alternate first": STRATEGY,
    "alternate second": STRATEGY,
    "alternate switch_prob": SHARE,
    "saliencymix alpha": POSITIVE,
    "saliencymix scope": (["sample", "batch"], ["Sample", 1]),
    "saliencymix source": (["uint8", "opencv", "official"], ["float", 1]),
    "attentivecutmix k": ([0, 1, 49, "beta"], [-1, 2**17, 1.5, "alpha", "6"]),
    "attentivecutmix network": (["resnet50", "resnet18:weights.pth"], [1]),
    "attentivecutmix channel": (["mean", "last"], ["first", 1]),
    "attentivecutmix dtype": (["float32", "bfloat16"], ["float64", 1]),
    "puzzlemix alpha": POSITIVE,
    "puzzlemix num_labels": ([2, 3, 4], [1, 5, 2.0]),
    "puzzlemix beta": WEIGHT,
    "puzzlemix gamma": SHARE,
    "puzzlemix eta": WEIGHT,
    "puzzlemix neigh_size": ([1, 2, 3, 32, 2**16], [0, -1, 1.5, 2**17]),
    "puzzlemix transport": SWITCH,
    "puzzlemix transport_eps": WEIGHT,
    "puzzlemix clean_lam": WEIGHT,
    "puzzlemix adv_p": SHARE,
    "puzzlemix adv_eps": ([0, 0.5, 255], [-1, 256]),
    "resizemix min_scale": ([0.01, 0.5, 0.8], [0, -1, 1.5]),
    "resizemix max_scale": ([0.1, 0.5, 1], [0, -1, 1.5]),
    "gridmix alpha": POSITIVE,
    "gridmix low": ([1, 2, 6], [0, -1, 1.5, 2**17]),
    "gridmix high": ([2, 6, 16], [0, -1, 1.5, 2**17]),
    "fmix alpha": POSITIVE,
    "fmix decay": ([0, 3, 10], [-1, 10.1]),
    "fmix max_soft": ([0, 0.25, 0.5], [-0.1, 0.51]),
    "maskmix alpha": POSITIVE,
    "maskmix grid": ([2, 4, 7, 32], [1, 0, -1, 1.5, 2**17]),
    "guidedmixup pairing": (["greedy", "mirror"], ["Greedy", 1]),
    "tokenmix share": (["released", 0.2, 0.5, 0.8], [0, 1, -0.1, 2, "official"]),
    "tokenmix patch": ([0, 1, 16], [-1, 1.5, 2**17]),
    "smmix low": ([1, 3, 10], [0, -1, 15, 1.5]),
    "smmix high": ([3, 10, 14], [0, -1, 15, 1.5]),
    "oacutmix base": STRATEGY,
    "oacutmix target": (["share", "fraction"], ["Share", 1]),
    "oacutmix weight": SHARE,
    "transmix base": STRATEGY,
    "transmix attention_weight": SHARE,
    "transmix attention": ([1, 12, "last", "rollout"], [0, -1, 1.5, 10**6]),
    "transmix downsample": (["nearest", "area"], ["bicubic", 1]),
    "transmix renormalise": SWITCH,
    "tlalign base": STRATEGY,
    "mixpro base": STRATEGY,
    "mixpro attention": ([1, 12, "last", "rollout"], [0, -1, 1.5, 10**6]),
    "regmixup alpha": POSITIVE,
}
NEVER = [math.nan, math.inf, -math.inf, 10**400, -(10**400), None, "", " ", "a\0b", [1], (1,), 1j]
BARE = {float: [True, "x", "1"], int: [True, "x", "1"], bool: [0, 1, "true", 0.5], str: [True, 0]}


def strategy_with(name, value):
    strategy, field = name.split()
    # noise is drawn for half of the sides, so that its strength has an effect
    more = {"adv_p": 0.5} if field == "adv_eps" else {}
    return strategy_class(strategy)(**{field: value}, **more)


def test_every_parameter_is_here():
    fields = [
        f"{name} {field.name}"
        for name in BUILTIN
        for field in dataclasses.fields(strategy_class(name))
    ]
    assert sorted(fields) == sorted(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_wrong_values_are_refused_in_one_sentence(name):
    strategy, field = name.split()
    hint = field_types(strategy_class(strategy))[field]
    for value in (*PARAMETERS[name][1], *NEVER, object(), *BARE.get(hint, [True])):
        with pytest.raises(ValueError) as caught:
            strategy_with(name, value)
        message = str(caught.value)
        assert message.startswith(f"{name} must ") and len(message) < 300, value
        assert not set("\n\0") & set(message), value


class Means(torch.nn.Module):
    """Four logits of an image's three mean colors."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(3, 4)

    def forward(self, images):
        return self.last(images.mean((2, 3)))


@pytest.mark.parametrize("name", PARAMETERS)
def test_right_values_give_images_and_labels_that_are_whole(name):
    rng = torch.Generator().manual_seed(0)
    images, labels = torch.randn(4, 3, 32, 32, generator=rng), torch.arange(4)
    output = ModelOutput(torch.zeros(4, 4), torch.rand(4, 2, 2, generator=rng))
    for value, step in itertools.product(PARAMETERS[name][0], range(3)):
        strategy = strategy_with(name, value)
        assert create_strategy(strategy_spec(strategy)) == strategy
        mixed = strategy.mix(images, labels, context(strategy, images, step))
        assert mixed.images.isfinite().all(), value
        targets = soft_targets(mixed, strategy.relabel(mixed, output), 4)
        assert targets.min() >= 0, value
        assert torch.allclose(targets.sum(1), torch.ones(4)), value


def context(strategy, images, step):
    """A step's context, in which a network's features are the images in 7 x 7 cells."""
    needs_network = isinstance(strategy, AttentiveCutMix)
    served = Mixup() if needs_network else strategy
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "num_heads": 2, "depth": 1}
    model = VisionTransformer(**sizes, num_classes=4) if strategy.needs.look else Means()
    objects, part = torch.ones(len(images), 1, 32, 32), strategy.build(model, 4, 32)
    settings = {"seed": 0, "step": step, "mean": MEAN, "std": STD, "objects": objects}
    ctx = make_context(served, model, images, part=part, **settings)
    cells = torch.nn.AdaptiveAvgPool2d(7)
    return dataclasses.replace(ctx, features=cells) if needs_network else ctx


def test_a_subclass_is_held_to_the_same():
    @dataclasses.dataclass(frozen=True)
    class Mine(TransMix):
        attention_weight: float = 0.25
        any_text: str = ""

    assert Mine().attention_weight == 0.25
    with pytest.raises(ValueError, match="attention_weight must be between 0 and 1, not 2"):
        Mine(attention_weight=2)
