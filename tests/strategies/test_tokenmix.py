"""TokenMix against a token loop, figures worked out again, and its draws."""

import math
from collections import Counter

import pytest
import torch

from baselines.reference import tokenmix as literal
from mixbench import create_strategy, step_rng
from mixbench.mix import randint, uniform
from mixbench.strategies.tokenmix import draw_tokens, token_grid, wanted_tokens
from tests.support.pictures import mix


def taken(rng, rows, cols, wanted):
    """The tokens that are the partner's."""
    cells = draw_tokens(rng, rows, cols, wanted)
    return {(y, x) for y, row in enumerate(cells) for x, cell in enumerate(row) if not cell}


@pytest.mark.parametrize("grid", [(14, 14), (7, 7), (4, 6), (2, 2), (2, 30)])
@pytest.mark.parametrize("share", ["released", 0.2, 0.7])
def test_draws(grid, share):
    wanted = wanted_tokens(grid[0] * grid[1], share)
    for step in range(40):
        ours, theirs = step_rng(0, step), step_rng(0, step)
        expected = literal.tokens(
            lambda rng=theirs: uniform(rng), lambda n, rng=theirs: randint(rng, n), grid, wanted
        )
        assert taken(ours, *grid, wanted) == expected
        assert uniform(ours) == uniform(theirs)  # both have drawn as often


def test_how_many_tokens_the_partner_has():
    """What the released code takes, and how often the last tokens fit."""
    assert [wanted_tokens(n, "released") for n in (196, 49, 16, 4)] == [112, 27, 9, 2]
    assert [wanted_tokens(196, share) for share in (0.5, 0.25, 0.1)] == [98, 49, 20]
    rng = step_rng(0, 0)
    counts = Counter(len(taken(rng, 14, 14, 112)) for _ in range(3000))
    assert max(counts) == 112
    # 98.8 % and 1.1 % of 3,000 other draws, whose standard deviation is .2 points
    assert counts[112] / 3000 == pytest.approx(0.988, abs=0.01)
    assert counts[111] / 3000 == pytest.approx(0.011, abs=0.01)
    unmixed = sum(not taken(rng, 2, 2, 2) for _ in range(3000)) / 3000
    assert unmixed == pytest.approx(0.014, abs=0.01)


@pytest.mark.parametrize(
    ("size", "grid", "spec", "tokens"),
    [
        ((32, 48), (4, 6), "tokenmix", (4, 6)),
        ((32, 48), (4, 6), "tokenmix(patch=16)", (2, 3)),
        ((33, 47), None, "tokenmix", (3, 3)),
        ((33, 47), None, "tokenmix(patch=8, share=0.3)", (5, 6)),
        ((21, 33), (3, 5), "tokenmix", (3, 5)),
    ],
)
def test_pixels_are_the_tokens(size, grid, spec, tokens):
    strategy = create_strategy(spec)
    assert token_grid(*size, grid, strategy.patch) == tokens
    images = torch.randn(5, 3, *size, generator=torch.Generator().manual_seed(0))
    wanted = wanted_tokens(math.prod(tokens), strategy.share)
    for step in range(5):
        mixed = mix(strategy, images, step=step, grid=grid)
        of_b = taken(step_rng(0, step), *tokens, wanted)
        share = torch.from_numpy(literal.mask(*size, tokens, of_b)).float()
        assert mixed.mask.equal(share[None, None])
        assert mixed.images.equal(torch.where(share.bool(), images, images.flip(0)))


def test_what_cannot_be_mixed_is_refused():
    images = torch.randn(2, 3, 16, 64)
    with pytest.raises(ValueError, match="2 x 2 tokens or more, not 1 x 4 of 16 x 64 px"):
        mix("tokenmix", images)
    assert mix("tokenmix(patch=8)", images).images.shape == images.shape
    with pytest.raises(ValueError, match=r"0.05 of 8 is 0: choose a share nearer to 0.5"):
        mix("tokenmix(patch=8, share=0.05)", torch.randn(2, 3, 16, 32))
    bounds = "share must be 'released' or a number above 0 and below 1"
    for wrong in (1, 0, "official"):
        with pytest.raises(ValueError, match=f"{bounds}, not {wrong!r}"):
            create_strategy(f"tokenmix(share={wrong})")
