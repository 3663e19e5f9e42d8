"""DICOM Segmentation objects: binary, fractional and label maps (PS3.3 C.8.20), with any number of segments.

Frames are placed by their position in space. Empty frames are left out by most writers, so gaps between the frames of a
segment are normal and stay empty. Frames without a position, as over radiographs and ultrasound, are matched by the
instance that they were drawn on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medgcsam.errors import DataError
from medgcsam.imaging.faults import MAX_VOXELS, check_size, faults_of, said
from medgcsam.imaging.geometry import Plane, normal_of, plane_affine
from medgcsam.imaging.image import Image
from medgcsam.imaging.labels.matching import check_frame, check_patient, series_fact
from medgcsam.imaging.labels.resample import Grid, Placed, nothing, place
from medgcsam.imaging.labels.seg_frames import Frame, decoder, frames_of
from medgcsam.imaging.labels.slabs import Stated, distinct, step_between_slices, step_on_slices
from medgcsam.imaging.labels.structures import MAX_NUMBER, Structures

STORAGES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage."""
TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")
ON_PLANE = 0.1
"""A frame lies on a plane where it is no further away than this, in steps from one plane to the next, or in pixels."""
MAX_FRAMES = 1_000_000


@dataclass(frozen=True, eq=False)
class Levels:
    """The frames on regular planes: level of each, the affine of level 0, whose third column is the step, and facts."""

    level: np.ndarray
    affine: np.ndarray
    facts: Mapping[str, Any]


def of_seg(ds: Dataset, where: str, *, like: Image) -> Structures:
    """The segments, in the order of SegmentSequence; the background segment 0 of a label map is no structure.

    Values of fractional segments are shares (occupancy) or probabilities; a voxel counts from one half on.
    Raises DataError for whole-slide segmentations, another patient or frame of reference, frames that lie on no common
    planes or twice on one, frames whose positions contradict their stated step, frames that cannot be placed, and
    damaged files.
    """
    with faults_of(where, "DICOM"):
        kind = str(ds.get("SegmentationType") or "").strip().upper()
        _refuse(ds, kind, where)
        segments = [(int(s.SegmentNumber), _label(s)) for s in ds.get("SegmentSequence") or []]
        segments = [(number, name) for number, name in segments if number or kind != "LABELMAP"]
        numbers = [number for number, _ in segments]
        if len(set(numbers)) < len(numbers) or any(not 1 <= number <= MAX_NUMBER for number in numbers):
            raise DataError(f"{where} numbers its segments twice, or beyond {MAX_NUMBER:,}; export it again.")
        frames = frames_of(ds, kind, where, with_sources=like.affine is None)
        series = {str(item.get("SeriesInstanceUID") or "") for item in ds.get("ReferencedSeriesSequence") or []}
        facts: dict[str, Any] = {"kind": "seg", "segmentation": kind} | series_fact(like, series)
        facts |= check_patient(like, str(ds.get("PatientID") or ""), where)
        if kind == "FRACTIONAL":
            facts["fractional"] = said(str(ds.get("SegmentationFractionalType") or ""))
        frame_uid = str(ds.get("FrameOfReferenceUID") or "")
        stated = _stated(ds)
        mask_of = decoder(ds, kind, set(numbers), where)
    if kind != "LABELMAP" and (strange := {frame.segment for frame in frames} - set(numbers)):
        raise DataError(f"{where} has frames of a segment {min(strange)} that it does not describe; export it again.")
    without_place = sum(frame.plane is None for frame in frames)
    in_space = like.affine is not None and not without_place
    if like.affine is not None and 0 < without_place < len(frames):
        raise DataError(f"{where} has {without_place} of {len(frames)} frames without a position; export it again.")
    if in_space:
        facts |= check_frame(like, frame_uid, where)
    own = facts["label_series"] == "same"
    levels = _levels(frames, stated, like.affine, where, own_series=own) if in_space and frames else None
    facts |= levels.facts if levels is not None else {}

    def placed(position: int, grid: Grid) -> Placed:
        number, name = segments[position]
        chosen = [n for n, frame in enumerate(frames) if frame.segment in (number, None)]
        named = f"{where}, segment {name!r}"
        if not chosen:
            return nothing(empty=True)
        if levels is None:
            return _by_instance([frames[n] for n in chosen], chosen, lambda n: mask_of(n, number), grid, like, named)
        return _in_space(chosen, levels, lambda n: mask_of(n, number), grid, named)

    return Structures(tuple(name for _, name in segments), tuple(numbers), placed, facts)


