"""What every reader returns: pixels with their geometry, their unit and where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

UNITS = ("display", "HU", "SUV", "Bq/ml", "raw", "label")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Which DICOM objects an image was made of: what labels are matched on, and what a DICOM SEG refers to.

    It holds identifiers, so it stays in memory and is never written to an output other than a DICOM object.

    study_uid, series_uid, frame_of_reference_uid, sop_class_uid: "" where the file does not say.
    sop_instance_uids: one per slice along the last spatial axis, or per frame; one for a picture. Of an image that was
        put onto a regular grid, one per slice of the source, in its order along the normal. Of a volume with several
        channels, those of the first.
    frame_numbers: number (from 1) within its object of each of these, or None for single-frame objects.
    files: path of the file of each of these, ``ZIP#member`` in an archive.
    patient_id: PatientID, only compared with that of labels.
    """

    study_uid: str = ""
    series_uid: str = ""
    frame_of_reference_uid: str = ""
    sop_class_uid: str = ""
    sop_instance_uids: tuple[str, ...] = ()
    frame_numbers: tuple[int, ...] | None = None
    files: tuple[str, ...] = ()
    patient_id: str = field(default="", repr=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class Image:
    """One image or label in memory.

    array: (channels, *spatial). Pictures and projection images have the spatial axes (row, column); volumes have
        (i, j, k) in NIfTI's sense (from DICOM: column, row, slice; a single CT slice is a volume with k = 1).
    affine: 4x4, spatial index to RAS+ in mm, or None where the file carries no orientation. For a picture with an
        affine (2-D NIfTI) the index is (row, column, 0).
    spacing: mm per spatial axis, in the order of the spatial axes, or None where the file does not say.
    unit: ``display`` (float32 presentation values, 0 is black and 1 is white), ``HU``, ``SUV`` (by body weight, g/ml),
        ``Bq/ml`` (all float32), ``raw`` (float32, whatever the file means by its numbers), ``label`` (int16 class
        numbers, 0 is background).
    source: facts kept for later, such as kind, modality, photometric, scanner, voi; never a name or an identifier.
    reference: the DICOM objects that the image was made of, or None for another kind of file.
    """

    array: np.ndarray
    unit: str
    affine: np.ndarray | None = None
    spacing: tuple[float, ...] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    reference: Reference | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit is {self.unit!r}, expected one of {UNITS}")
        if self.array.ndim not in (3, 4) or 0 in self.array.shape:
            raise ValueError(f"array has shape {self.array.shape}, expected (channels, *spatial), none empty")
        if self.affine is not None and self.affine.shape != (4, 4):
            raise ValueError(f"affine has shape {self.affine.shape}, expected (4, 4)")
        if self.spacing is not None and len(self.spacing) != self.array.ndim - 1:
            raise ValueError(f"spacing {self.spacing} does not fit the spatial shape {self.array.shape[1:]}")

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Shape without the channel axis."""
        return self.array.shape[1:]


def pixel_digest(image: Image) -> str:
    """sha256 (64 hex digits) of shape, number type and pixels: equal for the same picture in two different files."""
    array = np.ascontiguousarray(image.array, dtype=image.array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
    digest.update(array.data)
    return digest.hexdigest()
