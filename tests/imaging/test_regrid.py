"""Irregular slices on a regular grid: an object that is linear in space comes out exactly, at every place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medgcsam.errors import DataError
from medgcsam.imaging.geometry import Plane, Stack, stack_planes
from medgcsam.imaging.regrid import regridded

GRADIENT = np.array([2.0, -3.0, 5.0])
"""Of the object, per mm along the axes of RAS."""
ROWS, COLUMNS = 9, 11


def frames() -> list[np.ndarray]:
    return [np.eye(3), Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()]


def sampled(heights, slip, frame) -> tuple[np.ndarray, list[Plane]]:
    """The object (1, column, row, slice) on planes that slip sideways by ``slip`` mm (along row, column) per mm."""
    planes, slices = [], []
    for height in heights:
        corner = frame @ [slip[0] * height, slip[1] * height, height]
        planes.append(Plane(corner, frame[:, 0], frame[:, 1], (1.5, 0.8), (ROWS, COLUMNS)))
        column, row = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS), indexing="ij")
        places = corner + column[..., None] * 0.8 * frame[:, 0] + row[..., None] * 1.5 * frame[:, 1]
        slices.append(places @ (GRADIENT * [-1, -1, 1]))
    return np.stack(slices, axis=-1)[None], planes


def object_at(stack: Stack, shape: tuple[int, ...]) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return (index @ stack.affine[:3, :3].T + stack.affine[:3, 3]) @ GRADIENT


@pytest.mark.parametrize("frame", frames())
@pytest.mark.parametrize(
    ("heights", "slip", "slices"),
    [
        ([0, 3, 6, 12, 15], (0, 0), 6),
        ([0, 3, 6, 9, 12], (0, 0.25), 5),
        ([0, 3, 6, 9, 12], (-0.1, 0.25), 5),
        ([0, 3, 9, 12], (0, -0.21), 5),
        ([0, 2.5, 5, 10, 15, 20], (0, 0), 9),
        ([0, 2.4, 5.6, 8, 10.7], (0, 0), 5),
    ],
)
def test_a_linear_object_keeps_its_values_at_every_place(frame, heights, slip, slices):
    array, planes = sampled(heights, slip, frame)
    order = np.random.default_rng(0).permutation(len(planes))
    stack = stack_planes([planes[n] for n in order], "series", irregular="resample")
    result, outside = regridded(array[..., order][..., stack.order], stack.resampling)
    assert result.shape[3] == slices
    assert "resampled: " in stack.facts["geometry"]
    inside = np.ones(result.shape[1:], bool) if outside == 0 else result[0] != result.min()
    assert (~inside).sum() <= outside + 1  # the smallest value has its own place
    assert inside.mean() > 0.5
    assert np.allclose(result[0][inside], object_at(stack, result.shape[1:])[inside], atol=1e-3)
    assert np.allclose(np.linalg.norm(stack.affine[:3, :3], axis=0), stack.spacing)
    axes = stack.affine[:3, :3] / stack.spacing
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)  # at right angles, whatever they were


def test_slices_beside_a_gap_stay_as_they_are():
    array = np.random.default_rng(1).normal(size=(2, COLUMNS, ROWS, 4)).astype(np.float32)
    _, planes = sampled([0, 3, 6, 12], (0, 0), np.eye(3))
    stack = stack_planes(planes, "series", irregular="resample")
    result, outside = regridded(array, stack.resampling)
    assert outside == 0
    assert np.array_equal(result[..., [0, 1, 2, 4]], array)
    assert np.allclose(result[..., 3], array[..., 2:].mean(-1), atol=1e-6)


def test_voxels_that_no_slice_reaches_take_the_smallest_value():
    array = np.full((1, COLUMNS, ROWS, 3), 7.0) + np.arange(3)
    _, planes = sampled([0, 3, 6], (0, 1.0), np.eye(3))
    result, outside = regridded(array, stack_planes(planes, "series", irregular="resample").resampling)
    assert result.shape == (1, COLUMNS, ROWS + 4, 3)
    assert np.array_equal(result[0, :, :ROWS, 0], array[0, ..., 0])
    assert (result[0, :, ROWS:, 0] == 7).all()
    assert (result[0, :, 4:, 2] == 9).all()
    assert outside == COLUMNS * 12


def test_an_absurd_extent_is_refused_before_memory_is_asked_for():
    planes = [Plane(np.array([0, 4e5 * k, k]), *np.eye(3)[:2], (0.01, 0.01), (512, 512)) for k in (0.0, 1.0, 2.0)]
    with pytest.raises(DataError, match="over the limit"):
        stack_planes(planes, "series", irregular="resample")


def test_a_slice_that_lies_aside_is_put_where_it_belongs():
    array, planes = sampled([0, 3, 6, 9, 12, 15], (0, 0), np.eye(3))
    moved = planes[2].position + [2 * 0.8, 0, 0]  # by two pixels along the row, so that it shows other places
    planes[2] = Plane(moved, planes[2].along_row, planes[2].along_column, planes[2].spacing, planes[2].shape)
    array[..., 2] += 2 * 0.8 * -GRADIENT[0]
    stack = stack_planes(planes, "series", irregular="resample")
    assert stack.facts["geometry"].startswith("resampled: slices out of line")
    result, outside = regridded(array, stack.resampling)
    assert result.shape == (1, COLUMNS + 2, ROWS, 6)
    assert outside == 7 * ROWS * 2 - 2 * ROWS
    expected = object_at(stack, result.shape[1:])
    assert np.allclose(result[0, 2:COLUMNS], expected[2:COLUMNS], atol=1e-3)
