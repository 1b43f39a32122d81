"""Dropped and shuffled patches against pixel loops, closed forms and the official mask's rule."""

import numpy as np
import pytest
import torch

from mixbench.evaluations.robustness import (
    SHUFFLE_GRIDS,
    area_under,
    drop_counts,
    drop_patches,
    first_of,
    least_first,
    mass_counts,
    on_grid,
    random_permutation,
    shuffle_patches,
)


def pictures(count=3, height=24, width=32):
    return np.random.default_rng(0).uniform(0.1, 1, (count, 3, height, width)).astype(np.float32)


def cell_of(y, x, images, grid):
    rows, columns = grid
    return y * rows // images.shape[2] * columns + x * columns // images.shape[3]


def dropped_by_loop(images, indices, grid):
    result = images.copy()
    for image, numbers in enumerate(indices):
        for y in range(images.shape[2]):
            for x in range(images.shape[3]):
                if cell_of(y, x, images, grid) in numbers:
                    result[image, :, y, x] = 0
    return result


def shuffled_by_loop(images, permutations, grid):
    result, (rows, columns) = np.empty_like(images), grid
    h, w = images.shape[2] // rows, images.shape[3] // columns
    for image, permutation in enumerate(permutations):
        for to, come in enumerate(permutation):
            (r, c), (s, d) = divmod(to, columns), divmod(come, columns)
            result[image, :, r * h : r * h + h, c * w : c * w + w] = images[
                image, :, s * h : s * h + h, d * w : d * w + w
            ]
    return result


