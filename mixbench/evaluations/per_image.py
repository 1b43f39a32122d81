"""What the images of one model say of a figure, and of two models' difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

DRAWS = 2000
CELLS = 4_000_000  # values that are drawn at once


def bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean of values (n,), from fixed draws.

    ValueError for fewer than two values.
    """
    from scipy.stats import bootstrap

    if len(values) < 2:
        raise ValueError(f"an interval needs two images or more, not {len(values)}")
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=DRAWS,
        batch=max(1, CELLS // len(values)),
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def paired_sentences(
    values: Mapping[str, np.ndarray], order: Sequence[str], words: str
) -> list[str]:
    """How models of one seed differ from the first, or from cutmix, over the same images.

    values (n,) by strategy, NaN where an image has none. No sentence for a model whose images are
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
        difference = difference[np.isfinite(difference)]
        if len(difference) < 2:
            continue
        low, high = bootstrap_interval(difference)
        sentences.append(
            f"{spec} against {baseline}, {words}: {difference.mean():+.2f} [{low:+.2f}, "
            f"{high:+.2f}] over the same {len(difference):,} images (bootstrap); another seed may "
            "differ by more"
        )
    return sentences
