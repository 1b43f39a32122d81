"""The loader's normalisation, there and back."""

import numpy as np
import torch

from mixbench.data.normalisation import Normalisation
from mixbench.data.transforms import eval_transform
from mixbench.recipe import load_recipe
from tests.support.photographs import picture


def test_it_is_the_loaders_and_goes_back_to_the_same_pixels():
    recipe = load_recipe("deit_small", {"image_size": 32, "crop_pct": 1.0})
    image = picture(1, 32, 32)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    normalisation = Normalisation.of(recipe.mean, recipe.std)
    normal = eval_transform(recipe)(image)
    assert torch.equal(normalisation.apply(pixels.float() / 255), normal)
    assert torch.equal(normalisation.pixels(normal[None]), pixels[None])
    torch.testing.assert_close(normalisation.undo(normal), pixels.float() / 255)


def test_numbers_and_columns_are_the_same():
    numbers = Normalisation.of((0.1, 0.2, 0.3), (1, 2, 4))
    columns = Normalisation.of(numbers.mean, numbers.std)
    assert numbers.mean.shape == columns.std.shape == (3, 1, 1)
    assert torch.equal(numbers.mean, columns.mean) and torch.equal(numbers.std, columns.std)
    assert numbers.std.flatten().tolist() == [1, 2, 4]


def test_pixels_are_rounded_and_clamped():
    normalisation = Normalisation.of((0.0,), (1.0,))
    levels = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 2.0]).reshape(1, 1, 1, 4)
    assert normalisation.pixels(levels).flatten().tolist() == [0, 0, 1, 255]