def _refuse(ds: Dataset, kind: str, where: str) -> None:
    if kind not in TYPES:
        found = said(kind) or "not given"
        raise DataError(f"{where} is a segmentation of the type {found}, which is not read; convert it.")
    if "TotalPixelMatrixRows" in ds or str(ds.get("DimensionOrganizationType") or "").startswith("TILED"):
        raise DataError(f"{where} is a segmentation of a whole slide in tiles, which is not read; leave it out.")
    if "PixelData" not in ds:
        raise DataError(f"{where} is a segmentation without pixels, or was cut off before them; export it again.")
    check_size((int(ds.Rows), int(ds.Columns)), where)
    if not 0 < int(ds.get("NumberOfFrames") or 1) <= MAX_FRAMES:
        raise DataError(f"{where} says that it has {ds.NumberOfFrames} frames, which cannot be; export it again.")
    if kind == "FRACTIONAL" and not 0 < int(ds.get("MaximumFractionalValue") or 0) <= 255:
        raise DataError(f"{where} is fractional and does not say which value is full; export it again.")


def _label(segment: Dataset) -> str:
    name = segment.get("SegmentLabel") or segment.get("SegmentDescription") or f"segment {segment.SegmentNumber}"
    return str(name).strip()


def _stated(ds: Dataset) -> Stated:
    """SpacingBetweenSlices and SliceThickness."""
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    measures = (shared.get("PixelMeasuresSequence") or [Dataset()])[0]
    values = [abs(float(measures.get(word) or 0.0)) for word in ("SpacingBetweenSlices", "SliceThickness")]
    return Stated(*(value if 0 < value < np.inf else None for value in values))


def _levels(frames: list[Frame], stated: Stated, like: np.ndarray, where: str, *, own_series: bool) -> Levels:
    """Planes of the frames as whole numbers of steps along their normal; see ``slabs.py`` for the step."""
    planes = [frame.plane for frame in frames]
    first = planes[0]
    described = np.array([[*p.along_row, *p.along_column, *p.spacing] for p in planes])
    positions = np.array([plane.position for plane in planes])
    sound = np.isfinite(described).all() and np.isfinite(positions).all() and (described[:, 6:] > 0).all()
    right = np.array([[*first.along_row], [*first.along_column]])
    if not sound or np.abs(right @ right.T - np.eye(2)).max() > 2e-3 or np.abs(positions).max() > 1e6:
        raise DataError(f"{where} has a position, orientation or pixel spacing that cannot be; export it again.")
    if np.abs(described - described[0]).max() > 1e-3:
        raise DataError(f"{where} has frames of mixed orientation or pixel spacing; split it.")
    normal = normal_of(first)
    along = (positions - first.position) @ normal
    step, facts = _step(along, stated, first, like, where, own_series=own_series)
    level = np.rint(along / step)
    if np.abs(along / step - level).max() > ON_PLANE:
        raise DataError(f"{where} has frames that do not lie at even steps, {step:.4g} mm apart; resample it.")
    way = normal * step
    if (farthest := int(np.abs(level).argmax())) and level[farthest]:
        way = (positions[farthest] - first.position) / level[farthest]
    aside = positions - first.position - np.outer(level, way)
    if np.abs(aside - np.outer(aside @ normal, normal)).max() > ON_PLANE * min(first.spacing):
        raise DataError(f"{where} has frames that are shifted sideways, each in its own way; resample it.")
    return Levels(level.astype(int), plane_affine(first, way), facts)


