"""DICOM RT Structure Sets: closed planar contours (PS3.3 C.8.8.6), placed by position, become masks on an image's grid.

The instances that contours refer to do not matter, because they often do not match; position and frame of reference do.
Contours on planes oblique to the image are filled on planes of their own first and resampled then.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medgcsam.errors import DataError
from medgcsam.imaging.faults import faults_of
from medgcsam.imaging.image import Image
from medgcsam.imaging.labels.contours import MAX_POINTS, fill_contours
from medgcsam.imaging.labels.matching import check_frame, check_patient, series_fact
from medgcsam.imaging.labels.resample import Grid, Placed, nothing, place
from medgcsam.imaging.labels.slabs import distinct, slab_step
from medgcsam.imaging.labels.structures import Structures

STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
LPS_SIGNS = np.array([-1.0, -1.0, 1.0])
FLAT, FLAT_MM = 0.1, 0.05
"""A contour lies on a plane where its points leave it by no more than this, in slices, or in mm."""
FARTHEST = 1e5
MAX_TIMES, MORE = 64, 2**26
"""The grid on which oblique contours are filled may have this many times the voxels of the image, and so many more."""


def of_rtstruct(ds: Dataset, where: str, *, like: Image) -> Structures:
    """The regions of interest that are areas, in the order of StructureSetROISequence.

    Regions of points or open lines have no area and are left out, by name in ``facts["structures_without_area"]``.
    Raises DataError for an image without orientation, another patient and damaged files; what is wrong with one
    structure is raised when it is placed, and only then: another frame of reference, contours that are not flat, cross
    on a slice or are drawn there twice.
    """
    if like.affine is None:
        raise DataError(f"{where} holds contours in space, and its image has no orientation; give the original image.")
    with faults_of(where, "DICOM"):
        regions = list(ds.get("StructureSetROISequence") or [])
        contours = {int(item.ReferencedROINumber): item for item in ds.get("ROIContourSequence") or []}
        drawn = [list(contours.get(int(r.ROINumber), Dataset()).get("ContourSequence") or []) for r in regions]
        kinds = [{str(contour.get("ContourGeometricType") or "") for contour in sequence} for sequence in drawn]
        named = [str(region.get("ROIName") or "").strip() or f"ROI {region.ROINumber}" for region in regions]
        series = _series(ds)
        patient = str(ds.get("PatientID") or "")
    areas = [n for n, kind in enumerate(kinds) if not kind or kind & set(CLOSED)]
    facts: dict[str, Any] = {"kind": "rtstruct"} | series_fact(like, series) | check_patient(like, patient, where)
    without = tuple(named[n] for n in range(len(named)) if n not in areas)
    if without:
        facts["structures_without_area"] = without

    @lru_cache(maxsize=1)
    def usual_step() -> float | None:
        with faults_of(where, "DICOM"):
            return _step_of_file([drawn[n] for n in areas], like.affine)

    def placed(position: int, grid: Grid) -> Placed:
        which = areas[position]
        name = f"{where}, structure {named[which]!r}"
        with faults_of(where, "DICOM"):
            frame = check_frame(like, _frame(ds, regions[which]), where)
            points = _all_points(drawn[which], name)
            allowed = "CLOSEDPLANAR_XOR" in kinds[which]
            if kinds[which] - set(CLOSED):
                raise DataError(f"{name} mixes areas with points or open lines; separate them in the planning system.")
        points = [p for p in points if len(p) > 2]
        result = _filled(points, grid, usual_step, name, crossing_allowed=allowed) if points else nothing(empty=True)
        return Placed(result.box, result.share, result.outside, result.empty, frame | dict(result.facts))

    names = tuple(named[n] for n in areas)
    return Structures(names, tuple(range(1, len(names) + 1)), placed, facts)


def _series(ds: Dataset) -> set[str]:
    """The series that the structure set refers to."""
    return {
        str(series.get("SeriesInstanceUID") or "")
        for frame in ds.get("ReferencedFrameOfReferenceSequence") or []
        for study in frame.get("RTReferencedStudySequence") or []
        for series in study.get("RTReferencedSeriesSequence") or []
    }


def _frame(ds: Dataset, region: Dataset) -> str:
    """The frame of reference of a region, else the only one that the file names."""
    own = str(region.get("ReferencedFrameOfReferenceUID") or "")
    named = {str(item.get("FrameOfReferenceUID") or "") for item in ds.get("ReferencedFrameOfReferenceSequence") or []}
    return own or (named.pop() if len(named) == 1 else str(ds.get("FrameOfReferenceUID") or ""))


def _all_points(contours: list[Dataset], name: str) -> list[np.ndarray]:
    """The points of each contour; refused before those of an endless one are all in memory."""
    points, count = [], 0
    for contour in contours:
        points.append(_points(contour, name))
        count += len(points[-1])
        if count > MAX_POINTS:
            raise DataError(f"{name} has over {MAX_POINTS:,} points; simplify it in the planning system.")
    return points


def _points(contour: Dataset, name: str) -> np.ndarray:
    """(points, 3) RAS in mm. Split by hand, because a structure set has 100,000 numbers, each an object to pydicom."""
    element = contour.get_item("ContourData")
    value = element.value if element is not None else None
    if value is None or len(value) == 0:
        return np.empty((0, 3))
    if (value.count(b"\\") if isinstance(value, bytes) else len(value)) > 3 * MAX_POINTS:
        raise DataError(f"{name} has a contour of over {MAX_POINTS:,} points; simplify it in the planning system.")
    numbers = np.array(value.rstrip(b"\0 ").split(b"\\") if isinstance(value, bytes) else value, dtype=float)
    stated = contour.get("NumberOfContourPoints")
    if len(numbers) % 3 or (stated is not None and 3 * int(stated) != len(numbers)):
        raise DataError(f"{name} has a contour with {len(numbers)} numbers for {stated} points; export it again.")
    if not np.isfinite(numbers).all() or np.abs(numbers).max() > FARTHEST:
        raise DataError(f"{name} has a contour whose points are not finite or metres off; export it again.")
    return numbers.reshape(-1, 3) * LPS_SIGNS


def _step_of_file(drawn: list[list[Dataset]], affine: np.ndarray) -> float | None:
    """Smallest step in mm, along the slices of the image, that any structure with enough planes has."""
    normal, tolerance = _normal(affine), FLAT * _slice_step(affine)
    steps = []
    for contours in drawn:
        starts = [_points(contour, "a structure")[:1] for contour in contours]
        planes = distinct(np.concatenate(starts) @ normal, tolerance) if starts else np.empty(0)
        steps.append(slab_step(planes, stated=None, usual=0.0))
    return min((step for step in steps if step), default=None)


def _normal(affine: np.ndarray) -> np.ndarray:
    """(3,) unit vector across the slices; along k, for a volume with axes at right angles."""
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    return normal / np.linalg.norm(normal) * np.sign(normal @ affine[:3, 2] or 1.0)


def _slice_step(affine: np.ndarray) -> float:
    """mm from one slice to the next, across them."""
    return float(_normal(affine) @ affine[:3, 2])


def _filled(points: list[np.ndarray], grid: Grid, usual_step, name: str, *, crossing_allowed: bool) -> Placed:
    """The structure on a grid; ``usual_step`` is asked only where the structure's own planes do not say the step."""
    step = _slice_step(grid.affine)
    normal = _normal(grid.affine)
    leaves = max(float(np.ptp(contour @ normal)) for contour in points)
    if leaves > max(FLAT * step, FLAT_MM):
        own = _own_grid(points, grid, name)
        return place_oblique(_filled(points, own, lambda: None, name, crossing_allowed=crossing_allowed), own, grid)
    planes = distinct([float((contour @ normal).mean()) for contour in points], FLAT * step)
    apart = slab_step(planes, stated=None, usual=0.0) or usual_step() or step
    to_index = np.linalg.inv(grid.affine)
    index = [contour @ to_index[:3, :3].T + to_index[:3, 3] for contour in points]
    placed = fill_contours(index, grid, thickness=apart / step, name=name, crossing_allowed=crossing_allowed)
    facts = {} if abs(apart / step - 1) < 0.1 else {"contour_step_mm": round(apart, 3)}
    return Placed(placed.box, placed.share, placed.outside, placed.empty, facts)


