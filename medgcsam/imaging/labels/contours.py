"""Contours on parallel planes become a mask, by the rule of even and odd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
MAX_POINTS, MAX_ON_PLANE = 10_000_000, 5_000
"""Points of a structure, and contours on one plane; far above what is drawn or made by a network."""
MAX_CROSSINGS, MAX_CROSSINGS_ON_PLANE = 2**25, 2**22
"""Crossings of the edges of a structure with rows of pixels."""
MAX_COMPARED, KEPT_PIXELS = 2_000_000_000, 2**27
"""Work of comparing contours of one structure, in units of about 10 ns; and how many pixels of masks of one plane are
kept in memory meanwhile."""
PER_LOOK, PER_PAIR, PER_FILL, PER_POINT = 2_000, 3_000, 10_000, 20
"""What it costs to look for contours over one, to compare two, and to fill one, and for each of its points."""


def fill_polygons(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """(columns, rows) bool: pixels whose centres lie within an odd number of the closed polygons.

    polygons: (points, 2) each, (column, row), pixel centres at whole numbers. A centre on an edge belongs to the
    polygon where the edge is its left or upper one, so polygons that share an edge share no pixel; an edge drawn there
    and back (a keyhole) has no effect.
    """
    columns, rows = shape
    switches = np.zeros((columns + 1, rows), np.uint8)  # only even or odd matters, so that it may overflow
    for polygon in polygons:
        column, row = _crossings(polygon, 0, rows)
        np.add.at(switches, (np.clip(column, 0, columns), row), 1)
    return (np.cumsum(switches[:-1], axis=0, dtype=np.uint8) & 1).astype(bool)


def count_pixels(polygons: Sequence[np.ndarray], shape: tuple[int, int] | None = None) -> int:
    """How many pixels ``fill_polygons`` sets, without filling them; of all the plane where no shape is given."""
    limits = (-np.inf, np.inf) if shape is None else (0, shape[1])
    crossings = [_crossings(polygon, *limits) for polygon in polygons]
    column, row = (np.concatenate(parts) for parts in zip(*crossings, strict=True))
    if shape is not None:
        column = np.clip(column, 0, shape[0])
    column = column[np.lexsort((column, row))]  # a closed polygon crosses every row an even number of times
    return int((column[1::2] - column[::2]).sum())


def _rows_of(polygon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of pixel centres at or below the upper end of each edge, and the first at or below its lower end."""
    row = np.ceil(polygon[:, 1] - EDGE)
    after = np.roll(row, -1)
    return np.minimum(row, after), np.maximum(row, after)


def _crossings(polygon: np.ndarray, top: float, bottom: float) -> tuple[np.ndarray, np.ndarray]:
    """(column, row) of the first pixel at or behind each crossing of a row of pixel centres with an edge, for the rows
    from ``top`` to before ``bottom``."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    upwards = ((start[:, 1] > end[:, 1]) | ((start[:, 1] == end[:, 1]) & (start[:, 0] > end[:, 0])))[:, None]
    upper, lower = np.where(upwards, end, start), np.where(upwards, start, end)  # an edge is the same there and back
    first, behind = (np.clip(rows, top, bottom).astype(np.int64) for rows in _rows_of(polygon))
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
    Raises DataError for contours on one plane that cross, or that are nearly the same, unless ``crossing_allowed`` or
    no slice takes the plane; and for more contours, points or length than any drawing has.
    """
    planes = _planes(contours)
    _refuse_excess(contours, planes, grid, name)
    levels = np.array(list(planes))
    reach = max(thickness, EDGE) / 2
    near = (levels >= -0.5 - EDGE - reach) & (levels <= grid.shape[2] - 0.5 + EDGE + reach)
    drawn = [[contour[:, :2] for contour in plane] for plane in planes.values()]
    if not crossing_allowed:
        drawn = [_without_copies(plane) for plane in drawn]
        _refuse_crossing([plane for plane, there in zip(drawn, near, strict=True) if there], name)
    return _stacked(drawn, levels, grid, reach=reach)


