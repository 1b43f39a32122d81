"""Operations on batches are Pillow's, to the bit."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import (
    _RAND_INCREASING_TRANSFORMS,
    _RAND_TRANSFORMS,
    AugmentOp,
    rand_augment_transform,
)

from mixbench.data.draws import Draw, StandIn
from mixbench.data.operations import OPERATIONS
from tests.support.photographs import picture

NAMES = list(dict.fromkeys([*_RAND_INCREASING_TRANSFORMS, *_RAND_TRANSFORMS]))
FILL = (124, 116, 104)


def flat_pictures():
    few = np.random.default_rng(0).integers(90, 95, (23, 31, 3)).astype(np.uint8)
    return [
        Image.new("RGB", (31, 23), (7, 7, 200)),
        Image.fromarray(few),
        Image.fromarray(np.where(few > 92, 255, 0).astype(np.uint8)),
    ]


def drawn_by(op):
    class OneStep:
        transforms = [None, rand_augment_transform("rand-m9-inc1", {"img_mean": FILL})]

    OneStep.transforms[1].ops = [op]
    return Draw(OneStep).randaugment.ops[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("interpolation", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_operations_are_pillows(name, interpolation):
    images = [*(picture(seed, 31, 23) for seed in range(3)), *flat_pictures()]
    for level in (0.2, 4.5, 7.4) if name.startswith("Posterize") else (0.2, 4.5, 9, 9.7, 10):
        theirs = AugmentOp(
            name,
            prob=1.0,
            magnitude=level,
            hparams={"img_mean": FILL, "interpolation": interpolation},
        )
        if name.startswith("Posterize") and theirs.level_fn(level, {})[0] < 1:
            continue
        expected, drawn = [], []
        for number, image in enumerate(images):
            random.seed(number)
            expected.append(np.asarray(theirs(image)))
            random.seed(number)
            drawn.append(drawn_by(theirs)(StandIn(*image.size)))
        [kind] = {stand_in.kinds[0] for stand_in in drawn}
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        numbers, tables = (
            torch.from_numpy(np.concatenate([getattr(stand_in, part) for stand_in in drawn]))
            for part in ("numbers", "tables")
        )
        got = OPERATIONS[kind](pixels, numbers, tables)
        assert got.dtype == torch.uint8
        assert torch.equal(got.permute(0, 2, 3, 1), torch.from_numpy(np.stack(expected))), level