def _step(
    along: np.ndarray, stated: Stated, first: Plane, like: np.ndarray, where: str, *, own_series: bool
) -> tuple[float, dict[str, Any]]:
    """(mm between neighbouring planes, facts); ``slabs.step_on_slices`` where all frames lie on slices of the image."""
    across = np.cross(like[:3, 0], like[:3, 1]) * (-1.0, -1.0, 1.0)
    across /= np.linalg.norm(across)
    usual = abs(float((like[:3, 2] * (-1.0, -1.0, 1.0)) @ across))
    planes = distinct(along, ON_PLANE * usual)
    if abs(abs(across @ normal_of(first)) - 1) < 1e-5:
        start = (first.position - like[:3, 3] * (-1.0, -1.0, 1.0)) @ normal_of(first)
        slices = (along + start) / usual
        if np.abs(slices - np.rint(slices)).max() <= ON_PLANE:
            pixels = np.linalg.norm(like[:3, :2], axis=0)  # mm between columns, between rows
            own_pixels = own_series and bool(np.abs(np.array(first.spacing[::-1]) / pixels - 1).max() < ON_PLANE)
            step, facts = step_on_slices(planes, stated, usual, where, own_pixels=own_pixels)
            return step, facts | ({"frame_step_mm": round(step, 3)} if abs(step / usual - 1) > ON_PLANE else {})
    step = step_between_slices(planes, stated, usual)
    return step, {"frame_step_mm": round(step, 3)} if abs(step / usual - 1) > ON_PLANE else {}


def _in_space(chosen: list[int], levels: Levels, mask_of: Callable, grid: Grid, name: str) -> Placed:
    """The frames of one segment as a volume, and that volume on the grid."""
    level = levels.level[chosen]
    if len(set(level.tolist())) < len(level):
        raise DataError(f"{name} has two frames at one position (duplicate positions); export it again.")
    low = int(level.min())
    first = mask_of(chosen[0])
    shape = (*first.shape, int(level.max()) - low + 1)
    check_size(shape, name, limit=MAX_VOXELS)
    volume = np.zeros(shape, first.dtype)
    for at, frame in zip(level - low, chosen, strict=True):
        volume[:, :, at] = mask_of(frame)
    affine = levels.affine.copy()
    affine[:3, 3] += affine[:3, 2] * low
    return place(volume, np.linalg.inv(grid.affine) @ affine, grid)


def _by_instance(
    frames: list[Frame], numbers: list[int], mask_of: Callable, grid: Grid, like: Image, name: str
) -> Placed:
    """Frames without a place in space, on the slices (or the picture) that they were drawn on."""
    known = like.reference
    if known is None or not known.sop_instance_uids:
        raise DataError(f"{name} has no position, and its image is not DICOM; give the DICOM image.")
    size = grid.shape[2]
    if len(known.sop_instance_uids) != size or str(like.source.get("geometry")).startswith("resampled"):
        raise DataError(f"{name} has no position, and its image is not as it was stored; give the original image.")
    instances = known.sop_instance_uids
    slices = dict(zip(zip(instances, known.frame_numbers or [None] * size, strict=True), range(size), strict=True))
    if len(set(instances)) == size:  # a reference to a single-frame object need not say its frame, and may
        slices |= {(uid, number): k for k, uid in enumerate(instances) for number in (None, 1)}
    volume = None
    for number, frame in zip(numbers, frames, strict=True):
        at = {slices[source] for source in frame.sources if source in slices}
        if not at:
            continue
        mask = mask_of(number)
        mask = mask.T if len(like.spatial_shape) == 2 else mask
        if len(at) > 1 or mask.shape != grid.shape[:2]:
            raise DataError(f"{name} does not fit the pixels of its image; give the label that belongs to it.")
        volume = np.zeros(grid.shape, mask.dtype) if volume is None else volume
        k = at.pop()
        if volume[:, :, k].any():
            raise DataError(f"{name} has two frames of one slice (duplicate positions); export it again.")
        volume[:, :, k] = mask
    if volume is None:
        raise DataError(f"{name} was drawn on other images than this one; give the label that belongs to it.")
    return place(volume, np.eye(4), grid)
