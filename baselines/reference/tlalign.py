"""TL-Align's labels from its paper's description (arXiv 2210.06455): the tests' oracle."""

from collections.abc import Sequence

import numpy as np

from baselines.reference.transmix import Array, downsample


def lam(mask: Array, blocks: Sequence[Array], grid: tuple[int, int], prefix: int = 1) -> float:
    """A's share of a label; mask (H, W) is A's share of each pixel, grid the patches (h, w).

    blocks are the attention of each block with heads averaged, (N, N), prefix tokens first. Every
    token's label is carried through all blocks, and the class token's is read at the end.
    """
    area = [float(mask.mean())] * prefix
    labels = np.array([*area, *downsample(mask, grid).flatten()])
    for attention in blocks:
        labels = (attention @ labels + labels) / 2
    return float(labels[0])
