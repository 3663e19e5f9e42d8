"""One DICOM object with one frame. Pictures and projections become display values, CT, MR and PET slices volumes.

Series and multi-frame objects are refused: reading them needs the geometry of all frames.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medgcsam.errors import DataError
from medgcsam.imaging.faults import check_finite, check_size, faults_of
from medgcsam.imaging.image import Image
from medgcsam.imaging.presentation import number, padding_mask, to_display, to_modality

CT, MR, PET = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "128"))
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_ENDED = {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)}
NOT_IMAGES = ("Segmentation", "Surface", "Parametric Map", "Dose", "Real World", "Presentation State", "Spectroscopy")
REQUIRED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


def read_dicom(data: bytes, where: str) -> Image:
    """Read the bytes of a DICOM file, with or without preamble.

    CT, MR and PET slices: (1, i, j, 1) = (1, column, row, 1), ``HU`` for CT and ``raw`` (rescaled) for the others, with
    an affine where position, orientation and pixel spacing are given. Everything else: (1 or 3, row, column),
    ``display``, see ``presentation.py``; spacing is (between rows, between columns) in mm. Raises DataError.
    """
    with faults_of(where, "DICOM"):  # all of it, because elements are parsed on access and may be damaged anywhere
        ds = dcmread(BytesIO(data), force=True)
        _complete_meta(ds)
        _refuse(ds, where)
        return _image(_pixels(ds, where), ds, where)


def _image(stored: np.ndarray, ds: Dataset, where: str) -> Image:
    facts = _facts(ds)
    if str(ds.PhotometricInterpretation).strip() not in MONOCHROME:
        return _colour(stored, ds, facts)
    if _sop_class(ds) in (CT, MR, PET):
        return _slice(stored, ds, where, facts)
    display, applied = to_display(stored, ds, where)
    check_finite(display, where)
    spacing, facts["spacing_source"] = _pixel_spacing(ds)
    return Image(array=display[None], unit="display", spacing=spacing, source=facts | applied)


def _complete_meta(ds: Dataset) -> None:
    """A data set without file meta information names its transfer syntax by its encoding only."""
    if getattr(ds, "file_meta", None) is None:
        ds.file_meta = FileMetaDataset()
    if not ds.file_meta.get("TransferSyntaxUID"):
        implicit, little = ds.original_encoding
        plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        ds.file_meta.TransferSyntaxUID = plain if little else ExplicitVRBigEndian


def _sop_class(ds: Dataset) -> str:
    return str(ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID") or "")


def _refuse(ds: Dataset, where: str) -> None:
    """Refuse what is not one plain frame, by name and before anything is decoded."""
    syntax, name = ds.file_meta.TransferSyntaxUID, UID(_sop_class(ds)).name or "DICOM"
    if any(word in name for word in NOT_IMAGES) or "FloatPixelData" in ds or "DoubleFloatPixelData" in ds:
        raise DataError(f"{where} is a {name} object, not an image to learn from; leave it out.")
    if "PixelData" not in ds:
        raise DataError(f"{where} has no pixels ({name}), or was cut off before them; leave it out or export it again.")
    frames = number(ds, "NumberOfFrames")
    if (frames or 1) != 1 or "PerFrameFunctionalGroupsSequence" in ds:
        raise DataError(f"{where} is a multi-frame object ({name}), not read yet; export it as single-frame files.")
    missing = [keyword for keyword in REQUIRED if ds.get(keyword) in (None, "")]
    if missing:
        raise DataError(f"{where} is a DICOM file that does not say its {missing[0]}; export it again.")
    check_size((int(ds.Rows), int(ds.Columns)), where)
    stored, high = int(ds.BitsStored), int(ds.get("HighBit", int(ds.BitsStored) - 1))
    if high != stored - 1:
        raise DataError(f"{where} has its {stored} bits up to bit {high}, which is not read; export it again.")
    if syntax == JPEG_EXTENDED and stored > 8:
        raise DataError(
            f"{where} is compressed as 12-bit JPEG Extended (Process 2 and 4), which cannot be decoded here; "
            "ask the archive to send it as JPEG Lossless or uncompressed."
        )


def _pixels(ds: Dataset, where: str) -> np.ndarray:
    """Stored values (row, column), or RGB (row, column, 3), as decoded by pydicom and its plugins."""
    syntax = ds.file_meta.TransferSyntaxUID
    if syntax in JPEG_ENDED and not _ends_properly(ds.PixelData):
        raise DataError(f"{where} is a truncated DICOM file (its compressed pixels end too early); export it again.")
    try:
        array = pixel_array(ds)
    except NotImplementedError as error:
        raise DataError(
            f"{where} uses the transfer syntax {syntax.name}, which cannot be decoded here; "
            "ask the archive to send it uncompressed."
        ) from error
    if array.shape[:2] != (ds.Rows, ds.Columns):
        raise DataError(f"{where} says {ds.Rows}x{ds.Columns} pixels and holds {array.shape[:2]}; export it again.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _ends_properly(encapsulated: bytes) -> bool:
    """JPEG, JPEG-LS and JPEG 2000 streams end with FF D9; decoders fill what is cut off with gray or zeros."""
    return b"\xff\xd9" in encapsulated[-8:]  # behind it only padding to an even length, by 00 or FF


def _colour(stored: np.ndarray, ds: Dataset, facts: dict[str, Any]) -> Image:
    """RGB, YBR (converted by pydicom) and palettes to display values (3, row, column)."""
    white = 2 ** int(ds.BitsStored) - 1
    if str(ds.PhotometricInterpretation).strip() == "PALETTE COLOR":
        stored = apply_color_lut(stored, ds)[..., :3]
        white = np.iinfo(stored.dtype).max
    array = np.ascontiguousarray(np.moveaxis(stored, -1, 0), dtype=np.float32) / np.float32(white)
    spacing, facts["spacing_source"] = _pixel_spacing(ds)
    return Image(array=array, unit="display", spacing=spacing, source=facts | {"voi": "none"})


def _slice(stored: np.ndarray, ds: Dataset, where: str, facts: dict[str, Any]) -> Image:
    """A cross-section as a volume of one slice; padding never exceeds the smallest true value."""
    values, modality = to_modality(stored, ds, where)
    padding = padding_mask(stored, ds)
    if padding is not None:
        values[padding] = np.minimum(values[padding], values[~padding].min())
        modality["padding_pixels"] = int(padding.sum())
    calibrated = modality["modality_lut"] != "none" and str(ds.get("RescaleType") or "HU").strip().upper() == "HU"
    unit = "HU" if _sop_class(ds) == CT and calibrated else "raw"
    affine, spacing, geometry = _geometry(ds)
    array = np.ascontiguousarray(values.T[None, :, :, None], dtype=np.float32)
    check_finite(array, where)
    source = facts | modality | geometry | {"voi": "none"}
    return Image(array=array, unit=unit, affine=affine, spacing=spacing, source=source)


def _geometry(ds: Dataset) -> tuple[np.ndarray | None, tuple[float, ...] | None, dict[str, Any]]:
    """(affine, spacing, facts) of one slice: (column, row, slice) to RAS+ by PS3.3 C.7.6.2.1.1, with x and y negated.

    The step between slices is SliceThickness, which for one slice is only the extent of its voxels; 1 mm where absent.
    """
    in_plane, source = _pixel_spacing(ds)
    if in_plane is None:
        return None, None, {"spacing_source": source}
    thickness = number(ds, "SliceThickness")
    facts = {"spacing_source": source, "slice_step_source": "SliceThickness"}
    if thickness is None or thickness <= 0:
        thickness, facts["slice_step_source"] = 1.0, "assumed 1 mm"
    spacing = (in_plane[1], in_plane[0], thickness)
    try:
        along_row, along_column = np.asarray(ds.ImageOrientationPatient, dtype=float).reshape(2, 3)
        position = np.asarray(ds.ImagePositionPatient, dtype=float).reshape(3)
    except (AttributeError, TypeError, ValueError):
        return None, spacing, facts
    normal = np.cross(along_row, along_column)
    if not np.isfinite(position).all() or abs(np.linalg.norm(normal) - 1) > 1e-3:
        return None, spacing, facts | {"orientation_ignored": "directions are not orthogonal unit vectors"}
    affine = np.eye(4)
    affine[:3, :3] = np.stack([along_row, along_column, normal], axis=1) * spacing
    affine[:3, 3] = position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, spacing, facts


def _pixel_spacing(ds: Dataset) -> tuple[tuple[float, float] | None, str]:
    """((between rows, between columns) in mm or None, the attribute it is from)."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        try:
            rows, columns = (float(value) for value in ds.get(keyword))
        except (TypeError, ValueError):
            continue
        if 0 < rows < np.inf and 0 < columns < np.inf:
            return (rows, columns), keyword
    return None, "none"


def _facts(ds: Dataset) -> dict[str, Any]:
    """What later stations may want to know; no names, no identifiers, no dates."""

    def text(keyword: str) -> str:
        return str(ds.get(keyword) or "").strip()

    facts: dict[str, Any] = {
        "kind": "dicom",
        "modality": text("Modality"),
        "sop_class": UID(_sop_class(ds)).name,
        "photometric": text("PhotometricInterpretation"),
        "bits": int(ds.BitsStored),
        "transfer_syntax": ds.file_meta.TransferSyntaxUID.name,
        "scanner": " ".join(part for part in (text("Manufacturer"), text("ManufacturerModelName")) if part),
        "sex": text("PatientSex"),
        "age": _years(text("PatientAge")),
        "body_part": text("BodyPartExamined"),
        "view": text("ViewPosition"),
        "lossy": text("LossyImageCompression") == "01",
    }
    return {key: value for key, value in facts.items() if value not in ("", None)}


def _years(age: str) -> float | None:
    found = re.fullmatch(r"(\d{1,3})([DWMY])", age)
    return round(int(found[1]) * YEARS[found[2]], 2) if found else None
