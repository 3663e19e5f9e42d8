from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgcsam.imaging.image import Image
from medgcsam.imaging.labels.resample import Grid, index_map, place, same_grid

AFFINE = np.array([[0.0, -0.8, 0, 12], [0.7, 0, 0, -30], [0, 0, 2.5, 4], [0, 0, 0, 1]])


def _spread(placed, shape):
    """The whole grid, from the box of a placed structure."""
    whole = np.zeros(shape, np.float32)
    whole[placed.box] = placed.share
    return whole


def _by_lookup(mask, to_grid, shape):
    """What each voxel of the grid finds at its centre, one by one."""
    result = np.zeros(shape, bool)
    for voxel in product(*(range(n) for n in shape)):
        index = np.rint((np.linalg.inv(to_grid) @ [*voxel, 1])[:3]).astype(int)
        if (index >= 0).all() and (index < mask.shape).all():
            result[voxel] = mask[tuple(index)]
    return result


@settings(max_examples=40, deadline=None)
@given(
    order=st.sampled_from(list(permutations(range(3)))),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    offset=st.tuples(*[st.integers(-3, 6)] * 3),
    seed=st.integers(0, 2**16),
)
def test_flipped_turned_and_cropped_masks_are_copied_voxel_by_voxel(order, signs, offset, seed):
    mask = np.random.default_rng(seed).random((4, 3, 5)) < 0.4
    to_grid = np.eye(4)
    to_grid[:3, :3] = np.eye(3)[list(order)] * np.array(signs)
    to_grid[:3, 3] = offset
    placed = place(mask, to_grid, Grid((6, 5, 4), None))
    found = _by_lookup(mask, to_grid, (6, 5, 4))
    np.testing.assert_array_equal(_spread(placed, (6, 5, 4)), found)
    assert placed.share.dtype == bool
    assert placed.outside == pytest.approx(1 - found.sum() / mask.sum() if mask.any() else 0)


def test_an_oblique_mask_is_found_at_the_centre_of_each_voxel():
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = (3.13, -1.27, 0.31)
    mask = np.random.default_rng(3).random((8, 9, 5)) < 0.5
    share = _spread(place(mask, turn, Grid((9, 9, 6), None)), (9, 9, 6))
    np.testing.assert_array_equal(share, _by_lookup(mask, turn, (9, 9, 6)))


@pytest.mark.parametrize("factors", [(2, 2, 2), (3, 1, 1), (1, 2, 4)])
def test_a_coarse_voxel_holds_the_share_of_the_fine_ones_in_it(factors):
    mask = np.random.default_rng(1).random((12, 8, 8)) < 0.5
    to_grid = np.diag([*(1 / f for f in factors), 1.0])
    to_grid[:3, 3] = [(1 / f - 1) / 2 for f in factors]  # edges of the first voxels coincide
    shape = tuple(n // f for n, f in zip(mask.shape, factors, strict=True))
    blocks = mask.reshape([n for pair in zip(shape, factors, strict=True) for n in pair])
    share = _spread(place(mask, to_grid, Grid(shape, None)), shape)
    np.testing.assert_allclose(share, blocks.mean((1, 3, 5)), atol=2.1e-5)  # ties are broken by so much


def test_the_volume_stays_whichever_way_the_grids_lie():
    """A ball of radius 9 mm on a fine grid, put onto coarse oblique grids."""
    fine = np.diag([0.5, 0.5, 0.5, 1.0])
    fine[:3, 3] = -15
    centres = np.stack(np.meshgrid(*[np.arange(60) * 0.5 - 15] * 3, indexing="ij"), -1)
    ball = (centres**2).sum(-1) < 81
    rng = np.random.default_rng(0)
    for _ in range(3):
        axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        coarse = np.eye(4)
        coarse[:3, :3] = axes * (1.5, 1.5, 2.0)
        coarse[:3, 3] = -coarse[:3, :3] @ (10, 10, 8)
        placed = place(ball, index_map(fine, Grid((21, 21, 17), coarse)), Grid((21, 21, 17), coarse))
        assert placed.share.sum() * 1.5 * 1.5 * 2.0 == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.01)
        assert placed.outside == 0