def _refuse_excess(
    contours: Sequence[np.ndarray], planes: dict[float, list[np.ndarray]], grid: Grid, name: str
) -> None:
    """What would take hours or more memory than there is; no drawing comes near it."""
    ends = np.array([[contour[:, :2].min(0), contour[:, :2].max(0)] for contour in contours])
    span = np.ceil(ends[:, 1].max(0)) + 1 - np.floor(ends[:, 0].min(0))
    if np.prod(span) > MAX_TIMES * grid.shape[0] * grid.shape[1] + MORE:
        raise DataError(f"{name} has contours that reach far beyond the image; give the label that belongs to it.")
    points, most = sum(map(len, contours)), max(map(len, planes.values()))
    if points > MAX_POINTS or most > MAX_ON_PLANE:
        raise DataError(
            f"{name} has {points:,} points, and up to {most:,} contours on one slice, over the limits of "
            f"{MAX_POINTS:,} and {MAX_ON_PLANE:,}; simplify it in the planning system."
        )
    crossings = [sum(float(np.subtract(*_rows_of(c)[::-1]).sum()) for c in plane) for plane in planes.values()]
    if max(crossings) > MAX_CROSSINGS_ON_PLANE or sum(crossings) > MAX_CROSSINGS:
        raise DataError(f"{name} has contours of more length than can be filled; simplify it in the planning system.")


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
        column, row = np.rint(100 * polygon).astype(np.int64).T
        kept.setdefault(np.unique((column << 32) + row).tobytes(), polygon)
    return list(kept.values())


@dataclass(frozen=True, eq=False)
class _Plane:
    """Polygons of one plane, the boxes of pixels that hold them (polygons, 2), and which masks are kept in memory."""

    polygons: Sequence[np.ndarray]
    low: np.ndarray
    high: np.ndarray
    kept: np.ndarray

    def over(self, a: int) -> np.ndarray:
        """Polygons before ``a`` whose boxes overlap that of ``a``."""
        (left, top), (right, bottom) = self.low.T, self.high.T
        across = (left[:a] < right[a]) & (right[:a] > left[a])
        return np.flatnonzero(across & (top[:a] < bottom[a]) & (bottom[:a] > top[a]))


def _plane_of(polygons: Sequence[np.ndarray]) -> _Plane:
    low = np.array([np.floor(polygon.min(0)) for polygon in polygons]).astype(np.int64)
    high = np.array([np.ceil(polygon.max(0)) + 1 for polygon in polygons]).astype(np.int64)
    sizes = (high - low).prod(1)
    order = np.argsort(sizes, kind="stable")  # the smallest, as these are the most
    kept = np.zeros(len(polygons), bool)
    kept[order] = np.cumsum(sizes[order]) <= KEPT_PIXELS
    return _Plane(polygons, np.asfortranarray(low), np.asfortranarray(high), kept)


def _looking(count: int) -> float:
    """What it costs to find out which of so many contours lie over each other."""
    return PER_LOOK * count + count**2 / 4


def _work(plane: _Plane) -> float:
    """What comparing the contours of a plane costs, in units of ``MAX_COMPARED``; nothing is compared."""
    points = np.array([len(polygon) for polygon in plane.polygons], dtype=float)
    alone = 2 * (plane.high - plane.low).prod(1) + PER_POINT * points + PER_FILL
    work, filled = 0.0, np.zeros(len(points), bool)
    for a in range(1, len(points)):
        others = plane.over(a)
        if not len(others):
            continue
        shared = (np.minimum(plane.high[a], plane.high[others]) - np.maximum(plane.low[a], plane.low[others])).prod(1)
        filled[others] = filled[a] = True
        work += float((PER_PAIR + shared / 4).sum())
        for which in (others[~plane.kept[others]], [a] * len(others) if not plane.kept[a] else []):
            work += float((PER_FILL + PER_POINT * points[which]).sum())
        unkept = (~plane.kept[others]).astype(int) + int(not plane.kept[a])
        work += float((shared * unkept).sum())
        if work > MAX_COMPARED:
            break
    return work + float(alone[filled].sum())


