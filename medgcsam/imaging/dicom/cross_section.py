"""Values of cross-sections, CT, MR and PET: rescaled to the unit of the modality, nothing windowed or cut off."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medgcsam.errors import DataError
from medgcsam.imaging.dicom.file import sop_class
from medgcsam.imaging.dicom.functional_groups import frame_header, has_groups
from medgcsam.imaging.dicom.pet import pet_scale
from medgcsam.imaging.dicom.pet_enhanced import ENHANCED_PET, LEGACY_PET, converted_slices, enhanced_pet_scale
from medgcsam.imaging.dicom.presentation import padding_mask, to_modality
from medgcsam.imaging.faults import check_finite

STORAGE = "1.2.840.10008.5.1.4.1.1."
CT = {STORAGE + end for end in ("2", "2.1", "2.2")}
MR = {STORAGE + end for end in ("4", "4.1", "4.3", "4.4")}
PET = {STORAGE + end for end in ("128", "128.1", "130")}
NUCLEAR = {STORAGE + "20"}
"""Storage classes: the plain, the enhanced and the legacy-converted enhanced ones (PS3.4 B.5)."""


def is_section(ds: Dataset) -> bool:
    """Whether an object is CT, MR or PET by its storage class; screenshots of them are not."""
    return sop_class(ds) in CT | MR | PET


def is_hounsfield(kind: str, said: str) -> bool:
    """Whether CT values are Hounsfield units: rescaled (``rescale``, ``table``) to a type that is HU.

    The type of a rescale need not be given where it is HU (PS3.3 C.8.2.1.1.2), that of a table must (C.11.1.1).
    """
    return said in (("", "HU") if kind == "rescale" else ("HU",)) and kind != "none"


def check_gray(photometric: str, sop: str, unit: str, where: str) -> None:
    """Refuse inverted gray in arbitrary units: whether its high values are strong signal, nothing says."""
    if photometric.strip() == "MONOCHROME1" and unit == "raw" and sop not in PET:
        raise DataError(
            f"{where} is a cross-section in inverted gray (MONOCHROME1) without a unit, so which of its values are "
            "high cannot be told; export it as MONOCHROME2."
        )


def section_values(stored: np.ndarray, ds: Dataset, where: str, *, pet: str) -> tuple[np.ndarray, str, dict[str, Any]]:
    """Stored values (frame, row, column) to (values of the same shape, float32; their unit; facts).

    Each frame has its own rescale slope and intercept where the object says so. Padding takes no part, and is set so
    that it never exceeds the smallest true value. pet: see ``pet.pet_scale``. Raises DataError.
    """
    unit, factor, lines, facts = "raw", 1.0, None, {}
    if sop_class(ds) == ENHANCED_PET and has_groups(ds):
        unit, factor, lines, facts = enhanced_pet_scale(ds, stored, pet=pet)
    elif sop_class(ds) in PET:
        slices = converted_slices(ds) if sop_class(ds) == LEGACY_PET else [ds]
        unit, factor, facts = pet_scale(slices, where, pet=pet)
    values, rescales = np.empty(stored.shape, np.float32), []
    for n, frame in enumerate(stored):
        if lines is None:
            rescaled, modality = to_modality(frame, frame_header(ds, n), where)
        else:
            rescaled = frame * lines[n][0] + lines[n][1]
            modality = {"modality_lut": "rescale", "rescale": lines[n]}
        values[n] = rescaled * factor
        rescales.append(modality)
    facts = facts | rescales[0]
    _check_one_unit(ds, rescales, where)
    if any(modality != rescales[0] for modality in rescales):
        facts["rescale"] = "per frame"
    padding = padding_mask(stored, ds)
    if padding is not None:
        values[padding] = np.minimum(values[padding], values[~padding].min())
        facts["padding_pixels"] = int(padding.sum())
    if sop_class(ds) in CT and is_hounsfield(rescales[0]["modality_lut"], _said(frame_header(ds, 0))):
        unit = "HU"
    check_gray(str(ds.PhotometricInterpretation), sop_class(ds), unit, where)
    check_finite(values, where)
    return values, unit, facts


def _said(header: Dataset) -> str:
    """The unit that a modality LUT or a rescale says its values have."""
    table = header.get("ModalityLUTSequence")
    value = table[0].get("ModalityLUTType") if table else header.get("RescaleType")
    return str(value or "").strip().upper()


def _check_one_unit(ds: Dataset, rescales: list[dict[str, Any]], where: str) -> None:
    """All frames are rescaled, or none, and to one unit."""
    if not has_groups(ds):
        return
    found = [(modality["modality_lut"], _said(frame_header(ds, n))) for n, modality in enumerate(rescales)]
    odd = next((n for n, one in enumerate(found) if one != found[0]), None)
    if odd is not None:
        raise DataError(
            f"{where} has frames of several units: frame 1 and frame {odd + 1} differ in whether or to what they are "
            "rescaled; export it again."
        )