def test_shares_of_a_fractional_mask_are_kept_and_averaged():
    shares = np.random.default_rng(2).random((4, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(_spread(place(shares, np.eye(4), Grid((4, 4, 2), None)), (4, 4, 2)), shares)
    half = np.diag([0.5, 0.5, 1.0, 1.0])
    half[:2, 3] = -0.25
    share = _spread(place(shares, half, Grid((2, 2, 2), None)), (2, 2, 2))
    np.testing.assert_allclose(share, shares.reshape(2, 2, 2, 2, 2).mean((1, 3)), atol=1e-6)


def test_of_one_slice_only_what_lies_outside_in_the_plane_counts():
    mask = np.ones((4, 4, 9), bool)
    beside = np.eye(4)
    beside[:3, 3] = (2, 0, -4)
    assert place(mask, beside, Grid((4, 4, 1), None)).outside == pytest.approx(0.5)
    assert place(mask, beside, Grid((4, 4, 2), None)).outside == pytest.approx(1 - 2 / 9 / 2)
    above = np.eye(4)
    above[2, 3] = 3
    placed = place(mask, above, Grid((4, 4, 1), None))
    assert (placed.outside, placed.empty, placed.share.size) == (0.0, False, 0)
    assert place(mask[..., :0].any(-1)[..., None], above, Grid((4, 4, 1), None)).empty


def test_two_grids_are_one_within_a_twentieth_of_a_voxel():
    image = Image(array=np.zeros((1, 100, 100, 50), np.float32), unit="raw", affine=AFFINE)
    grid = Grid(image.spatial_shape, AFFINE)
    near, far = AFFINE.copy(), AFFINE.copy()
    near[0, 3] += 0.03
    far[0, 0] += 0.001  # 0.1 mm at the last column
    assert same_grid(index_map(near, grid), (100, 100, 50), grid)
    assert not same_grid(index_map(far, grid), (100, 100, 50), grid)
    assert not same_grid(np.eye(4), (100, 100, 49), grid)


@pytest.mark.parametrize("kind", [bool, np.float32])
def test_shares_on_an_oblique_grid_are_means_of_samples_in_each_voxel(kind):
    rng = np.random.default_rng(8)
    mask = np.zeros((14, 12, 10), kind)
    mask[2:11, 1:12, :8] = 1
    mask[4:7, 4:8, 2:5] = 0
    mask[:3] = rng.random((3, 12, 10)) < 0.5 if kind is bool else rng.random((3, 12, 10))
    to_grid = np.eye(4)
    to_grid[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * 0.5
    to_grid[:3, 3] = (6, 5, 6)
    shape, back, total = (12, 11, 12), np.linalg.inv(to_grid), 0
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    for offset in product((-1 / 3, 0, 1 / 3), repeat=3):
        found = np.rint((index + offset) @ back[:3, :3].T + back[:3, 3]).astype(int)
        valid = ((found >= 0) & (found < mask.shape)).all(-1)
        total = total + np.where(valid, mask[tuple(np.where(valid[..., None], found, 0).transpose(3, 0, 1, 2))], 0)
    share = _spread(place(mask, to_grid, Grid(shape, None)), shape)
    assert share.max() > 0.9
    np.testing.assert_allclose(share, total / 27, atol=2.1e-5)


def test_half_filled_voxels_do_not_make_a_structure_grow():
    """Boxes of whole voxels on grids that are 1.5 to 2 times coarser, at all offsets: the volume stays on average."""
    for ratio in (1.5, 1.75, 2.0):
        volumes = []
        for start in np.arange(8):
            mask = np.zeros((40, 40, 40), bool)
            mask[start : start + 16, start + 2 : start + 16, start + 1 : start + 19] = True
            to_grid = np.diag([1 / ratio] * 3 + [1.0])
            to_grid[:3, 3] = (1 / ratio - 1) / 2
            placed = place(mask, to_grid, Grid((27, 27, 27), None))
            volumes.append((placed.share >= 0.5).sum() * ratio**3 / mask.sum())
        assert np.mean(volumes) == pytest.approx(1, abs=0.03), ratio


def test_an_oblique_box_twice_as_fine_keeps_its_volume():
    volumes = []
    for angle in (0.1, 0.3, 0.5):
        turn = np.eye(4)
        c, s = np.cos(angle), np.sin(angle)
        turn[1:3, 1:3] = np.array([[c, -s], [s, c]])
        to_grid = turn @ np.diag([0.5, 0.5, 0.5, 1.0])
        to_grid[:3, 3] = (12, 14, 6)
        mask = np.ones((32, 24, 28), bool)
        placed = place(mask, to_grid, Grid((40, 40, 40), None))
        volumes.append((placed.share >= 0.5).sum() * 8 / mask.sum())
    np.testing.assert_allclose(volumes, 1, atol=0.02)