def _refuse_crossing(planes: Sequence[list[np.ndarray]], name: str) -> None:
    """Of two contours one must lie within the other or beside it, but for pixels at the edges.

    Two nearly equal ones would cut each other out; a wall between them would be thinner than half a pixel. What would
    take too long is refused before any are compared.
    """
    work, boxes = sum(_looking(len(polygons)) for polygons in planes), []
    for polygons in planes:
        if work <= MAX_COMPARED:
            boxes.append(_plane_of(polygons))
            work += _work(boxes[-1])
    if work > MAX_COMPARED:
        raise DataError(f"{name} has too many contours over each other; simplify it in the planning system.")
    for plane in boxes:
        _compare(plane, name)


def _compare(plane: _Plane, name: str) -> None:
    masks: dict[int, np.ndarray] = {}
    counts: dict[int, int] = {}

    def part(n: int, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """The mask of a polygon between two corners; its pixels are counted when it is first asked for."""
        if plane.kept[n] and n not in masks:
            size = plane.high[n] - plane.low[n]
            masks[n] = fill_polygons([plane.polygons[n] - plane.low[n]], (int(size[0]), int(size[1])))
        if n not in counts:
            counts[n] = int(masks[n].sum()) if n in masks else count_pixels([plane.polygons[n]])
        if n not in masks:
            return fill_polygons([plane.polygons[n] - start], (int(end[0] - start[0]), int(end[1] - start[1])))
        (left, top), (right, bottom) = start - plane.low[n], end - plane.low[n]
        return masks[n][left:right, top:bottom]

    for a in range(1, len(plane.polygons)):
        for b in plane.over(a):
            start, end = np.maximum(plane.low[a], plane.low[b]), np.minimum(plane.high[a], plane.high[b])
            both = int(np.count_nonzero(part(a, start, end) & part(int(b), start, end)))
            _refuse_pair((plane.polygons[a], plane.polygons[b]), (counts[a], counts[int(b)]), both, name)


def _refuse_pair(pair: tuple[np.ndarray, np.ndarray], pixels: tuple[int, int], both: int, name: str) -> None:
    """pixels: how many each of the two contours holds. both: how many lie within the two."""
    smaller, larger = sorted(pixels)
    length = max(_length(polygon) for polygon in pair)
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


def _stacked(drawn: Sequence[list[np.ndarray]], levels: np.ndarray, grid: Grid, *, reach: float) -> Placed:
    """Contours of planes onto the slices that they stand for, cut at the edges of the grid; what lies outside is
    counted and not filled."""
    sizes = np.array([count_pixels(plane) for plane in drawn], dtype=float)
    empty = not sizes.any()
    off_slices = (levels < -0.5 - EDGE) | (levels > grid.shape[2] - 0.5 + EDGE)
    if grid.shape[2] == 1:
        sizes[off_slices] = 0  # of one slice, the planes above and below are no part of the question
    kept = sum(count_pixels(plane, grid.shape[:2]) for plane, off in zip(drawn, off_slices, strict=True) if not off)
    outside = float(1 - kept / sizes.sum()) if sizes.sum() else 0.0
    ends = np.array([[polygon.min(0), polygon.max(0)] for plane in drawn for polygon in plane])
    start = np.maximum(np.floor(ends[:, 0].min(0)), 0).astype(np.int64)
    end = np.minimum(np.ceil(ends[:, 1].max(0)) + 1, grid.shape[:2]).astype(np.int64)
    slices = range(max(0, int(np.floor(levels[0] - reach))), min(grid.shape[2], int(np.ceil(levels[-1] + reach)) + 1))
    if not len(slices) or (end <= start).any():
        return nothing(outside=outside, empty=empty)
    size = (int(end[0] - start[0]), int(end[1] - start[1]))
    share, filled = np.zeros((*size, len(slices)), bool), {}
    for k in slices:
        away = levels - k
        nearest = int(np.abs(away + EDGE).argmin())
        if -reach - EDGE <= away[nearest] < reach - EDGE:
            if nearest not in filled:
                filled = {nearest: fill_polygons([polygon - start for polygon in drawn[nearest]], size)}
            share[:, :, k - slices.start] = filled[nearest]
    box = (slice(int(start[0]), int(end[0])), slice(int(start[1]), int(end[1])), slice(slices.start, slices.stop))
    return Placed(box, share, outside, empty)
