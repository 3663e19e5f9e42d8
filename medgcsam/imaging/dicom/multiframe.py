"""Multi-frame objects whose frames lie in the patient become volumes: (channels, column, row, slice).

Where the frames lie is said per frame by functional groups (PS3.3 C.7.6.16; enhanced CT, MR, PET, tomosynthesis), by
the slice vector of nuclear medicine (PS3.3 C.8.4.15) or by GridFrameOffsetVector. Several frames at one position (time
points, echoes, diffusion weights) become channels, if an index tells them apart. Nothing is taken from frame order.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from medgcsam.errors import DataError
from medgcsam.imaging.dicom.facts import as_plane, pixel_spacing
from medgcsam.imaging.dicom.file import frame_count
from medgcsam.imaging.dicom.functional_groups import group_value
from medgcsam.imaging.dicom.presentation import number
from medgcsam.imaging.geometry import Plane, levels_of, normal_of, stack_planes

SPATIAL = (
    "StackID", "InStackPositionNumber", "ImagePositionPatient", "PlanePositionSequence", "ImageOrientationPatient",
    "PlaneOrientationSequence", "SliceLocation", "ImagePositionVolume",
)  # fmt: skip
INDICES = {
    "TemporalPositionIndex": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
    "ComplexImageComponent": "MRImageFrameTypeSequence",
}
"""What may tell frames at one position apart where the object names no dimensions: attribute -> functional group."""
ONE_IN_A_VOLUME = ("EffectiveEchoTime", "ComplexImageComponent")
SAME_ECHO = 0.01
"""Largest relative difference of echo times that are one."""
Keys = tuple[tuple[str, ...], list[tuple[Hashable, ...]]]
"""Names of dimensions that are not of space, and their values for each frame."""


def frame_planes(ds: Dataset, where: str) -> list[Plane] | None:
    """The plane of each frame by its functional groups; None where no frame has a position. Raises DataError."""
    frames, shape = frame_count(ds), (int(ds.Rows), int(ds.Columns))
    if len(ds.PerFrameFunctionalGroupsSequence) != frames:
        found = len(ds.PerFrameFunctionalGroupsSequence)
        raise DataError(f"{where} has {frames} frames and describes {found} of them; export it again.")
    planes = []
    for frame in range(frames):
        position = group_value(ds, frame, "PlanePositionSequence", "ImagePositionPatient")
        if position is None:
            continue
        orientation = group_value(ds, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = group_value(ds, frame, "PixelMeasuresSequence", "PixelSpacing")
        plane, why = as_plane(position, orientation, spacing, shape)
        if plane is None:
            raise DataError(f"{where} does not say how frame {frame + 1} lies ({why}); export it again.")
        planes.append(plane)
    if planes and len(planes) != frames:
        raise DataError(f"{where} gives a position to {len(planes)} of its {frames} frames only; export it again.")
    return planes or None


def frame_keys(ds: Dataset) -> list[Keys]:
    """Ways to tell frames at one position apart, the best first: the object's dimensions, then known indices."""
    frames = range(frame_count(ds))
    pointers = [keyword_for_tag(item.DimensionIndexPointer) for item in ds.get("DimensionIndexSequence") or ()]
    found: list[Keys] = []
    values = [_tuple(group_value(ds, f, "FrameContentSequence", "DimensionIndexValues")) for f in frames]
    kept = [n for n, name in enumerate(pointers) if name not in SPATIAL]
    if kept and all(len(value) == len(pointers) for value in values):
        found.append((tuple(pointers[n] or "private" for n in kept), [tuple(v[n] for n in kept) for v in values]))
    single = {}
    for name, group in INDICES.items():
        column = [group_value(ds, f, group, name) for f in frames]
        if None not in column and len(set(column)) > 1:
            single[name] = column
    found += [((name,), [(value,) for value in column]) for name, column in single.items()]
    if len(single) > 1:
        found.append((tuple(single), list(zip(*single.values(), strict=True))))
    return found