@pytest.mark.parametrize("grid", [(2, 4), (4, 2), (24, 32), (1, 1), (3, 8)])
def test_dropping_and_shuffling_equal_pixel_loops(grid):
    images, rng, cells = pictures(), np.random.default_rng(1), grid[0] * grid[1]
    orders = np.stack([rng.permutation(cells) for _ in images])
    dropped = orders[:, : cells // 2]
    expected = dropped_by_loop(images, [set(row) for row in dropped.tolist()], grid)
    np.testing.assert_array_equal(drop_patches(images, dropped, grid), expected)
    shared = dropped_by_loop(images, [set(dropped[0].tolist())] * 3, grid)
    np.testing.assert_array_equal(drop_patches(images, dropped[0], grid), shared)
    np.testing.assert_array_equal(
        shuffle_patches(images, orders, grid), shuffled_by_loop(images, orders, grid)
    )
    shared = shuffled_by_loop(images, [orders[1]] * 3, grid)
    got = shuffle_patches(torch.from_numpy(images), torch.from_numpy(orders[1]), grid)
    np.testing.assert_array_equal(got.numpy(), shared)


def test_the_callers_images_stay_and_nothing_dropped_is_the_identity():
    images = torch.from_numpy(pictures())
    before = images.clone()
    drop_patches(images, [0, 5], 4)
    shuffle_patches(images, [3, 2, 1, 0], 2)
    assert torch.equal(images, before)
    for nothing in ([], np.zeros((3, 0), dtype=np.int64), torch.zeros(0)):
        assert torch.equal(drop_patches(images, nothing, 4), images)
    assert torch.equal(shuffle_patches(images, [0], 1), images)
    assert not drop_patches(images, range(16), 4).any()


@pytest.mark.parametrize("grid", SHUFFLE_GRIDS)
def test_the_official_grids_keep_every_pixel_and_come_back(grid):
    images = torch.from_numpy(pictures(2, 224, 224))
    permutation = random_permutation(0, 1, grid[0] * grid[1])
    shuffled = shuffle_patches(images, permutation, grid)
    assert not torch.equal(shuffled, images)
    assert torch.equal(shuffled.flatten(2).sort().values, images.flatten(2).sort().values)
    assert torch.equal(shuffle_patches(shuffled, permutation.argsort(), grid), images)


def test_the_official_counts_of_dropped_patches():
    assert drop_counts(196) == [0, 19, 39, 58, 78, 98, 117, 137, 156, 176]
    assert drop_counts(5, 2) == [0, 2]


def test_a_permutation_is_of_its_seed_and_image_alone():
    first = random_permutation(0, 7, 50)
    assert sorted(first.tolist()) == list(range(50))
    torch.rand(3)
    assert torch.equal(first, random_permutation(0, 7, 50))
    others = [random_permutation(0, 8, 50), random_permutation(1, 7, 50)]
    assert not any(torch.equal(first, other) for other in others)


def test_each_patch_is_dropped_as_often():
    first = torch.stack([random_permutation(3, image, 6)[:3] for image in range(3000)])
    counts = first.flatten().bincount(minlength=6)
    assert ((counts - 1500).abs() < 4 * (3000 * 0.25) ** 0.5).all()


@pytest.mark.parametrize("grid", [(2, 3), (4, 6), (7, 7), (3, 9), (16, 16)])
def test_a_map_is_averaged_to_a_grid_by_area(grid):
    saliency = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(0))
    fine = saliency.repeat_interleave(336, 1).repeat_interleave(168, 2)  # 1344 x 1008 points
    rows, columns = grid
    expected = torch.stack(
        [
            torch.stack(
                [
                    fine[:, r * 1344 // rows : (r + 1) * 1344 // rows][
                        :, :, c * 1008 // columns : (c + 1) * 1008 // columns
                    ]
                    .double()
                    .mean((1, 2))
                    for c in range(columns)
                ],
                1,
            )
            for r in range(rows)
        ],
        1,
    )
    torch.testing.assert_close(on_grid(saliency, grid).double(), expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(on_grid(saliency, grid).mean((1, 2)), saliency.mean((1, 2)))


def test_equal_patches_are_dropped_in_raster_order():
    assert least_first(torch.tensor([[[1.0, 0, 1], [0, 2, 0]]])).tolist() == [[1, 3, 5, 0, 2, 4]]


def official_salient(attn, share):
    """IPViT's rule for one map: patches whose ascending cumulative share is above 1 - share."""
    values, order = attn.sort()
    above = (values / values.sum()).cumsum(0) > 1 - share
    return above[order.argsort()]


@pytest.mark.parametrize("share", [0.1, 0.35, 0.5, 0.8])
def test_dropping_by_mass_is_the_official_mask(share):
    maps = torch.rand(64, 14, 14, generator=torch.Generator().manual_seed(1)).double() ** 4
    least = least_first(maps)
    salient = first_of(least.flip(1), mass_counts(maps, share, salient=True))
    expected = torch.stack([official_salient(row, share) for row in maps.flatten(1)])
    assert torch.equal(salient, expected)
    rest = first_of(least, mass_counts(maps, 1 - share, salient=False))
    assert torch.equal(rest, ~salient)


def test_shares_of_none_and_all_are_exact():
    maps = torch.rand(5, 3, 3, generator=torch.Generator().manual_seed(2))
    for salient in (True, False):
        assert mass_counts(maps, 0.0, salient).tolist() == [0] * 5
        assert mass_counts(maps, 1.0, salient).tolist() == [9] * 5


def test_a_flat_map_drops_a_share_of_the_patches():
    flat = torch.ones(1, 2, 5)
    assert [int(mass_counts(flat, k / 10, True)) for k in range(10)] == list(range(10))
    assert [int(mass_counts(flat, k / 10, False)) for k in range(10)] == list(range(10))


def test_salient_and_non_salient_by_count_are_complements():
    maps = torch.randint(4, (6, 4, 4), generator=torch.Generator().manual_seed(3)).float()
    least = least_first(maps)
    for count in range(17):
        salient = first_of(least.flip(1), torch.full((6,), count))
        rest = first_of(least, torch.full((6,), 16 - count))
        assert (salient.sum(1) == count).all() and torch.equal(rest, ~salient)
        kept = maps.flatten(1).where(~salient, -1).amax(1)
        assert (maps.flatten(1).where(salient, 9).amin(1) >= kept).all()


def test_the_area_under_a_line_is_its_middle():
    assert area_under([0, 0.3, 0.9], [100, 70, 10]) == pytest.approx(55)
    assert area_under([0.1, 0.2], [30, 30]) == pytest.approx(30)
    with pytest.raises(ValueError, match="2 levels or more, not 1"):
        area_under([0], [1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda images: drop_patches(images, [0], 5), "grid 5x5 does not divide images of 24x32"),
        (lambda images: drop_patches(images, [0], 0), "grid 0x0 does not divide"),
        (lambda images: drop_patches(images, [16], 4), "from 0 to 15 in this grid, not 16"),
        (lambda images: drop_patches(images, [-1], 4), "from 0 to 15 in this grid, not -1"),
        (lambda images: drop_patches(images, [0.5], 4), "whole numbers"),
        (lambda images: drop_patches(images, [[0], [1]], 4), r"\(3, n\) for 3 images"),
        (lambda images: drop_patches(images[0], [0], 4), r"images must be \(B, C, H, W\)"),
        (lambda images: shuffle_patches(images, [0, 1, 1, 3], 2), "each number from 0 to 3 once"),
        (lambda images: shuffle_patches(images, [0, 1, 2], 2), "each number from 0 to 3 once"),
    ],
)
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(pictures())
