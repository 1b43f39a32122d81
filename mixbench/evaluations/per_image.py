"""What the images of one model say of a figure, and of two models' difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

DRAWS = 2000
CELLS = 4_000_000  # values that are drawn at once


def bootstrap_interval(values: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean of values (n,), from fixed draws.

    Values of one group (n,) are drawn together, since they had something in common; without groups
    each by itself. NaN are left out. ValueError where fewer than two are left to draw.
    """
    from scipy.stats import bootstrap

    groups = np.arange(len(values)) if groups is None else groups
    known = np.isfinite(values)
    _, places = np.unique(groups[known], return_inverse=True)
    sums, counts = np.bincount(places, values[known]), np.bincount(places)
    if len(sums) < 2:
        raise ValueError(f"an interval needs two images or draws or more, not {len(sums)}")
    found = bootstrap(
        (sums, counts),
        lambda total, count, axis=-1: total.sum(axis) / count.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=DRAWS,
        batch=max(1, CELLS // len(sums)),
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def paired_sentences(
    values: Mapping[str, np.ndarray],
    order: Sequence[str],
    words: str,
    groups: np.ndarray | None = None,
) -> list[str]:
    """How models of one seed differ from the first, or from cutmix, over the same images.

    values (n,) by strategy, NaN where an image has none, groups as of bootstrap_interval. No
    sentence for a model whose images are
    others, or fewer than two.
    """
    specs = [spec for spec in order if spec in values]
    if not specs:
        return []
    baseline = "cutmix" if "cutmix" in specs else specs[0]
    sentences = []
    for spec in specs:
        if spec == baseline or values[spec].shape != values[baseline].shape:
            continue
        difference = values[spec] - values[baseline]
        count = np.isfinite(difference).sum()
        if count < 2:
            continue
        low, high = bootstrap_interval(difference, groups)
        sentences.append(
            f"{spec} against {baseline}, {words}: {np.nanmean(difference):+.2f} [{low:+.2f}, "
            f"{high:+.2f}] over the same {count:,} images (bootstrap); another seed may "
            "differ by more"
        )
    return sentences
