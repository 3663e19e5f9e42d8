"""The space of synthetic volumes: coordinates, fields and depths against their definitions."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from medgcsam.intake.phantom_scanner import SITES, draw_grid, scan, write_nifti
from medgcsam.intake.phantom_space import Grid, draw_field, ellipsoid, share


@pytest.fixture
def grid() -> Grid:
    axes = np.array([[2.9, 0.2, -0.4], [-0.1, 3.1, 0.3], [0.3, -0.2, 6.1]])
    return Grid((7, 6, 5), axes, np.array([-10.0, 4.0, 30.0]))


def test_coordinates_are_those_of_the_affine(grid):
    place = grid.coordinates()
    for index in ((0, 0, 0), (6, 0, 2), (3, 5, 4)):
        assert np.allclose(place[(slice(None), *index)], grid.origin + grid.axes @ index, atol=1e-4)
    assert np.allclose(grid.shifted(0.5).coordinates() - place, (grid.axes[:, 2] / 2)[:, None, None, None], atol=1e-4)


def test_a_field_is_the_same_on_a_grid_and_at_points(grid):
    field = draw_field(np.random.default_rng(0), 30)
    points = grid.coordinates().reshape(3, -1).astype(np.float64)
    assert np.allclose(field.on(grid).ravel(), field.at(points), atol=1e-4)


def test_fields_have_unit_variance_and_the_length_asked_for():
    rng = np.random.default_rng(1)
    points = rng.uniform(-500, 500, (3, 4000))
    values = np.concatenate([draw_field(rng, 40).at(points) for _ in range(20)])
    assert abs(values.mean()) < 0.05
    assert abs(values.std() - 1) < 0.05
    near, far = points + [[2], [0], [0]], points + [[20], [0], [0]]
    field = draw_field(rng, 40)
    assert np.corrcoef(field.at(points), field.at(near))[0, 1] > 0.95
    assert np.corrcoef(field.at(points), field.at(far))[0, 1] < 0.5


def test_depth_below_a_sphere_is_the_distance_and_a_cylinder_goes_on():
    place = np.array([[0.0, 3.0, 10.0, 14.0], [0.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert np.allclose(ellipsoid(place, (0, 0, 0), (10, 10, 10)), [10, 5, 0, -4])
    place[2] = [1e3, -1e3, 50, 0]
    assert np.allclose(ellipsoid(place, (0, 0, 0), (10, 10, np.inf)), [10, 5, 0, -4])


def test_a_surface_leaves_a_voxel_its_share():
    assert np.allclose(share(np.array([-5.0, -1.5, 0.0, 0.75, 9.0]), 3), [0, 0, 0.5, 0.75, 1])


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LPI", "LAS", "PLS", "SRA"])
@pytest.mark.parametrize("unsigned", [False, True])
def test_voxels_stay_where_they_are_however_they_are_stored(tmp_path, codes, unsigned):
    rng = np.random.default_rng(0)
    grid, affine = draw_grid(rng, SITES["south"], (60, 40))
    values = rng.integers(-1024, 3000, grid.shape).astype(np.int16)
    write_nifti(tmp_path / "v.nii.gz", values, affine, codes, unsigned=unsigned)
    stored = nibabel.load(tmp_path / "v.nii.gz")
    assert "".join(nibabel.aff2axcodes(stored.affine)) == codes
    back = nibabel.as_closest_canonical(stored)
    assert np.allclose(back.affine, affine, atol=1e-3)
    assert np.array_equal(back.get_fdata(), values)


def test_grids_of_both_sites_hold_the_body_and_are_orthogonal():
    for site in SITES.values():
        grid, affine = draw_grid(np.random.default_rng(3), site, (150, 105))
        length = np.linalg.norm(grid.axes, axis=0)
        assert np.allclose((grid.axes / length).T @ (grid.axes / length), np.eye(3), atol=1e-12)
        assert np.linalg.det(grid.axes) > 0
        assert (np.array(grid.shape[:2]) * length[:2] >= [318, 228]).all()
        assert np.array_equal(affine[:3, :3], grid.axes)


def test_the_scanner_adds_the_noise_of_its_site_and_keeps_the_mean():
    for site in SITES.values():
        flat = np.full((60, 50, 12), 60, np.float32)
        seen = scan(np.random.default_rng(0), flat, np.array([3.0, 3.0, 6.0]), site)
        middle = seen[25:35, 20:30].astype(float)
        assert abs(middle.mean() - 60 - site.offset) < 8
        assert 0.75 * site.noise < middle.std() < 1.55 * site.noise
        rows = np.corrcoef(middle[:-1].ravel(), middle[1:].ravel())[0, 1]
        assert (rows > 0.3) == bool(site.grain)