def _own_grid(points: list[np.ndarray], grid: Grid, name: str) -> Grid:
    """A grid on the planes of the contours, twice as fine as the image, that holds all of them."""
    largest = max(points, key=lambda contour: np.linalg.norm(_area(contour)))
    normal = _area(largest) / np.linalg.norm(_area(largest))
    step = _slice_step(grid.affine)
    if max(float(np.ptp(contour @ normal)) for contour in points) > max(FLAT * step, FLAT_MM):
        raise DataError(f"{name} has contours that are not flat, or on planes of several directions; export it again.")
    across = grid.affine[:3, int(np.abs(normal @ grid.affine[:3, :3]).argmin())]
    first = across - normal * (normal @ across)
    first /= np.linalg.norm(first)
    axes = np.stack([first, np.cross(normal, first), normal], axis=1)
    levels = distinct([float((contour @ normal).mean()) for contour in points], FLAT * step)
    edge = float(np.linalg.norm(grid.affine[:3, :3], axis=0).min()) / 2
    sizes = np.array([edge, edge, slab_step(levels, stated=None, usual=step)])
    ends = np.concatenate(points) @ axes / sizes
    start = np.append(np.floor(ends[:, :2].min(0)) - 1, levels[0] / sizes[2])
    shape = tuple(int(n) for n in np.ceil(ends.max(0) - start + 1.5))
    if np.prod(np.array(shape, dtype=float)) > MAX_TIMES * np.prod(np.array(grid.shape, dtype=float)) + MORE:
        raise DataError(f"{name} has contours that reach far beyond the image; give the label that belongs to it.")
    affine = np.eye(4)
    affine[:3, :3] = axes * sizes
    affine[:3, 3] = affine[:3, :3] @ start
    return Grid(shape, affine)


def _area(contour: np.ndarray) -> np.ndarray:
    """(3,) vector across a closed contour, as long as twice its area (Newell's method)."""
    centred = contour - contour.mean(0)
    return np.cross(centred, np.roll(centred, -1, axis=0)).sum(0)


def place_oblique(placed: Placed, own: Grid, grid: Grid) -> Placed:
    """A structure on a grid of its own, resampled."""
    to_grid = np.linalg.inv(grid.affine) @ own.affine
    to_grid[:3, 3] = (to_grid @ [*(axis.start for axis in placed.box), 1.0])[:3]
    result = place(placed.share, to_grid, grid)
    return Placed(result.box, result.share, result.outside, placed.empty, {"contours": "oblique to the image"})
