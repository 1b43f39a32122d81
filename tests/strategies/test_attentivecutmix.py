"""Attentive CutMix against its rules."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mixbench import create_strategy, step_rng, strategy_spec
from mixbench.mix import beta
from mixbench.strategies.attentivecutmix import enlarge, top_cells
from mixbench.testing import check_strategy
from tests.support.pictures import mix, tiny_network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_network(tmp_path_factory.mktemp("weights"))


def cells_of(cells, grid=(7, 7)):
    features = torch.zeros(1, 3, *grid)
    for rank, cell in enumerate(cells):
        features[0, :, *cell] = 10.0 - rank
    return features


def test_known_cells_stay_and_the_rest_is_the_partner():
    cells = [(0, 0), (1, 5), (2, 3), (3, 3), (6, 6), (5, 1)]
    images = torch.randn(2, 3, 224, 224)
    mixed = mix("attentivecutmix", images, features=lambda x: cells_of(cells).expand(2, 3, 7, 7))
    assert (
        mixed.lam.tolist() == pytest.approx([6 / 49] * 2, abs=1e-7)
        and float(mixed.mask[0].sum()) == 6 * 32 * 32
    )
    for row in range(7):
        for col in range(7):
            source = images[0] if (row, col) in cells else images[1]
            area = (slice(None), slice(32 * row, 32 * row + 32), slice(32 * col, 32 * col + 32))
            assert mixed.images[0][area].equal(source[area])


def test_k_from_none_to_all():
    images = torch.randn(3, 3, 28, 21)
    features = torch.rand(3, 4, 7, 7)
    all_cells, none = (
        mix(f"attentivecutmix(k={k})", images, features=lambda x: features) for k in (49, 0)
    )
    assert all_cells.images.equal(images) and all_cells.lam.tolist() == [1.0] * 3
    assert none.images.equal(images.flip(0)) and none.lam.tolist() == [0.0] * 3
    with pytest.raises(ValueError, match="at most 49, the cells of resnet50's map, not 50"):
        mix("attentivecutmix(k=50)", images, features=lambda x: features)


def test_top_cells_are_numpys_and_ties_go_to_the_first():
    attention = torch.rand(20, 7, 5, generator=torch.Generator().manual_seed(0))
    for k in (1, 6, 34):
        for values, cells in zip(attention.numpy(), top_cells(attention, k).numpy(), strict=True):
            assert set(np.argsort(-values.ravel())[:k]) == set(np.flatnonzero(cells))
        assert torch.equal(top_cells(attention * 3 + 5, k), top_cells(attention, k))
    assert top_cells(torch.zeros(1, 3, 3), 4).flatten().tolist() == [1] * 4 + [0] * 5
    tied = torch.tensor([[[0.0, 2, 1], [1, 2, 1]]])
    assert top_cells(tied, 3).tolist() == [[[0, 1, 1], [0, 1, 0]]]


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (30, 45), (230, 160)])
def test_cells_on_pixels(size):
    cells = torch.arange(35.0).reshape(1, 7, 5)
    on_pixels = enlarge(cells, *size)
    expected = [
        [cells[0, y * 7 // size[0], x * 5 // size[1]].item() for x in range(size[1])]
        for y in range(size[0])
    ]
    assert on_pixels.shape == (1, 1, *size) and on_pixels[0, 0].tolist() == expected


def test_lam_is_the_share_that_is_seen_where_cells_do_not_divide():
    images = torch.randn(2, 3, 32, 32)
    mixed = mix(
        "attentivecutmix(k=1)", images, features=lambda x: cells_of([(0, 0)]).expand(2, 3, 7, 7)
    )
    assert mixed.lam.tolist() == pytest.approx([25 / 1024] * 2, abs=1e-7)  # ceil(32 / 7) squared


def test_the_last_channel():
    features = torch.zeros(2, 3, 7, 7)
    features[:, :2, 0, 0], features[:, 2, 6, 6] = 9, 1
    images = torch.randn(2, 3, 14, 14)
    for channel, corner in (("mean", (0, 0)), ("last", (13, 13))):
        mixed = mix(f"attentivecutmix(k=1, channel={channel})", images, features=lambda x: features)
        assert float(mixed.mask[0, 0][corner]) == 1


def test_beta_draws_the_number_of_cells():
    images, features = torch.randn(2, 3, 49, 49), torch.rand(2, 1, 7, 7)
    counts = []
    for step in range(60):
        mixed = mix("attentivecutmix(k=beta)", images, step=step, features=lambda x: features)
        counts.append(round(float(mixed.lam[0]) * 49))
        assert counts[-1] == max(int(49 * beta(step_rng(0, step), 2.0)), 1)
    assert len(set(counts)) > 20 and min(counts) >= 1


@pytest.mark.parametrize(
    "spec",
    ["attentivecutmix", "attentivecutmix(k=beta, channel=last)", "attentivecutmix(dtype=bfloat16)"],
)
def test_attentivecutmix_passes_the_kit(spec, checkpoint):
    check_strategy(replace(create_strategy(spec), network=checkpoint))


def test_attentivecutmix_as_a_base_and_as_text(checkpoint):
    strategy = create_strategy(
        f"alternate(first=transmix(base=attentivecutmix(network={checkpoint!r})), second=mixup)"
    )
    assert (
        strategy.needs.network == checkpoint
        and create_strategy(strategy_spec(strategy)) == strategy
    )
    assert create_strategy("attentivecutmix(dtype=bfloat16)").needs.network == "resnet50 bfloat16"
