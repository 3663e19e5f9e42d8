"""Orientation and resampling, there and back, against SimpleITK, nibabel, torch and plain geometry."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from medgcsam.errors import DataError
from medgcsam.imaging import Image
from medgcsam.pipeline import grids
from medgcsam.pipeline.grids import (
    Grid,
    back_to_grid,
    canonical,
    grid_for,
    mean_to_grid,
    resample,
    resample_label,
)

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique(random, spacing):
    """A random affine: any axis order, left-handed half of the time, up to 20 degrees off the axes."""
    order, signs = random.permutation(3), random.choice([-1, 1], 3)
    turn = Rotation.from_rotvec(np.radians(random.uniform(-20, 20, 3)) / 2).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ (np.eye(3)[order] * signs[:, None]) @ np.diag(spacing)
    affine[:3, 3] = random.uniform(-100, 100, 3)
    return affine


def volume(array, affine):
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0))
    return Image(array=array[None].astype(np.float32), unit="raw", affine=affine, spacing=spacing)


def grid_affine(grid, affine):
    """World place of the network's grid, from what ``Grid`` promises alone: turned, flipped, the same box."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    matrix[:3, 3] = affine[:3, 3]
    for position, (axis, flip, old, new) in enumerate(
        zip(grid.axes, grid.flipped, grid.turned, grid.size, strict=True)
    ):
        step = affine[:3, axis] * (-1 if flip else 1)
        start = affine[:3, axis] * (old - 1 if flip else 0)
        matrix[:3, position] = step * old / new
        matrix[:3, 3] += start + step * (0.5 * old / new - 0.5)
    return matrix


def ball(shape, affine, centre, radius):
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - centre, axis=-1) <= radius


def middle(shape, affine):
    return affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]


@pytest.mark.parametrize("seed", range(12))
def test_orientation_is_that_of_nibabel_and_simpleitk(seed):
    random = np.random.default_rng(seed)
    affine = oblique(random, random.uniform(0.5, 4, 3))
    array = random.normal(size=(5, 6, 7)).astype(np.float32)
    grid = grid_for(volume(array, affine), dimensions=3, spacing=None)
    ours = canonical(array[None], grid)[0]
    theirs = nibabel.as_closest_canonical(nibabel.Nifti1Image(array, affine))
    np.testing.assert_array_equal(ours, theirs.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(grid_affine(grid, affine), theirs.affine, atol=1e-9)
    np.testing.assert_allclose(grid.spacing, theirs.header.get_zooms(), rtol=1e-6)

    itk = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    itk.SetSpacing(spacing.tolist())
    if np.linalg.det(affine[:3, :3]) > 0:  # SimpleITK knows right-handed axes only
        itk.SetDirection((LPS[:3, :3] @ affine[:3, :3] / spacing).ravel().tolist())
        # "RAS" in DICOMOrient's older sense names where an axis comes from; LPI is where RAS+ goes.
        turned = SimpleITK.DICOMOrient(itk, "RAS")
        np.testing.assert_array_equal(ours, SimpleITK.GetArrayFromImage(turned).transpose(2, 1, 0))


def test_resampling_is_simpleitks_linear_inside_the_box():
    random = np.random.default_rng(1)
    array = random.normal(size=(9, 12, 7)).astype(np.float32)
    size = (21, 17, 11)
    ours = resample(array[None], size)[0]
    itk = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0))
    step = [old / new for old, new in zip(array.shape, size, strict=True)]
    reference = SimpleITK.Image(*size, SimpleITK.sitkFloat32)
    reference.SetSpacing(step)
    reference.SetOrigin([0.5 * s - 0.5 for s in step])
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.Resample(itk, reference)).transpose(2, 1, 0)
    inner = tuple(slice(3, -3) for _ in size)  # beyond the outermost centres SimpleITK fills, here the border goes on
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=1e-5)
    places = np.meshgrid(*((np.arange(n) + 0.5) * s - 0.5 for n, s in zip(size, step, strict=True)), indexing="ij")
    np.testing.assert_allclose(ours, map_coordinates(array, places, order=1, mode="nearest"), atol=1e-5)