def nuclear_planes(ds: Dataset, where: str) -> tuple[list[Plane], list[Keys]] | None:
    """Planes and time slots of a reconstructed tomogram of nuclear medicine; None for its other images.

    The detector gives the first slice; the others follow along the normal by SpacingBetweenSlices, against it where
    that is negative (PS3.3 C.8.4.15).
    """
    kinds = list(ds.get("ImageType") or ())
    if len(kinds) < 3 or kinds[2] not in ("RECON TOMO", "RECON GATED TOMO"):
        return None
    frames = frame_count(ds)
    slices = [int(v) for v in _tuple(ds.get("SliceVector"))]
    slots = [int(v) for v in _tuple(ds.get("TimeSlotVector"))] or [1] * frames
    detector = (ds.get("DetectorInformationSequence") or [Dataset()])[0]
    step = number(ds, "SpacingBetweenSlices")
    position, orientation = detector.get("ImagePositionPatient"), detector.get("ImageOrientationPatient")
    first, why = as_plane(position, orientation, pixel_spacing(ds)[0], (int(ds.Rows), int(ds.Columns)))
    if first is None or not step or len(slices) != frames or len(slots) != frames:
        why = why or ("no SpacingBetweenSlices" if not step else "no SliceVector of all frames")
        raise DataError(f"{where} is a tomogram that does not say where its slices lie ({why}); export it again.")
    return _along(first, [(n - 1) * step for n in slices]), [(("TimeSlotVector",), [(slot,) for slot in slots])]


def offset_planes(ds: Dataset, where: str) -> list[Plane] | None:
    """Planes by GridFrameOffsetVector, mm along the normal from ImagePositionPatient; None for objects without it."""
    offsets = [float(v) for v in _tuple(ds.get("GridFrameOffsetVector"))]
    if not offsets:
        return None
    position, orientation = ds.get("ImagePositionPatient"), ds.get("ImageOrientationPatient")
    first, why = as_plane(position, orientation, pixel_spacing(ds)[0], (int(ds.Rows), int(ds.Columns)))
    if first is None or len(offsets) != frame_count(ds) or offsets[0] != 0:
        why = why or "GridFrameOffsetVector does not start at 0 or not go through all frames"
        raise DataError(f"{where} does not say where its frames lie ({why}); export it again.")
    return _along(first, offsets)


def place_frames(
    planes: Sequence[Plane], keys: Iterable[Keys], where: str, **stacking: Any
) -> tuple[np.ndarray, Any, dict[str, Any]]:
    """(frame of each channel and slice (channels, slices), geometry.Stack of one channel, facts). Raises DataError.

    stacking: ``thickness``, ``step`` and ``irregular`` of ``geometry.stack_planes``.
    """
    levels = levels_of(planes, where)
    deep = max(len(level) for level in levels)
    if deep == 1:
        _check_one_kind(keys, where)
        table, facts = np.array([[level[0] for level in levels]]), {}
    else:
        table, facts = _channels(levels, keys, len(planes), where)
    stack = stack_planes([planes[frame] for frame in table[0]], where, **stacking)
    return table[:, stack.order], stack, {"frames": len(planes)} | facts | dict(stack.facts)


def _check_one_kind(keys: Iterable[Keys], where: str) -> None:
    """Frames of one volume, each at a position of its own, have one echo time and one part of complex values."""
    for names, values in keys:
        if len(names) == 1 and names[0] in ONE_IN_A_VOLUME:
            found = sorted({value for (value,) in values})
            if names[0] != "EffectiveEchoTime" or max(found) - min(found) > SAME_ECHO * abs(max(found)):
                said = ", ".join(str(value) for value in found[:4])
                raise DataError(f"{where} mixes frames of {len(found)} values of {names[0]} ({said}); export it apart.")


def _channels(
    levels: Sequence[Sequence[int]], keys: Iterable[Keys], frames: int, where: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """The first way to tell frames apart by which each position has each index once."""
    for names, values in keys:
        expected = sorted({values[frame] for frame in levels[0]})
        tables = [{values[frame]: frame for frame in level} for level in levels]
        if all(len(level) == len(expected) == len(table) for level, table in zip(levels, tables, strict=True)) and all(
            sorted(table) == expected for table in tables
        ):
            varying = [n for n in range(len(names)) if len({key[n] for key in expected}) > 1]
            facts = {
                "channels_by": " and ".join(names[n] for n in varying),
                "channel_values": [key[varying[0]] if len(varying) == 1 else str(key) for key in expected],
            }
            return np.array([[table[key] for table in tables] for key in expected]), facts
    raise DataError(
        f"{where} has duplicate positions: {frames} frames lie at {len(levels)} positions, and no index tells them "
        "apart; export one object per time point or echo."
    )


def _along(first: Plane, offsets: Sequence[float]) -> list[Plane]:
    normal = normal_of(first)
    return [
        Plane(first.position + offset * normal, first.along_row, first.along_column, first.spacing, first.shape)
        for offset in offsets
    ]


def _tuple(value: Any) -> tuple[Any, ...]:
    """The values of an element of any multiplicity."""
    if value is None or (isinstance(value, str) and not value):
        return ()
    return tuple(value) if hasattr(value, "__len__") and not isinstance(value, str) else (value,)
