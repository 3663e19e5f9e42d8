"""Planes become a grid: against positions computed by hand, and one refusal for each way in which they do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medgcsam.errors import DataError
from medgcsam.imaging.geometry import Plane, normal_of, plane_affine, stack_planes

AXIAL = np.eye(3)


def plane(position, *, frame=AXIAL, spacing=(2.0, 0.5), shape=(6, 8)) -> Plane:
    return Plane(np.array(position, float), frame[:, 0], frame[:, 1], spacing, shape)


def stack_at(heights, *, slip=0.0, frame=AXIAL, **options) -> list[Plane]:
    """Planes at these heights along the normal, each moved by ``slip`` mm along the columns per mm of height."""
    return [plane(frame @ [0.0, slip * height, height], frame=frame, **options) for height in heights]


def test_the_affine_of_an_axial_plane_by_hand():
    # pixel (column 3, row 1) of slice 2 lies at x = 10 + 3 * 0.5, y = 20 + 1 * 2, z = 30 + 2 * 4 in LPS
    affine = plane_affine(plane([10, 20, 30]), 4.0)
    assert np.allclose(affine @ [3, 1, 2, 1], [-11.5, -22.0, 38.0, 1.0])


@settings(max_examples=40, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-3, 3)] * 3),
    heights=st.permutations([-8.0, -4.0, 0.0, 4.0, 8.0]),
    voxel=st.tuples(st.integers(0, 7), st.integers(0, 5), st.integers(0, 4)),
)
def test_any_order_and_orientation_gives_the_position_of_every_voxel(turn, heights, voxel):
    frame = Rotation.from_rotvec(turn).as_matrix()
    stack = stack_planes(stack_at(heights, frame=frame), "series")
    assert [heights[n] for n in stack.order] == sorted(heights)
    column, row, k = voxel
    expected = frame @ [0.5 * column, 2.0 * row, -8.0 + 4.0 * k] * [-1, -1, 1]
    assert np.allclose(stack.affine @ [*voxel, 1], [*expected, 1], atol=1e-9)
    assert np.allclose(stack.spacing, (0.5, 2.0, 4.0))
    assert dict(stack.facts) == {"geometry": "regular", "slices": 5, "slice_step_source": "positions"}


def test_the_normal_is_row_times_column_and_slices_are_counted_along_it():
    frame = np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]])  # sagittal: columns to the back, rows to the feet
    assert np.allclose(normal_of(plane([0, 0, 0], frame=frame)), [-1, 0, 0])
    stack = stack_planes([plane([x, 0, 0], frame=frame) for x in (0, 1, 2)], "series")
    assert stack.order.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        ([], "no image plane"),
        (stack_at([0, 3, 6, 12]), "one slice missing, a gap of 6 mm between slices 3 mm apart"),
        (stack_at([0, 3, 9, 12, 18]), "2 slices missing, a gap"),
        (stack_at([0, 3, 7, 10, 13]), "uneven steps between slices, a gap"),
        (stack_at([0, 3, 3, 6]), "duplicate positions: 4 slices lie at 3 positions"),
        (stack_at([5, 5, 5]), "duplicate positions: all 3 slices lie at one position"),
        (stack_at([0, 3, 6], slip=0.2), "gantry tilt, its slices slip sideways by 11.3 degrees"),
        ([*stack_at([0, 3]), plane([0, 0, 6], frame=AXIAL[:, [0, 2, 1]])], "mixed orientation .1 of 3"),
        ([*stack_at([0, 3]), plane([0, 0, 6], spacing=(2.0, 0.6))], "mixed spacing"),
        ([*stack_at([0, 3]), plane([0, 0, 6], shape=(6, 9))], "mixed size .6x8, 6x9"),
        ([plane([0, 0, np.nan]), plane([0, 0, 1])], "not finite"),
        ([plane([0, 0, 0], frame=1.1 * AXIAL)], "no orthogonal unit vectors"),
        ([plane([0, 0, 0], spacing=(0.0, 1.0))], "pixel spacing that cannot be"),
        (stack_at([0, 3]), "too few slices"),
    ],
)
def test_each_fault_is_refused_with_a_reason_of_its_own(planes, message):
    with pytest.raises(DataError, match=message) as caught:
        stack_planes(planes, "the series")
    text = str(caught.value)
    assert text.startswith("the series ")
    assert text.endswith(".")


def test_a_missing_slice_is_noticed_wherever_it_is_missing_and_however_long_the_series():
    for length in (4, 60, 800):
        for gone in {1, length // 2, length - 2}:
            heights = [0.7 * n for n in range(length) if n != gone]
            with pytest.raises(DataError, match="one slice missing"):
                stack_planes(stack_at(heights), "series")


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_a_regular_series_and_the_rounding_is_recorded():
    heights = [round(0.625 * n, 1) for n in range(50)]
    stack = stack_planes(stack_at(heights), "series")
    assert stack.resampling is None
    assert 0.04 < stack.facts["slice_position_error_mm"] <= 0.1


def test_one_slice_is_as_thick_as_the_header_says():
    for options, step, source in (
        ({"thickness": 5.0, "step": 4.0}, 5.0, "SliceThickness"),
        ({"step": 4.0}, 4.0, "SpacingBetweenSlices"),
        ({}, 1.0, "assumed 1 mm"),
        ({"thickness": 0.0}, 1.0, "assumed 1 mm"),
    ):
        stack = stack_planes([plane([0, 0, 7])], "slice", **options)
        assert stack.spacing == (0.5, 2.0, step)
        assert stack.facts["slice_step_source"] == source


@pytest.mark.parametrize(("options", "sound"), [
    ({"step": 3.0}, True), ({"step": 1.5}, False), ({"thickness": 3.0}, True), ({"thickness": 1.6, }, True),
    ({"thickness": 1.0}, False),
])  # fmt: skip
def test_two_slices_need_a_header_that_makes_them_neighbours(options, sound):
    planes = stack_at([0, 3])
    if sound:
        assert stack_planes(planes, "series", **options).spacing == (0.5, 2.0, 3.0)
    else:
        with pytest.raises(DataError, match="gap"):
            stack_planes(planes, "series", **options)


def test_what_cannot_be_resampled_stays_refused_when_resampling_is_asked_for():
    for planes, message in (
        (stack_at([0, 3, 3, 6]), "duplicate positions"),
        ([*stack_at([0, 3]), plane([0, 0, 6], shape=(6, 9))], "mixed size"),
        (stack_at([0, 3, 6, 30]), "too wide to be filled"),
    ):
        with pytest.raises(DataError, match=message):
            stack_planes(planes, "series", irregular="resample")
    with pytest.raises(ValueError, match="irregular"):
        stack_planes(stack_at([0, 3, 6]), "series", irregular="resmple")


@pytest.mark.parametrize(("moved", "count"), [(90, 100), (0, 100), (99, 100), (2, 5)])
def test_a_slice_beside_the_others_is_refused_wherever_it_lies(moved, count):
    planes = stack_at([3.0 * n for n in range(count)], spacing=(0.8, 0.7))
    aside = planes[moved]
    planes[moved] = plane(aside.position + [2.1, 0, 0], spacing=(0.8, 0.7))
    with pytest.raises(DataError, match=r"out of line, up to (1\.\d|2|2\.\d) mm sideways"):
        stack_planes(planes, "series")
    planes[moved] = plane(aside.position + [0.05, 0, 0], spacing=(0.8, 0.7))
    stack = stack_planes(planes, "series")
    assert stack.facts["slice_position_error_mm"] == pytest.approx(0.05, abs=0.03)


def test_a_bow_is_no_line():
    planes = [plane([2 * np.sin(np.pi * n / 99), 0, 3.0 * n]) for n in range(100)]
    with pytest.raises(DataError, match="out of line"):
        stack_planes(planes, "series")


def test_how_far_a_slice_may_lie_aside_shrinks_with_the_pixels():
    for spacing, sound in ((0.7, True), (0.05, False)):
        planes = stack_at([0.0, 1, 2, 3, 4, 5], spacing=(spacing, spacing))
        planes[3] = plane(planes[3].position + [0.08, 0, 0], spacing=(spacing, spacing))
        if sound:
            assert 0.05 < stack_planes(planes, "series").facts["slice_position_error_mm"] < 0.08
        else:
            with pytest.raises(DataError, match="out of line"):
                stack_planes(planes, "series")


@settings(max_examples=60, deadline=None)
@given(turn=st.tuples(*[st.floats(-3, 3)] * 3), step=st.sampled_from([0.6, 1.0, 3.0]), count=st.integers(4, 60))
def test_positions_of_an_oblique_series_may_be_rounded_to_a_tenth_of_a_millimetre(turn, step, count):
    frame = Rotation.from_rotvec(turn).as_matrix()
    true = [frame @ [3.33, 4.44, 5.55 + step * n] for n in range(count)]
    planes = [plane(np.round(position, 1), frame=frame, spacing=(0.8, 0.7)) for position in true]
    stack = stack_planes(planes, "series")
    for n, position in enumerate(true):
        assert np.linalg.norm((stack.affine @ [0, 0, n, 1])[:3] * [-1, -1, 1] - position) < 0.2
    # what is recorded is the distance of the slice that lies farthest from its place in the grid
    placed = np.array([(stack.affine @ [0, 0, n, 1])[:3] * [-1, -1, 1] for n in range(count)])
    given = np.array([planes[n].position for n in stack.order])
    worst = np.linalg.norm(placed - given, axis=1).max()
    assert stack.facts.get("slice_position_error_mm", 0) == pytest.approx(worst, abs=1.1e-3)
    # and where the slices are stacked, they are stacked along their normal
    assert abs(stack.affine[:3, 2] @ ([-1, -1, 1] * normal_of(planes[0]))) / stack.spacing[2] > np.cos(np.radians(0.5))


@pytest.mark.parametrize("degrees", [1.0, 3.0, 14.0])
def test_a_tilt_is_told_from_rounding(degrees):
    heights = [1.0 * n for n in range(30)]
    planes = stack_at(heights, slip=np.tan(np.radians(degrees)))
    planes = [plane(np.round(one.position, 1)) for one in planes]
    with pytest.raises(DataError, match=f"gantry tilt, its slices slip sideways by {degrees:.0f}.0 degrees"):
        stack_planes(planes, "series")


@pytest.mark.parametrize(("options", "sound"), [
    ({"step": -3.0}, True), ({"step": -1.5}, False), ({"thickness": 1.5}, False), ({"thickness": 1.6}, True),
])  # fmt: skip
def test_two_slices_by_a_negative_step_or_twice_their_thickness_apart(options, sound):
    test_two_slices_need_a_header_that_makes_them_neighbours(options, sound)
    assert stack_planes([plane([0, 0, 7])], "slice", step=-4.0).spacing == (0.5, 2.0, 4.0)
