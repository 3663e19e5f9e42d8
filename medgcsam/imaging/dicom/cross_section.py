"""Values of cross-sections, CT, MR and PET: rescaled to the unit of the modality, nothing windowed or cut off."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medgcsam.imaging.dicom.file import sop_class
from medgcsam.imaging.dicom.functional_groups import frame_header, has_groups
from medgcsam.imaging.dicom.pet import pet_scale
from medgcsam.imaging.dicom.presentation import padding_mask, to_modality
from medgcsam.imaging.faults import check_finite

STORAGE = "1.2.840.10008.5.1.4.1.1."
CT = {STORAGE + end for end in ("2", "2.1", "2.2")}
MR = {STORAGE + end for end in ("4", "4.1", "4.3", "4.4")}
PET = {STORAGE + end for end in ("128", "128.1", "130")}
"""Storage classes: the plain, the enhanced and the legacy-converted enhanced ones (PS3.4 B.5)."""


def is_section(ds: Dataset) -> bool:
    """Whether an object is CT, MR or PET by its storage class; screenshots of them are not."""
    return sop_class(ds) in CT | MR | PET


def section_values(stored: np.ndarray, ds: Dataset, where: str, *, pet: str) -> tuple[np.ndarray, str, dict[str, Any]]:
    """Stored values (frame, row, column) to (values of the same shape, float32; their unit; facts).

    Each frame has its own rescale slope and intercept where the object says so. Padding takes no part, and is set so
    that it never exceeds the smallest true value. pet: see ``pet.pet_scale``. Raises DataError.
    """
    unit, factor, facts = "raw", 1.0, {}
    if sop_class(ds) in PET:
        unit, factor, facts = pet_scale([ds], where, pet=pet)
    values, rescales = np.empty(stored.shape, np.float32), []
    for n, frame in enumerate(stored):
        rescaled, modality = to_modality(frame, frame_header(ds, n), where)
        values[n] = rescaled * factor
        rescales.append(modality)
    facts = facts | rescales[0]
    if any(modality != rescales[0] for modality in rescales):
        facts["rescale"] = "per frame"
    padding = padding_mask(stored, ds)
    if padding is not None:
        values[padding] = np.minimum(values[padding], values[~padding].min())
        facts["padding_pixels"] = int(padding.sum())
    if sop_class(ds) in CT and _in_hounsfield(ds, rescales, len(stored)):
        unit = "HU"
    check_finite(values, where)
    return values, unit, facts


def _in_hounsfield(ds: Dataset, rescales: list[dict[str, Any]], frames: int) -> bool:
    """CT values are Hounsfield units where they are rescaled, to a type that is HU or not given (PS3.3 C.8.2.1.1.2)."""
    headers = [frame_header(ds, n) for n in range(frames)] if has_groups(ds) else [ds]
    types = {str(header.get("RescaleType") or "HU").strip().upper() for header in headers}
    return types == {"HU"} and all(modality["modality_lut"] != "none" for modality in rescales)
