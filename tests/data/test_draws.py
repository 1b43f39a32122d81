"""What is drawn for an image is what timm's RandAugment draws."""

import random

import numpy as np
import pytest

from mixbench.data.draws import Draw, StandIn
from mixbench.data.transforms import train_transform
from mixbench.recipe import load_recipe


def test_draws_are_distributed_as_timm_says():
    """Two of 15 operations with replacement, each with probability one half.

    Magnitude 9 with deviation 0.5, cut at 10.
    """
    draw, count = Draw(train_transform(load_recipe("deit_small", {"image_size": 32}))), 12_000
    random.seed(0)
    np.random.seed(0)
    kinds, factors = {}, []
    for _ in range(count):
        drawn = draw.randaugment(StandIn(32, 32))
        for kind, numbers in zip(drawn.kinds, drawn.numbers, strict=True):
            kinds[kind] = kinds.get(kind, 0) + 1
            if kind == "Contrast":
                factors.append(numbers[0])
    shares = {
        "AutoContrast": 1,
        "Equalize": 1,
        "Color": 1,
        "Contrast": 1,
        "Sharpness": 1,
        "table": 5,
        "bilinear": 2.5,
        "bicubic": 2.5,
    }
    for kind, share in shares.items():
        assert kinds[kind] == pytest.approx(
            count * share / 15, abs=5 * (count * share / 15) ** 0.5
        ), kind
    magnitude = np.abs(np.array(factors) - 1) / 0.09
    up = np.array(factors) > 1
    assert up.mean() == pytest.approx(0.5, abs=0.09) and magnitude[up].max() == pytest.approx(10)
    assert np.median(magnitude[up]) == pytest.approx(9, abs=0.15) and (
        magnitude[up] > 9.5
    ).mean() == pytest.approx(0.159, abs=0.07)
