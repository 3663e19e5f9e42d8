"""What the header of a DICOM object says besides its pixel values: facts, spacing, plane in the patient, references."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from medgcsam.imaging.dicom.file import sop_class
from medgcsam.imaging.dicom.presentation import number
from medgcsam.imaging.geometry import Plane
from medgcsam.imaging.image import Reference

YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
TWO_DIMENSIONAL, CENTIMETRES = 1, 3
"""RegionSpatialFormat of a B-mode picture, and the physical unit cm (PS3.3 C.8.5.5.1)."""


def class_name(ds: Dataset) -> str:
    """The SOP class in words, such as ``CT Image Storage``; its UID where it is unknown, ``DICOM`` without one."""
    return UID(sop_class(ds)).name or "DICOM"


def facts_of(ds: Dataset) -> dict[str, Any]:
    """What later stations may want to know; no names, no identifiers, no dates."""

    def text(keyword: str) -> str:
        value = ds.get(keyword)
        return "" if value is None else " ".join(str(value).split())

    facts: dict[str, Any] = {
        "kind": "dicom",
        "modality": text("Modality"),
        "sop_class": UID(sop_class(ds)).name,
        "photometric": text("PhotometricInterpretation"),
        "bits": int(ds.BitsStored),
        "transfer_syntax": ds.file_meta.TransferSyntaxUID.name,
        "scanner": " ".join(part for part in (text("Manufacturer"), text("ManufacturerModelName")) if part),
        "sex": text("PatientSex"),
        "age": _years(text("PatientAge")),
        "body_part": text("BodyPartExamined"),
        "view": text("ViewPosition"),
        "lossy": text("LossyImageCompression") == "01",
        "pixel_aspect_ratio": _aspect_ratio(ds),
        "image_type": "/".join(str(value) for value in _values(ds.get("ImageType"))),
        "presentation_intent": text("PresentationIntentType"),
        "burned_in_annotation": text("BurnedInAnnotation"),
    }
    return {key: value for key, value in facts.items() if value not in ("", None)}


def pixel_spacing(ds: Dataset) -> tuple[tuple[float, float] | None, str]:
    """((between rows, between columns) in mm or None, the attribute it is from).

    Of projections it may be that at the detector (ImagerPixelSpacing), as the second value says. Ultrasound has it in
    SequenceOfUltrasoundRegions, taken where all two-dimensional regions agree.
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = _pair(ds.get(keyword))
        if found:
            return found, keyword
    found = _ultrasound_spacing(ds)
    return (found, "SequenceOfUltrasoundRegions") if found else (None, "none")


def plane_of(ds: Dataset, *, shape: tuple[int, int]) -> tuple[Plane | None, str]:
    """(plane of a single-frame object, "") or (None, why): without PixelSpacing, orientation or position it has none.

    Directions that are no orthogonal unit vectors are reported, not repaired.
    """
    spacing, _ = pixel_spacing(ds)
    return as_plane(ds.get("ImagePositionPatient"), ds.get("ImageOrientationPatient"), spacing, shape)


def as_plane(position: Any, orientation: Any, spacing: Any, shape: tuple[int, int]) -> tuple[Plane | None, str]:
    """The same from the values of the elements."""
    pair = _pair(spacing)
    if pair is None:
        return None, "no pixel spacing"
    try:
        along_row, along_column = np.asarray(orientation, dtype=float).reshape(2, 3)
        corner = np.asarray(position, dtype=float).reshape(3)
    except (TypeError, ValueError):
        return None, "no position or orientation"
    lengths = np.linalg.norm([along_row, along_column], axis=1)
    if not np.isfinite(corner).all() or not abs(np.append(lengths - 1, along_row @ along_column)).max() < 1e-3:
        return None, "directions are not orthogonal unit vectors"
    return Plane(corner, along_row, along_column, pair, shape), ""


def reference_of(ds: Dataset, where: str, *, frames: Sequence[int] | None = None) -> Reference:
    """What labels match on. frames: numbers (from 1) of the frames of a multi-frame object, in the image's order."""
    count = 1 if frames is None else len(frames)
    return Reference(
        study_uid=str(ds.get("StudyInstanceUID") or ""),
        series_uid=str(ds.get("SeriesInstanceUID") or ""),
        frame_of_reference_uid=str(ds.get("FrameOfReferenceUID") or ""),
        sop_class_uid=sop_class(ds),
        sop_instance_uids=(str(ds.get("SOPInstanceUID") or ""),) * count,
        frame_numbers=None if frames is None else tuple(int(frame) for frame in frames),
        files=(where,) * count,
        patient_id=str(ds.get("PatientID") or "").strip(),
    )


def _values(value: Any) -> Sequence[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _pair(value: Any) -> tuple[float, float] | None:
    try:
        first, second = (float(v) for v in value)
    except (TypeError, ValueError):
        return None
    return (first, second) if 0 < first < np.inf and 0 < second < np.inf else None


def _ultrasound_spacing(ds: Dataset) -> tuple[float, float] | None:
    """mm from the deltas, in cm, of the two-dimensional regions; Doppler and M-mode regions have other axes."""
    found = set()
    for region in ds.get("SequenceOfUltrasoundRegions") or ():
        if region.get("RegionSpatialFormat") != TWO_DIMENSIONAL:
            continue
        units = [region.get(f"PhysicalUnits{axis}Direction") for axis in "XY"]
        deltas = [abs(number(region, f"PhysicalDelta{axis}") or 0) for axis in "YX"]
        if units != [CENTIMETRES, CENTIMETRES] or 0 in deltas:
            return None
        found.add((10 * deltas[0], 10 * deltas[1]))
    return found.pop() if len(found) == 1 else None


def _aspect_ratio(ds: Dataset) -> str | None:
    """Pixels that are not square, in files that give no spacing: height:width of a pixel (PS3.3 C.7.6.3.1.7)."""
    try:
        vertical, horizontal = (int(v) for v in ds.get("PixelAspectRatio"))
    except (TypeError, ValueError):
        return None
    return f"{vertical}:{horizontal}" if vertical != horizontal else None


def _years(age: str) -> float | None:
    found = re.fullmatch(r"(\d{1,3})([DWMY])", age)
    return round(int(found[1]) * YEARS[found[2]], 2) if found else None
