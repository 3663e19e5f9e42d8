"""Planes in the patient become one grid: sorted along their normal, checked, and joined by one affine.

Positions and directions are those of DICOM (PS3.3 C.7.6.2.1.1): mm in LPS, x to the left, y to the back, z to the head
of the patient. Affines are RAS+, as everywhere in the house. What the positions do not say is never made up: planes
that form no regular grid are refused by name, or, where that is asked for and can be done, put onto one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.regrid import Regrid, plan_regrid

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SAME_DIRECTION = 1e-3
"""Largest difference of direction cosines within one orientation, and from right angles and unit length."""
SAME_SPACING = 1e-3
"""Largest relative difference of pixel spacings that are one."""
SAME_POSITION = 1e-3
"""Planes nearer to each other than this, in mm along the normal, are at one position."""
ROUNDING, LOOSE, TIGHT = 0.11, 0.2, 0.02
"""How far along the normal a plane may lie from its place in the grid: 2 % of a step; or, but for 20 % of a step at
most, the 0.1 mm that arise where positions were rounded to a tenth of a millimetre."""
SIDEWAYS = 0.5
"""The same sideways: 2 % of a pixel; or, but for half a pixel at most, these 0.1 mm."""
WHOLE = 0.1
MAX_TILT_DEGREES = 0.5
MIN_SPACING, MAX_SPACING = 1e-5, 1e4
IRREGULAR = ("refuse", "resample")


@dataclass(frozen=True, eq=False)
class Plane:
    """One image in the patient: rows x columns pixels on a plane.

    position: (3,) LPS in mm, the centre of pixel (row 0, column 0).
    along_row: (3,) unit vector LPS, the direction in which the column index grows.
    along_column: (3,) unit vector LPS, the direction in which the row index grows.
    spacing: mm (between the centres of rows, between the centres of columns), the order of PixelSpacing.
    shape: (rows, columns).
    """

    position: np.ndarray
    along_row: np.ndarray
    along_column: np.ndarray
    spacing: tuple[float, float]
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Stack:
    """A regular grid made of planes.

    order: indices of the planes, sorted by their position along the normal.
    affine: (4, 4), (column, row, slice) to RAS+ in mm; of the new grid where ``resampling`` is set.
    spacing: mm along (column, row, slice).
    facts: for ``Image.source``: geometry, slices, slice_step_source and, where they are not zero, deviations in mm.
    resampling: how to put the sorted slices onto the grid (``regrid.regridded``), or None where they lie on it.
    """

    order: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]
    facts: Mapping[str, Any]
    resampling: Regrid | None = None


def plane_affine(plane: Plane, step: float | np.ndarray) -> np.ndarray:
    """(4, 4) affine, (column, row, slice) to RAS+ in mm (PS3.3 C.7.6.2.1.1).

    step: mm along the normal (row x column) from one slice to the next, or that way itself as a vector (3,) in LPS.
    """
    affine = np.eye(4)
    affine[:3, 0] = np.asarray(plane.along_row) * plane.spacing[1]
    affine[:3, 1] = np.asarray(plane.along_column) * plane.spacing[0]
    affine[:3, 2] = step if np.ndim(step) else normal_of(plane) * step
    affine[:3, 3] = plane.position
    return RAS_FROM_LPS @ affine


def normal_of(plane: Plane) -> np.ndarray:
    """(3,) unit vector in LPS, along_row x along_column: the way in which slices are counted."""
    normal = np.cross(plane.along_row, plane.along_column)
    return normal / np.linalg.norm(normal)


def stack_planes(
    planes: Sequence[Plane],
    where: str,
    *,
    thickness: float | None = None,
    step: float | None = None,
    irregular: str = "refuse",
) -> Stack:
    """Sort planes by position along their normal and join them into one grid.

    thickness, step: SliceThickness and SpacingBetweenSlices in mm, where the file has them; of a step below 0 the size
        counts. Between three or more planes neither is used, because the positions say it. One plane is as thick as
        they say (thickness first; 1 mm, recorded as assumed, without both). Two planes need one of them, as nothing
        else shows that none is missing.
    irregular: ``refuse``, or ``resample`` to put planes that are tilted or out of line, gaps and uneven steps onto a
        regular grid.

    The grid is that of the first and the last plane where all lie on it to SAME_POSITION, else the line fitted to all;
    ``slice_position_error_mm`` is then the largest distance of a plane from its place in the grid.

    Raises DataError: mixed size, mixed orientation, mixed spacing, duplicate positions, gap, gantry tilt, out of line,
    too few slices, and numbers that cannot be a geometry. The first four of these and the last two are never resampled.
    """
    if irregular not in IRREGULAR:
        raise ValueError(f"irregular is {irregular!r}, expected one of {IRREGULAR}")
    if not planes:
        raise DataError(f"{where} holds no image plane; leave it out.")
    step = abs(step) if step else None
    _check_numbers(planes, where)
    _check_alike(planes, where)
    if len(planes) == 1:
        return _single(planes[0], thickness, step)
    positions = np.array([plane.position for plane in planes], dtype=float)
    normal = normal_of(planes[0])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    along, positions = along[order], positions[order]
    _check_distinct(along, where)
    first = planes[int(order[0])]
    slope, aside = _sideways(positions, along, normal, min(first.spacing))
    faults = [*_uneven(along), *aside]
    if faults and irregular == "refuse":
        raise DataError(f"{where} is no regular volume: {' and '.join(faults)}; leave it out, or resample it.")
    if faults:
        return _regridded(first, positions, order, normal, faults, where)
    if len(planes) == 2:
        _check_neighbours(float(along[1] - along[0]), thickness, step, where)
    corner, way, off = _line(positions, along, normal, slope)
    affine = plane_affine(replace(first, position=corner), way)
    spacing = (first.spacing[1], first.spacing[0], float(np.linalg.norm(way)))
    facts: dict[str, Any] = {"geometry": "regular", "slices": len(planes), "slice_step_source": "positions"}
    if off > SAME_POSITION:
        facts["slice_position_error_mm"] = round(off, 4)
    return Stack(order, affine, spacing, facts)


def levels_of(planes: Sequence[Plane], where: str) -> list[list[int]]:
    """Indices of planes by position along their common normal, rising; those of one level lie upon each other.

    Raises DataError for planes that are not alike (size, orientation, spacing), side by side, or without sane numbers.
    """
    _check_numbers(planes, where)
    _check_alike(planes, where)
    positions = np.array([plane.position for plane in planes], dtype=float)
    along = positions @ normal_of(planes[0])
    order = np.argsort(along, kind="stable")
    starts = np.flatnonzero(np.diff(along[order]) >= SAME_POSITION) + 1
    levels = [sorted(level.tolist()) for level in np.split(order, starts)]
    for level in levels:
        if np.abs(positions[level] - positions[level[0]]).max() > 10 * SAME_POSITION:
            raise DataError(f"{where} has images side by side in one plane; export it as one series per stack.")
    return levels


def _check_numbers(planes: Sequence[Plane], where: str) -> None:
    """Directions are orthogonal unit vectors, positions finite, spacings possible."""
    rows = np.array([plane.along_row for plane in planes], dtype=float)
    columns = np.array([plane.along_column for plane in planes], dtype=float)
    positions = np.array([plane.position for plane in planes], dtype=float)
    spacings = np.array([plane.spacing for plane in planes], dtype=float)
    if not (np.isfinite(positions).all() and np.abs(positions).max() < 1e6):
        raise DataError(f"{where} has a position that is not finite or metres off; repair ImagePositionPatient.")
    off = [(rows * rows).sum(1) - 1, (columns * columns).sum(1) - 1, (rows * columns).sum(1)]
    if not np.abs(off).max() <= 2 * SAME_DIRECTION:  # NaN is not
        raise DataError(f"{where} has directions that are no orthogonal unit vectors; repair ImageOrientationPatient.")
    if not ((spacings >= MIN_SPACING) & (spacings <= MAX_SPACING)).all():
        raise DataError(f"{where} has a pixel spacing that cannot be; repair PixelSpacing.")


def _check_alike(planes: Sequence[Plane], where: str) -> None:
    """One size, one orientation, one pixel spacing."""
    sizes = {plane.shape for plane in planes}
    if len(sizes) > 1:
        named = ", ".join(f"{rows}x{columns}" for rows, columns in sorted(sizes)[:4])
        raise DataError(f"{where} has slices of mixed size ({named}); split it into one series per size.")
    directions = np.array([[*plane.along_row, *plane.along_column] for plane in planes], dtype=float)
    other = np.abs(directions - directions[0]).max(1) > SAME_DIRECTION
    if other.any():
        few = min(int(other.sum()), len(planes) - int(other.sum()))
        raise DataError(
            f"{where} has slices of mixed orientation ({few} of {len(planes)} lie differently); "
            "split it into one series per orientation."
        )
    spacings = np.array([plane.spacing for plane in planes], dtype=float)
    if np.abs(spacings / spacings[0] - 1).max() > SAME_SPACING:
        low, high = spacings.min(), spacings.max()
        raise DataError(
            f"{where} has slices of mixed spacing ({low:.4g} to {high:.4g} mm); split it into one series per spacing."
        )


def _single(plane: Plane, thickness: float | None, step: float | None) -> Stack:
    """One slice: its thickness is only the extent of its voxels."""
    given = [(thickness, "SliceThickness"), (step, "SpacingBetweenSlices"), (1.0, "assumed 1 mm")]
    extent, source = next((value, name) for value, name in given if value and MIN_SPACING <= value <= MAX_SPACING)
    facts = {"geometry": "regular", "slices": 1, "slice_step_source": source}
    spacing = (plane.spacing[1], plane.spacing[0], float(extent))
    return Stack(np.zeros(1, dtype=int), plane_affine(plane, float(extent)), spacing, facts)


def _check_distinct(along: np.ndarray, where: str) -> None:
    distinct = 1 + int((np.diff(along) >= SAME_POSITION).sum())
    if distinct == len(along):
        return
    if distinct == 1:
        what = f"all {len(along)} slices lie at one position"
    else:
        what = f"{len(along)} slices lie at {distinct} positions"
    raise DataError(
        f"{where} has duplicate positions: {what}; "
        "it is no volume, or holds several (time points, echoes or copies): split it."
    )


def _uneven(along: np.ndarray) -> list[str]:
    """What is wrong with the steps between sorted positions, in words; an empty list where they are even."""
    mean = (along[-1] - along[0]) / (len(along) - 1)
    if np.abs(_residual(along)).max() <= min(LOOSE * mean, max(TIGHT * mean, ROUNDING)):
        return []
    steps = np.diff(along)
    usual, widest = base_step(steps), float(steps.max())
    multiple = steps / usual
    whole = np.abs(multiple - np.rint(multiple)).max() <= WHOLE
    missing = int(np.rint(multiple).sum()) - len(steps)
    if whole and missing == 1:
        return [f"one slice missing, a gap of {widest:.4g} mm between slices {usual:.4g} mm apart"]
    if whole and missing > 1:
        return [f"{missing} slices missing, a gap of up to {widest:.4g} mm between slices {usual:.4g} mm apart"]
    return [f"uneven steps between slices, a gap of up to {widest:.4g} mm and down to {steps.min():.4g} mm"]


def base_step(steps: np.ndarray) -> float:
    """The step in mm that most of the narrow steps have: the distance of neighbours where none is missing."""
    return float(np.median(steps[steps <= 1.25 * steps.min()]))


def _sideways(
    positions: np.ndarray, along: np.ndarray, normal: np.ndarray, pixel: float
) -> tuple[np.ndarray | None, list[str]]:
    """How sorted planes slip sideways: (mm per mm along the normal (3,), faults in words); pixel: a spacing in mm.

    The slope is that of the fitted line. It is None where the planes lie upon each other but for what the rounding of
    positions does, which tilts a few of them by degrees.
    """
    limit = min(SIDEWAYS * pixel, max(TIGHT * pixel, ROUNDING))
    aside = positions - np.outer(along, normal)
    aside -= aside.mean(0)
    centred = along - along.mean()
    slope = centred @ aside / (centred @ centred)
    angle = float(np.degrees(np.arctan(np.linalg.norm(slope))))
    if angle > MAX_TILT_DEGREES and np.linalg.norm(aside, axis=1).max() <= limit:
        return None, []
    off = float(np.linalg.norm(aside - np.outer(centred, slope), axis=1).max())
    if off > limit:
        return slope, [f"slices out of line, up to {off:.2g} mm sideways"]
    if angle > MAX_TILT_DEGREES:
        return slope, [f"gantry tilt, its slices slip sideways by {angle:.1f} degrees"]
    return slope, []


def _residual(values: np.ndarray) -> np.ndarray:
    """Values (n,) less the straight line fitted through them at even steps."""
    count = np.arange(len(values)) - (len(values) - 1) / 2
    return values - values.mean() - count * (count @ values / (count @ count))


def _line(
    positions: np.ndarray, along: np.ndarray, normal: np.ndarray, slope: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """(first position, way from one to the next, largest distance in mm of a plane from its place) of an even stack."""
    last = len(positions) - 1

    def farthest(corner: np.ndarray, way: np.ndarray) -> float:
        return float(np.linalg.norm(positions - corner - np.outer(np.arange(last + 1), way), axis=1).max())

    corner, way = positions[0], (positions[-1] - positions[0]) / last
    if slope is None or farthest(corner, way) > SAME_POSITION:
        fitted = along - _residual(along)
        way = (fitted[-1] - fitted[0]) / last * (normal if slope is None else normal + slope)
        corner = positions.mean(0) - last / 2 * way
    return corner, way, farthest(corner, way)


def _check_neighbours(apart: float, thickness: float | None, step: float | None, where: str) -> None:
    """Two slices need a word from the header that they are neighbours."""
    expected = step or thickness
    if not expected:
        raise DataError(
            f"{where} has too few slices: of two, without SliceThickness and SpacingBetweenSlices, "
            "none can be told from neighbours with one slice missing; export the whole series."
        )
    if apart > (1.0 + WHOLE) * step if step else apart >= (2.0 - WHOLE) * expected:
        raise DataError(
            f"{where} has a gap: two slices {apart:.4g} mm apart, where {expected:.4g} mm is stated; "
            "export the whole series."
        )


def _regridded(
    first: Plane, positions: np.ndarray, order: np.ndarray, normal: np.ndarray, faults: Sequence[str], where: str
) -> Stack:
    """The stack on the grid that ``regrid.plan_regrid`` lays through the planes."""
    frame = np.stack([first.along_row, first.along_column, normal], axis=1)
    relative = np.linalg.solve(frame, (positions - positions[0]).T).T  # mm along row, column and normal
    relative[:, :2] /= (first.spacing[1], first.spacing[0])
    plan = plan_regrid(relative, (first.shape[1], first.shape[0]), base_step(np.diff(relative[:, 2])), where)
    affine = plane_affine(first, normal * plan.step)
    affine[:3, 3] = (affine @ [*plan.start, 0, 1])[:3]
    facts = {"geometry": "resampled: " + " and ".join(faults), "slices": len(order), "slice_step_source": "positions"}
    return Stack(order, affine, (first.spacing[1], first.spacing[0], plan.step), facts, plan)