@pytest.mark.parametrize("size", [(17, 40), (33, 9), (64, 64), (10, 11)])
def test_pictures_become_smaller_as_with_torchs_antialiasing(size):
    picture = np.random.default_rng(2).normal(size=(2, 50, 37)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(picture)[None], size, mode="bilinear", antialias=True)[0]
    np.testing.assert_allclose(resample(picture, size), theirs.numpy(), atol=1e-5)


def test_slabs_change_nothing(monkeypatch):
    random = np.random.default_rng(3)
    array = random.normal(size=(2, 20, 30, 10)).astype(np.float32)
    label = random.integers(0, 3, (1, 20, 30, 10)).astype(np.int16)
    probabilities = random.dirichlet([1, 1, 1], (20, 30, 10)).transpose(3, 0, 1, 2).astype(np.float16)
    grid = grids.Grid((25, 9, 33), (2, 0, 1), (True, False, True), (20, 30, 10), None)

    def work():
        return (
            resample(array, (31, 11, 12), values=np.tanh),
            resample_label(label, (31, 11, 12), structures=2, overlapping=False),
            back_to_grid(probabilities, grid, overlapping=False),
        )

    whole = work()
    monkeypatch.setattr(grids, "SLAB_VALUES", 500)
    for a, b in zip(whole, work(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(12))
def test_a_structure_stays_where_it_is_in_the_world_there_and_back(seed):
    random = np.random.default_rng(100 + seed)
    spacing = random.uniform(0.8, 3, 3)
    affine = oblique(random, spacing)
    shape = tuple(int(n) for n in np.maximum(12, 60 / spacing))
    centre = middle(shape, affine) + random.uniform(-4, 4, 3)
    label = ball(shape, affine, centre, 18)
    image = volume(label, affine)
    grid = grid_for(image, dimensions=3, spacing=tuple(random.uniform(0.8, 2.5, 3)))
    there = resample_label(canonical(label[None].astype(np.int16), grid), grid.size, structures=1, overlapping=False)[0]
    expected = ball(grid.size, grid_affine(grid, affine), centre, 18)
    assert dice(there, expected) > 0.95
    world = np.argwhere(there) @ grid_affine(grid, affine)[:3, :3].T + grid_affine(grid, affine)[:3, 3]
    assert np.linalg.norm(world.mean(0) - centre) < 0.3  # mm
    probabilities = np.stack([1 - there, there]).astype(np.float16)
    back = back_to_grid(probabilities, grid, overlapping=False)
    assert back.shape == (1, *shape)
    assert back.dtype == np.int16
    assert dice(back[0], label) > 0.94
    again = back_to_grid(probabilities[1:], grid, overlapping=True)
    assert again.dtype == np.uint8
    assert (again != back).mean() < 1e-3  # a voxel of exactly one half may go either way


def dice(a, b):
    a, b = np.asarray(a) > 0, np.asarray(b) > 0
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_without_resampling_a_label_comes_back_exactly():
    random = np.random.default_rng(5)
    affine = oblique(random, (1, 2, 3))
    label = random.integers(0, 4, (1, 6, 5, 4)).astype(np.int16)
    grid = grid_for(volume(label[0], affine), dimensions=3, spacing=None)
    turned = resample_label(canonical(label, grid), grid.size, structures=3, overlapping=False)
    probabilities = np.eye(4, dtype=np.float16)[turned[0]].transpose(3, 0, 1, 2)
    np.testing.assert_array_equal(back_to_grid(probabilities, grid, overlapping=False), label)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_label_neither_grows_nor_shrinks_by_ties(factor):
    random = np.random.default_rng(6)
    small, large = [], []
    for _ in range(40):
        start, stop = np.sort(random.choice(48, 2, replace=False))
        label = np.zeros((1, 48, 4), np.int16)
        label[0, start:stop] = 1
        small.append(stop - start)
        large.append(factor * resample_label(label, (48 // factor, 4), structures=1, overlapping=False)[0, :, 0].sum())
    assert abs(np.mean(large) - np.mean(small)) < 0.4 * factor / 2


@pytest.mark.parametrize("size", [(16, 18, 10), (8, 9, 5), (48, 18, 10), (48, 54, 15), (21, 25, 10), (32, 36, 20)])
@pytest.mark.parametrize("overlapping", [False, True])
def test_a_mirrored_label_is_the_mirror_image(size, overlapping):
    random = np.random.default_rng(7)
    noise = np.stack([gaussian_filter(random.normal(size=(32, 36, 10)), 2) for _ in range(3)])
    label = (noise[:2] > 0).astype(np.int16) if overlapping else noise.argmax(0)[None].astype(np.int16)

    def resampled(array):
        return resample_label(array, size, structures=2, overlapping=overlapping)

    for axes in ((1,), (2,), (3,), (1, 2, 3)):
        np.testing.assert_array_equal(resampled(np.flip(label, axes)), np.flip(resampled(label), axes))


@pytest.mark.parametrize(("old", "new"), [(60, 30), (40, 60), (60, 15)])
def test_a_label_stays_where_it_is_where_voxels_lie_midway(old, new):
    random = np.random.default_rng(8)
    place = np.mgrid[:old, :old] + 0.5
    shifts, areas = [], []
    for _ in range(150):
        centre, radius = random.uniform(25 / 60, 35 / 60, (2, 1, 1)) * old, random.uniform(0.15, 0.25, (2, 1, 1)) * old
        disc = ((((place - centre) / radius) ** 2).sum(0) < 1).astype(np.int16)
        found = resample_label(disc[None], (new, new), structures=1, overlapping=False)[0]
        shifts.append(np.argwhere(found).mean(0) - (np.argwhere(disc).mean(0) + 0.5) * new / old + 0.5)
        areas.append(found.sum() / disc.sum() * (old / new) ** 2)
    assert np.abs(np.mean(shifts, 0)).max() < 0.03  # new voxels; it was 0.07 and 0.12
    assert np.mean(areas) == pytest.approx(1, abs=0.04)


def test_a_flat_face_midway_stays_flat():
    label = np.zeros((1, 12, 12, 12), np.int16)
    label[0, 3:10] = 1
    found = resample_label(label, (6, 6, 6), structures=1, overlapping=False)[0]
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1, :1], found.shape))
    assert 3 <= found[:, 0, 0].sum() <= 4


def test_of_several_structures_the_fullest_wins_and_none_appears_at_their_border():
    label = np.zeros((1, 30, 30), np.int16)
    label[0, :, :10], label[0, :, 10:20], label[0, :, 20:] = 1, 3, 2
    found = resample_label(label, (30, 47), structures=3, overlapping=False)[0]
    assert set(np.unique(found)) == {1, 2, 3}
    place = (np.arange(47) + 0.5) * 30 / 47
    np.testing.assert_array_equal(found[0], np.where(place < 10, 1, np.where(place < 20, 3, 2)))


def test_overlapping_structures_are_resampled_one_by_one():
    label = np.zeros((2, 20, 20), np.int16)
    label[0, 2:12], label[1, 8:18] = 1, 1
    both = resample_label(label, (40, 13), structures=2, overlapping=True)
    for channel in range(2):
        single = resample_label(label[channel : channel + 1], (40, 13), structures=1, overlapping=False)
        np.testing.assert_array_equal(both[channel], single[0])
    assert (both.sum(0) == 2).any()


def test_a_volume_of_one_slice_as_volume_and_as_picture():
    array = np.arange(30, dtype=np.float32).reshape(1, 5, 6, 1)
    image = Image(array=array, unit="HU", affine=np.diag([-1.0, 2, 3, 1]), spacing=(1.0, 2.0, 3.0))
    grid = grid_for(image, dimensions=3, spacing=(1.0, 1.0, 3.0))
    assert (grid.size, grid.flipped) == ((5, 12, 1), (True, False, False))
    label = (array > 12).astype(np.int16)
    there = resample_label(canonical(label, grid), grid.size, structures=1, overlapping=False)
    probabilities = np.concatenate([1 - there, there]).astype(np.float16)
    np.testing.assert_array_equal(back_to_grid(probabilities, grid, overlapping=False), label)
    picture = grid_for(image, dimensions=2, spacing=None, fit=(112, 112))
    assert (picture.size, picture.spacing) == ((6, 5), (2.0, 1.0))
    np.testing.assert_array_equal(canonical(array, picture)[0], array[0, :, :, 0].T)
    turned = resample_label(canonical(label, picture), picture.size, structures=1, overlapping=False)
    probabilities = np.concatenate([1 - turned, turned]).astype(np.float16)
    np.testing.assert_array_equal(back_to_grid(probabilities, picture, overlapping=False), label)


def test_pictures_are_made_to_fit_but_never_larger():
    image = Image(array=np.zeros((1, 400, 300), np.float32), unit="display")
    assert grid_for(image, dimensions=2, spacing=None, fit=(100, 100)).size == (100, 75)
    assert grid_for(image, dimensions=2, spacing=None, fit=(500, 500)).size == (400, 300)
    assert grid_for(image, dimensions=2, spacing=None).size == (400, 300)


def test_what_does_not_fit_is_refused():
    picture = Image(array=np.zeros((1, 40, 30), np.float32), unit="display")
    block = Image(array=np.zeros((1, 4, 3, 5), np.float32), unit="raw", spacing=(1.0, 1.0, 1.0))
    with pytest.raises(DataError, match="no voxel spacing"):
        grid_for(picture, dimensions=2, spacing=(1.0, 1.0))
    with pytest.raises(DataError, match="is a picture"):
        grid_for(picture, dimensions=3, spacing=None)
    with pytest.raises(DataError, match="volume of 5 slices"):
        grid_for(block, dimensions=2, spacing=None)
    with pytest.raises(DataError, match="more than can be used"):
        grid_for(block, dimensions=3, spacing=(0.001, 0.001, 0.001))


def test_nothing_found_is_all_background():
    grid = grids.Grid((4, 5, 6), (0, 1, 2), (False,) * 3, (8, 5, 3), None)
    probabilities = np.zeros((2, 8, 5, 3), np.float16)
    probabilities[0] = 1
    assert not back_to_grid(probabilities, grid, overlapping=False).any()


@pytest.mark.parametrize("overlapping", [False, True])
def test_the_mean_of_several_networks_is_decided_on_the_voxels_of_the_file(overlapping):
    """By float64 means of whole resampled volumes, of grids of three networks; and no input is written to."""
    rng = np.random.default_rng(3)
    parts = []
    for size in ((20, 18, 10), (11, 9, 7), (30, 28, 13)):
        grid = Grid((20, 18, 10), (0, 1, 2), (False, True, False), size, None)
        values = rng.random((3, *size)).astype(np.float32)
        parts.append((values / values.sum(0), grid))
    before = [values.copy() for values, _ in parts]
    mean = np.mean([resample(values, (20, 18, 10)).astype(float) for values, _ in parts], axis=0)
    clear = np.sort(mean, 0)[-1] - np.sort(mean, 0)[-2] > 1e-5
    wanted = mean > 0.5 if overlapping else mean.argmax(0)[None]
    found = canonical(mean_to_grid(parts, overlapping=overlapping), parts[0][1])
    assert found.shape == wanted.shape
    assert (found == wanted)[:, clear].all()
    assert found.any()
    assert all(np.array_equal(values, old) for (values, _), old in zip(parts, before, strict=True))
