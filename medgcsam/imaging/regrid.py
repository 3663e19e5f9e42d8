"""Slices that lie unevenly or slip sideways, put onto a regular grid by linear interpolation along all three axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.faults import MAX_VOXELS, check_size

MAX_GAP_STEPS = 4
"""A gap wider than this many steps is not filled: what lies in it would be invented."""


@dataclass(frozen=True, eq=False)
class Regrid:
    """Where the planes of an irregular stack lie on a regular grid.

    shape: (columns, rows, slices) of the new grid.
    start: (column, row) of the new grid's first voxel, in pixels of the first plane; whole numbers, not positive.
    shifts: (planes, 2), (column, row) of each plane's first pixel, in pixels of the first plane.
    levels: (planes,), place of each plane along the normal, in steps of the new grid from the first plane.
    step: mm along the normal.
    """

    shape: tuple[int, int, int]
    start: tuple[int, int]
    shifts: np.ndarray
    levels: np.ndarray
    step: float


def plan_regrid(relative: np.ndarray, size: tuple[int, int], usual: float, where: str) -> Regrid:
    """Lay a grid through sorted planes.

    relative: (planes, 3), place of each plane's first pixel from that of the first one: pixels along columns, pixels
        along rows, mm along the normal. size: (columns, rows) of a plane. usual: mm between neighbours.

    The grid keeps the pixels of the first plane, covers all planes, and has the step nearest to ``usual`` that reaches
    the last plane exactly; with slices missing from an even stack the others stay as they are.
    Raises DataError for gaps over MAX_GAP_STEPS steps.
    """
    widest = float(np.diff(relative[:, 2]).max())
    if widest > (MAX_GAP_STEPS + 0.1) * usual:
        raise DataError(
            f"{where} has a gap of {widest:.4g} mm between slices {usual:.4g} mm apart, too wide to be filled; "
            "export the whole series."
        )
    extent = float(relative[-1, 2])
    steps = max(1, round(extent / usual))
    step = extent / steps
    shifts = relative[:, :2].copy()
    shifts[np.abs(shifts - np.rint(shifts)) < 1e-4] = np.rint(shifts[np.abs(shifts - np.rint(shifts)) < 1e-4])
    start = np.floor(shifts.min(0)).astype(int)
    end = np.ceil(shifts.max(0)).astype(int) + size
    shape = (*(int(n) for n in end - start), steps + 1)
    check_size(shape, where, limit=MAX_VOXELS)
    levels = relative[:, 2] / step
    near = np.abs(levels - np.rint(levels)) < 1e-3
    levels = np.where(near, np.rint(levels), levels)
    return Regrid(shape, (int(start[0]), int(start[1])), shifts, levels, step)


def regridded(array: np.ndarray, plan: Regrid) -> tuple[np.ndarray, int]:
    """Sorted slices (channels, column, row, slice) on the new grid, float32; and how many voxels lie outside them.

    Voxels that a slice does not reach take the smallest value of the channel, and so do those between slices of which
    one does not reach them.
    """
    channels = array.shape[0]
    result = np.empty((channels, *plan.shape), np.float32)
    outside = 0
    fill = array.reshape(channels, -1).min(1).astype(np.float32)[:, None, None]
    placed: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for k in range(plan.shape[2]):
        upper = min(int(np.searchsorted(plan.levels, k)), len(plan.levels) - 1)
        lower = upper if plan.levels[upper] <= k else upper - 1
        for plane in [plane for plane in placed if plane < lower]:
            del placed[plane]
        for plane in (lower, upper):
            if plane not in placed:
                placed[plane] = _placed(array[..., plane], plan.shifts[plane] - plan.start, plan.shape[:2])
        (below, in_below), (above, in_above) = placed[lower], placed[upper]
        if upper == lower:
            values, inside = below, in_below
        else:
            share = np.float32((k - plan.levels[lower]) / (plan.levels[upper] - plan.levels[lower]))
            values, inside = below * (1 - share) + above * share, in_below & in_above
        result[..., k] = np.where(inside, values, fill)
        outside += int((~inside).sum())
    return result, outside


def _placed(slices: np.ndarray, shift: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One slice (channels, column, row) moved by ``shift`` pixels (not negative) into a frame; and where it is inside.

    A moved slice has a value at every voxel between its first and its last pixel centre.
    """
    whole = np.floor(shift).astype(int)
    values = np.asarray(slices, np.float32)
    for axis, part in enumerate(shift - whole):
        if part > 0:  # voxel n of the moved slice lies between its pixels n - 1 and n
            ahead, behind = (np.take(values, range(a, values.shape[axis + 1] - 1 + a), axis + 1) for a in (1, 0))
            values = ahead * np.float32(1 - part) + behind * np.float32(part)
            whole[axis] += 1
    frame = np.zeros((len(values), *shape), np.float32)
    inside = np.zeros(shape, bool)
    place = tuple(slice(w, w + n) for w, n in zip(whole, values.shape[1:], strict=True))
    frame[(slice(None), *place)], inside[place] = values, True
    return frame, inside
