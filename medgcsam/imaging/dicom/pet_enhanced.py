"""The unit of enhanced PET, and SUV by body weight: the rules of ``pet.py`` on the attributes of PS3.3 A.56.

Units are those of the Real World Value Mapping of each frame (CID 84), whose slope and intercept then hold instead of
the rescale. The dose is in MBq (C.8.22.4, not in Bq as in C.8.9.2), its time and DecayCorrectionDateTime (C.8.22.6) are
complete, so that no time is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medgcsam.errors import ConfigError
from medgcsam.imaging.dicom.functional_groups import group_item
from medgcsam.imaging.dicom.pet import MAX_HALF_LIVES, MAX_WEIGHT_KG, TRACERS, UnknownSUV, offset_from_utc, parsed_time
from medgcsam.imaging.dicom.presentation import number
from medgcsam.imaging.faults import said

ENHANCED_PET, LEGACY_PET = "1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1"
BQML, SUV = "Bq/ml", "g/ml{SUVbw}"
MIN_DOSE_MBQ, MAX_DOSE_MBQ = 0.1, 1e5
"""Larger numbers are Bq written where MBq belong."""
Line = tuple[float, float]
"""Slope and intercept, from stored values to real-world ones."""


def enhanced_pet_scale(
    ds: Dataset, stored: np.ndarray, *, pet: str = "suv"
) -> tuple[str, float, list[Line] | None, dict[str, Any]]:
    """(unit, factor, slope and intercept of each frame or None to rescale as usual, facts) of an enhanced PET object.

    stored: (frame, row, column), the stored values. pet, unit, factor and facts: as in ``pet.pet_scale``; ``pet_units``
    is a UCUM code. A frame's mapping counts where it is linear and goes through all of its values.
    """
    if pet not in ("suv", "stored"):
        raise ConfigError(f"pet is {pet!r}; choose suv or stored.")
    units, lines, why = _mappings(ds, stored)
    facts: dict[str, Any] = {"pet_units": units or "none"}
    if lines is None:
        return "raw", 1.0, None, facts | {"suv": f"not computed: {why}"}
    facts["real_world_values"] = True
    if units == SUV:
        return "SUV", 1.0, lines, facts | {"suv": "stored"}
    if pet == "stored":
        return BQML, 1.0, lines, facts | {"suv": "not computed: not asked for"}
    try:
        factor, how = _body_weight(ds)
    except UnknownSUV as reason:
        return BQML, 1.0, lines, facts | {"suv": f"not computed: {reason}"}
    return "SUV", factor, lines, facts | how | {"suv_factor": factor}


def converted_slices(ds: Dataset) -> list[Dataset]:
    """A legacy converted object as the slices that it was made of, as far as ``pet.pet_scale`` asks them: its elements,
    its Frame Content (PS3.3 C.7.6.16.2.2), and what the conversion could not assign (C.7.6.16.2.25 and .26)."""
    plain = Dataset({element.tag: element for element in ds if element.tag.group < 0x5200})
    plain.update(_unassigned(ds.get("SharedFunctionalGroupsSequence"), "UnassignedSharedConvertedAttributesSequence"))
    slices = []
    for frame in ds.get("PerFrameFunctionalGroupsSequence") or ():
        one = Dataset(plain)
        content = (frame.get("FrameContentSequence") or [Dataset()])[0]
        begin = re.fullmatch(r"(\d{8})([\d.]+)([+-]\d{4})?", str(content.get("FrameAcquisitionDateTime") or "").strip())
        if begin:
            one.AcquisitionDate, one.AcquisitionTime = begin[1], begin[2]
        if number(content, "FrameAcquisitionDuration"):
            one.ActualFrameDuration = int(number(content, "FrameAcquisitionDuration"))
        one.update(_unassigned([frame], "UnassignedPerFrameConvertedAttributesSequence"))
        slices.append(one)
    return slices or [ds]


def _unassigned(groups: Sequence[Dataset] | None, keyword: str) -> Dataset:
    found = groups[0].get(keyword) if groups else None
    return found[0] if found else Dataset()


def _mappings(ds: Dataset, stored: np.ndarray) -> tuple[str, list[Line] | None, str]:
    """(units, slope and intercept of each frame, "") of the first of SUV and Bq/ml that all have; else why not."""
    frames = [_lines(ds, n, (int(values.min()), int(values.max()))) for n, values in enumerate(stored)]
    for units in (SUV, BQML):
        if all(units in frame for frame in frames):
            lines = [frame[units] for frame in frames]
            if None in lines:
                return units, None, f"the mapping to {units} is not linear or does not go through all values"
            return units, lines, ""
    named = sorted({units for frame in frames for units in frame})
    return ", ".join(named), None, f"units are {', '.join(named) or 'not given'}"


def _lines(ds: Dataset, frame: int, span: tuple[int, int]) -> dict[str, Line | None]:
    """Units -> (slope, intercept) of the real-world values of a frame, None where they do not map all its values."""
    found: dict[str, Line | None] = {}
    group = group_item(ds, frame, "RealWorldValueMappingSequence", every=True)
    for item in group or ():
        code = (item.get("MeasurementUnitsCodeSequence") or [Dataset()])[0]
        units = said(str(code.get("CodeValue") or ""))
        slope, intercept = number(item, "RealWorldValueSlope"), number(item, "RealWorldValueIntercept")
        first, last = (_end(item, word) for word in ("First", "Last"))
        whole = first is not None and last is not None and first <= span[0] and span[1] <= last
        if str(code.get("CodingSchemeDesignator") or "").strip() == "UCUM" and units:
            found.setdefault(units, (slope, intercept) if slope and intercept is not None and whole else None)
    return found


def _end(item: Dataset, word: str) -> float | None:
    value = number(item, f"RealWorldValue{word}ValueMapped")
    return number(item, f"DoubleFloatRealWorldValue{word}ValueMapped") if value is None else value


def _body_weight(ds: Dataset) -> tuple[float, dict[str, Any]]:
    """g of body per Bq of the injected dose, decayed to the moment that the pixels are corrected to."""
    tracers = ds.get(TRACERS) or ()
    if len(tracers) != 1:
        raise UnknownSUV("several radiopharmaceuticals" if tracers else f"no {TRACERS}")
    dose, half_life = (number(tracers[0], word) for word in ("RadionuclideTotalDose", "RadionuclideHalfLife"))
    if dose is None or not MIN_DOSE_MBQ <= dose <= MAX_DOSE_MBQ:
        raise UnknownSUV("no plausible RadionuclideTotalDose in MBq")
    if half_life is None or half_life <= 0:
        raise UnknownSUV("no RadionuclideHalfLife")
    weight = number(ds, "PatientWeight")
    if weight is None or not 0 < weight < MAX_WEIGHT_KG:
        raise UnknownSUV("no plausible PatientWeight")
    for keyword, what in (("AttenuationCorrected", "attenuation"), ("DecayCorrected", "decay")):
        if str(ds.get(keyword) or "").strip() != "YES":
            raise UnknownSUV(f"not corrected for {what}")
    zone = str(ds.get("TimezoneOffsetFromUTC") or "")
    corrected_to = _utc(str(ds.get("DecayCorrectionDateTime") or ""), zone, "DecayCorrectionDateTime")
    injected = _utc(
        str(tracers[0].get("RadiopharmaceuticalStartDateTime") or ""), zone, "RadiopharmaceuticalStartDateTime"
    )
    if corrected_to[1] != injected[1]:
        raise UnknownSUV("only one of the times of injection and correction has an offset from UTC")
    uptake = (corrected_to[0] - injected[0]).total_seconds()
    if not 0 <= uptake <= MAX_HALF_LIVES * half_life:
        raise UnknownSUV("the injection is not before the scan")
    facts = {"suv": "computed", "uptake_minutes": round(uptake / 60, 1), "scan_time_source": "DecayCorrectionDateTime"}
    return 1000 * weight / (1e6 * dose * 2 ** (-uptake / half_life)), facts


def _utc(text: str, zone: str, keyword: str) -> tuple[datetime, bool]:
    """(a DT less its offset from UTC, or that of the object; whether there is one) (PS3.5 6.2)."""
    found = re.fullmatch(r"([\d.]+)([+-]\d{4})?", text.strip())
    at = parsed_time(found[1]) if found else None
    if at is None:
        raise UnknownSUV(f"no {keyword}")
    offset = found[2] or (zone.strip() if re.fullmatch(r"[+-]\d{4}", zone.strip()) else None)
    try:
        return at - (offset_from_utc(offset) if offset else timedelta(0)), offset is not None
    except OverflowError as error:  # in the year 1 or 9999
        raise UnknownSUV(f"no plausible {keyword}") from error
