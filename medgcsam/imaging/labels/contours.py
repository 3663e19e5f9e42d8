"""Contours on parallel planes become a mask, by the rule of even and odd."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.labels.resample import EDGE, Grid, Placed, nothing
from medgcsam.imaging.labels.slabs import distinct

SAME_PLANE = 0.1
"""Contours nearer to each other than this, in slices, lie on one plane."""

COPY, WALL = 0.8, 0.5
"""Two contours are nearly one where they share so much of the larger and lie apart by less than so many pixels."""
MAX_TIMES, MORE = 16, 2**22
"""Contours may span this many times the area of the image, and so many pixels more."""


def fill_polygons(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """(columns, rows) bool: pixels whose centres lie within an odd number of the closed polygons.

    polygons: (points, 2) each, (column, row), pixel centres at whole numbers. A centre on an edge belongs to the
    polygon where the edge is its left or upper one, so polygons that share an edge share no pixel; an edge drawn there
    and back (a keyhole) has no effect.
    """
    columns, rows = shape
    switches = np.zeros((columns + 1, rows), np.uint8)  # only even or odd matters, so that it may overflow
    for polygon in polygons:
        column, row = _crossings(polygon)
        seen = (row >= 0) & (row < rows)
        np.add.at(switches, (np.clip(column[seen], 0, columns), row[seen]), 1)
    return (np.cumsum(switches[:-1], axis=0, dtype=np.uint8) & 1).astype(bool)


def _crossings(polygon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(column, row) of the first pixel at or behind each crossing of a row of pixel centres with an edge."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    upwards = ((start[:, 1] > end[:, 1]) | ((start[:, 1] == end[:, 1]) & (start[:, 0] > end[:, 0])))[:, None]
    upper, lower = np.where(upwards, end, start), np.where(upwards, start, end)  # an edge is the same there and back
    first, behind = (np.ceil(side[:, 1] - EDGE).astype(np.int64) for side in (upper, lower))
    count = behind - first
    edge = np.repeat(np.arange(len(count)), count)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    height = lower[edge, 1] - upper[edge, 1]
    column = upper[edge, 0] + (row - upper[edge, 1]) * (lower[edge, 0] - upper[edge, 0]) / height
    return np.ceil(column - EDGE).astype(np.int64), row


def fill_contours(
    contours: Sequence[np.ndarray], grid: Grid, *, thickness: float, name: str, crossing_allowed: bool = False
) -> Placed:
    """The structure within closed contours, each on a plane of constant k, on a grid.

    contours: (points, 3) each, index (i, j, k) of the grid, not rounded; not empty.
    thickness: how far apart neighbouring planes of contours are, in slices. A slice takes the contours of the nearest
        plane, if that is not further away than half of this.
    name: what messages call the structure.

    Contours on one plane combine by even and odd: one within another is a hole. The same contour twice counts once.
    Raises DataError for contours on one plane that cross, or that are nearly the same, unless ``crossing_allowed``.
    """
    planes = _planes(contours)
    ends = np.concatenate([contour[:, :2] for contour in contours])
    low, high = np.floor(ends.min(0)).astype(np.int64), np.ceil(ends.max(0)).astype(np.int64) + 1
    if np.prod((high - low).astype(float)) > MAX_TIMES * grid.shape[0] * grid.shape[1] + MORE:
        raise DataError(f"{name} has contours that reach far beyond the image; give the label that belongs to it.")
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    masks = []
    for plane in planes.values():
        polygons = [contour[:, :2] - low for contour in plane]
        if not crossing_allowed:
            polygons = _without_copies(polygons)
            _refuse_crossing(polygons, size, name)
        masks.append(fill_polygons(polygons, size))
    return _stacked(masks, np.array(list(planes)), grid, low=low, thickness=thickness)


def _planes(contours: Sequence[np.ndarray]) -> dict[float, list[np.ndarray]]:
    """k of each plane, rising -> its contours."""
    levels = np.array([contour[:, 2].mean() for contour in contours])
    places = distinct(levels, SAME_PLANE)
    nearest = np.searchsorted(places, levels + EDGE, side="right") - 1
    planes: dict[float, list[np.ndarray]] = {float(place): [] for place in places}
    for contour, which in zip(contours, nearest, strict=True):
        planes[float(places[max(which, 0)])].append(contour)
    return planes


def _without_copies(polygons: list[np.ndarray]) -> list[np.ndarray]:
    """Drop polygons with the same corners as one before: drawn twice, they would cut each other out."""
    kept: dict[bytes, np.ndarray] = {}
    for polygon in polygons:
        kept.setdefault(np.unique(np.round(polygon, 2) + 0.0, axis=0).tobytes(), polygon)
    return list(kept.values())


def _refuse_crossing(polygons: list[np.ndarray], size: tuple[int, int], name: str) -> None:
    """Of two contours one must lie within the other or beside it, but for pixels at the edges.

    Two nearly equal ones would cut each other out; a wall between them would be thinner than half a pixel.
    """
    boxes = [(polygon.min(0), polygon.max(0)) for polygon in polygons]
    masks: dict[int, np.ndarray] = {}
    for a in range(len(polygons)):
        for b in range(a):
            if (boxes[a][0] > boxes[b][1]).any() or (boxes[b][0] > boxes[a][1]).any():
                continue
            for which in (a, b):
                if which not in masks:
                    masks[which] = fill_polygons([polygons[which]], size)
            both = int((masks[a] & masks[b]).sum())
            smaller, larger = sorted((int(masks[a].sum()), int(masks[b].sum())))
            length = max(_length(polygons[a]), _length(polygons[b]))
            if both > COPY * larger and smaller + larger - 2 * both < WALL * length:
                raise DataError(
                    f"{name} has nearly the same outline twice on one slice, so that one would cut out the other; "
                    "delete one of them in the planning system."
                )
            if min(both, smaller - both) > max(4.0, 0.1 * smaller):
                raise DataError(
                    f"{name} has two contours that cross on one slice, which does not say whether they add or cut out; "
                    "correct them in the planning system."
                )


def _length(polygon: np.ndarray) -> float:
    """Of the closed outline, in pixels."""
    return float(np.linalg.norm(polygon - np.roll(polygon, -1, axis=0), axis=1).sum())


def _stacked(masks: list[np.ndarray], levels: np.ndarray, grid: Grid, *, low: np.ndarray, thickness: float) -> Placed:
    """Masks of planes (each starting at ``low``) onto the slices that they stand for, cut at the edges of the grid."""
    columns, rows = masks[0].shape
    start, end = np.maximum(low, 0), np.minimum(low + (columns, rows), grid.shape[:2])
    part = tuple(slice(int(a), int(b)) for a, b in zip(start - low, np.maximum(start, end) - low, strict=True))
    sizes = np.array([mask.sum() for mask in masks], dtype=float)
    kept = np.array([mask[part].sum() for mask in masks], dtype=float)
    off_slices = (levels < -0.5 - EDGE) | (levels > grid.shape[2] - 0.5 + EDGE)
    if grid.shape[2] == 1:
        sizes[off_slices] = 0  # of one slice, the planes above and below are no part of the question
    kept[off_slices] = 0
    outside = 1 - kept.sum() / sizes.sum() if sizes.sum() else 0.0
    reach = max(thickness, EDGE) / 2
    slices = range(max(0, int(np.floor(levels[0] - reach))), min(grid.shape[2], int(np.ceil(levels[-1] + reach)) + 1))
    if not len(slices) or (end <= start).any():
        return nothing(outside=float(outside), empty=not sum(mask.any() for mask in masks))
    share = np.zeros((*masks[0][part].shape, len(slices)), bool)
    for k in slices:
        away = levels - k
        nearest = int(np.abs(away + EDGE).argmin())
        if -reach - EDGE <= away[nearest] < reach - EDGE:
            share[:, :, k - slices.start] = masks[nearest][part]
    box = (slice(int(start[0]), int(end[0])), slice(int(start[1]), int(end[1])), slice(slices.start, slices.stop))
    return Placed(box, share, float(outside), not sum(mask.any() for mask in masks))
