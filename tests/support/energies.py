"""Problems of Puzzle-Mix's mask: drawn at random, and as smooth images give them."""

import itertools

import torch
import torch.nn.functional as F

from mixbench import testing
from mixbench.puzzle.energy import block_saliency, mask_energy

MEAN, STD = (torch.tensor(values).reshape(3, 1, 1) for values in (testing.MEAN, testing.STD))
DEFAULTS = {"num_labels": 3, "beta": 1.2, "gamma": 0.5, "eta": 0.2, "cell": 2}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def problem(batch, n, num_labels, seed=0, weight=1.0, dtype=torch.float64):
    rng = generator(seed)
    unary = torch.randn(batch, n, n, num_labels, generator=rng, dtype=dtype)
    vertical = torch.rand(batch, n - 1, n, generator=rng, dtype=dtype) * weight
    return unary, vertical, torch.rand(batch, n, n - 1, generator=rng, dtype=dtype) * weight


def smooth(*shape, seed, blur):
    """Noise blurred over `blur` pixels, in [0, 1] in each image, like the shapes of photographs."""
    noise = torch.randn(
        *shape[:-2], shape[-2] + blur - 1, shape[-1] + blur - 1, generator=generator(seed)
    )
    blurred = F.avg_pool2d(noise, blur, 1)
    low, high = blurred.amin((-2, -1), keepdim=True), blurred.amax((-2, -1), keepdim=True)
    return (blurred - low) / (high - low)


def smooth_batch(batch, seed, height=64, width=64):
    """Images normalised, labels, and a gradient that is large on a blob of each image."""
    pixels = smooth(batch, 3, height, width, seed=seed, blur=9)
    blob = smooth(batch, 1, height, width, seed=seed + 1, blur=15) ** 4
    gradient = blob * torch.randn(batch, 3, height, width, generator=generator(seed + 2)) * 1e-4
    return (pixels - MEAN) / STD, torch.arange(batch) % 5, gradient


def energies(batch, n, alpha, seed=0, num_labels=3):
    images, _, gradient = smooth_batch(batch, seed)
    return mask_energy(
        block_saliency(gradient, n), images, STD, alpha, **{**DEFAULTS, "num_labels": num_labels}
    )


def all_labels(n, num_labels, batch=1):
    every = torch.tensor(list(itertools.product(range(num_labels), repeat=n * n)))
    return every.reshape(-1, 1, n, n).expand(-1, batch, -1, -1)
