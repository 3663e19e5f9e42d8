"""The unit of PET values, and SUV by body weight where they are Bq/ml and the header says enough.

Method: QIBA, "SUV Vendor Neutral Pseudo-code"; attributes: PS3.3 C.8.9.1, C.8.9.2 and C.8.9.4.
Values are never guessed: where a tag is missing or implausible they stay as stored and ``suv`` says why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset

from medgcsam.errors import ConfigError, DataError
from medgcsam.imaging.dicom.presentation import number
from medgcsam.imaging.faults import said

PHILIPS = (0x7053, "Philips PET Private Group")
GE = (0x0009, "GEMS_PETD_01")
SAME = (
    "Units", "SUVType", "DecayCorrection", "CorrectedImage", "PatientWeight", "SeriesDate", "SeriesTime",
    "TimezoneOffsetFromUTC",
)  # fmt: skip
TRACERS = "RadiopharmaceuticalInformationSequence"
TRACER = (
    "RadionuclideTotalDose", "RadionuclideHalfLife", "RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime",
)  # fmt: skip
"""What of the tracer the SUV depends on: slices of one series have it in common."""
MIN_DOSE_BQ = 1e5
"""A dose below 0.1 MBq gives no image; such numbers are MBq or mCi written where Bq belong."""
MAX_WEIGHT_KG = 500
MAX_HALF_LIVES = 10
"""A scan later than this after the injection sees a thousandth of the dose: a date is wrong."""
LONG_HALF_LIFE_S = 6 * 3600
"""Tracers that live longer are scanned days later, so a time of day without its date does not tell when."""
AGREE_S, AGREE_HALF_LIVES = 60, 0.1
"""How far apart slices may have the start of the scan, and SeriesTime from them: 0.1 half-lives are 7 % of the SUV."""


class UnknownSUV(Exception):
    """Why the SUV cannot be worked out."""


def pet_scale(datasets: Sequence[Dataset], where: str, *, pet: str = "suv") -> tuple[str, float, dict[str, Any]]:
    """(unit, factor for the rescaled values, facts) of the slices of one PET series, or of one object.

    unit: ``SUV`` (g/ml by body weight), ``Bq/ml``, or ``raw`` for counts and everything else. With ``pet="stored"``
    the factor is always 1. Facts: ``pet_units`` (Units as stored), ``suv`` (``stored``, ``computed``, ``vendor factor``
    or ``not computed: REASON``), and for a computed one ``suv_factor``, ``decay_correction``, ``uptake_minutes`` and
    ``scan_time_source``; never a date. Raises DataError where the slices differ in what the unit depends on.
    """
    if pet not in ("suv", "stored"):
        raise ConfigError(f"pet is {pet!r}; choose suv or stored.")
    first = datasets[0]
    for keyword in SAME:
        if any(ds.get(keyword) != first.get(keyword) for ds in datasets[1:]):
            raise DataError(f"{where} mixes slices that differ in {keyword}; import the series apart.")
    units, kind = _code(first, "Units"), _code(first, "SUVType") or "BW"
    facts: dict[str, Any] = {"pet_units": units or "none"}
    if units == "GML":
        if kind == "BW":  # also where no type is given (PS3.3 C.8.9.1.1.3)
            return "SUV", 1.0, facts | {"suv": "stored"}
        return "raw", 1.0, facts | {"suv": f"not computed: stored as SUV of type {kind}"}
    unit = "Bq/ml" if units == "BQML" else "raw"
    if pet == "stored":
        return unit, 1.0, facts | {"suv": "not computed: not asked for"}
    try:
        factor, how = _factor(datasets, units)
    except UnknownSUV as reason:
        return unit, 1.0, facts | {"suv": f"not computed: {reason}"}
    return "SUV", factor, facts | how | {"suv_factor": factor}


def _factor(datasets: Sequence[Dataset], units: str) -> tuple[float, dict[str, Any]]:
    """SUV per unit of the rescaled values, and how it was found."""
    if units == "CNTS":
        vendor = _private_number(datasets[0], PHILIPS, 0x00)
        if vendor:
            return vendor, {"suv": "vendor factor"}
        activity = _private_number(datasets[0], PHILIPS, 0x09)
        if not activity:
            raise UnknownSUV("counts without the vendor's factors")
        factor, how = _body_weight(datasets)
        return activity * factor, how
    if units != "BQML":
        raise UnknownSUV(f"units are {units or 'not given'}")
    return _body_weight(datasets)


def _body_weight(datasets: Sequence[Dataset]) -> tuple[float, dict[str, Any]]:
    """g of body per Bq of the injected dose, decayed to the moment that the pixels are corrected to."""
    ds = datasets[0]
    _check_tracers(datasets)
    dose, half_life = _dose(ds)
    weight = number(ds, "PatientWeight")
    if weight is None or not 0 < weight < MAX_WEIGHT_KG:
        raise UnknownSUV("no plausible PatientWeight")
    corrected = {str(value).strip() for value in _values(ds, "CorrectedImage")}
    if "ATTN" not in corrected:
        raise UnknownSUV("not corrected for attenuation")
    correction = _code(ds, "DecayCorrection")
    if "DECY" not in corrected or correction not in ("START", "ADMIN"):
        raise UnknownSUV("not corrected for decay")
    facts: dict[str, Any] = {"suv": "computed", "decay_correction": correction}
    if correction == "START":  # pixels as of the start of the scan, dose as of the injection
        scan, facts["scan_time_source"] = _scan_time(datasets, half_life)
        uptake = _uptake(ds, scan, half_life)
        facts["uptake_minutes"] = round(uptake / 60, 1)
        dose *= 2 ** (-uptake / half_life)
    return 1000 * weight / dose, facts


def _check_tracers(datasets: Sequence[Dataset]) -> None:
    """One dose, half-life and time of injection in all slices."""
    tracers = [list(ds.get(TRACERS) or ()) for ds in datasets]
    if any(len(items) != len(tracers[0]) for items in tracers[1:]):
        raise UnknownSUV(f"the slices differ in {TRACERS}")
    for keyword in TRACER:
        said = [[str(item.get(keyword) or "").strip() for item in items] for items in tracers]
        if any(other != said[0] for other in said[1:]):
            raise UnknownSUV(f"the slices differ in {keyword}")


def _dose(ds: Dataset) -> tuple[float, float]:
    """(injected dose in Bq, half-life in s)."""
    if not ds.get(TRACERS):
        raise UnknownSUV(f"no {TRACERS}")
    if len(ds[TRACERS].value) > 1:
        raise UnknownSUV("several radiopharmaceuticals")
    tracer = ds[TRACERS][0]
    dose, half_life = number(tracer, "RadionuclideTotalDose"), number(tracer, "RadionuclideHalfLife")
    if dose is None or dose < MIN_DOSE_BQ:
        raise UnknownSUV("no plausible RadionuclideTotalDose in Bq")
    if half_life is None or half_life <= 0:
        raise UnknownSUV("no RadionuclideHalfLife")
    return dose, half_life


def _scan_time(datasets: Sequence[Dataset], half_life: float) -> tuple[datetime, str]:
    """The moment that START stands for, and where it is from.

    It is the time of the series, unless that is later than an acquisition: then the series was written anew, and the
    moment is GE's own scan time, or is worked back from the frames. A time of the series that the frames contradict
    is not used, as nothing says which of them the pixels were corrected to.
    """
    series = _moment(datasets[0], "SeriesDate", "SeriesTime")
    acquired = [_moment(ds, "AcquisitionDate", "AcquisitionTime") for ds in datasets]
    found = [_worked_back(ds, at, half_life) for ds, at in zip(datasets, acquired, strict=True)]
    start = min(found) if all(found) else None
    if start and (max(found) - start).total_seconds() > AGREE_S:
        raise UnknownSUV("the slices disagree about the start of the scan")
    if series and all(acquired) and series <= min(acquired):
        apart = abs((start - series).total_seconds()) if start else 0
        if apart > AGREE_HALF_LIVES * half_life:
            raise UnknownSUV(f"SeriesTime and FrameReferenceTime lie {apart / 60:.0f} minutes apart")
        return series, "SeriesTime"
    private, known = _local(_private_text(datasets[0], GE, 0x0D), datasets[0])
    if private and known:
        return private, "GE scan time"
    if not all(acquired):
        raise UnknownSUV("no date and time of acquisition")
    if start is None:
        raise UnknownSUV("SeriesTime is later than the acquisition, and FrameReferenceTime is missing")
    return start, "AcquisitionTime and FrameReferenceTime"


def _worked_back(ds: Dataset, acquired: datetime | None, half_life: float) -> datetime | None:
    """Acquisition plus the moment of the average count rate in the frame, less that moment's distance to the start.

    None where the header does not say; a FrameReferenceTime of 0, as some scanners write, says nothing.
    """
    reference, duration = number(ds, "FrameReferenceTime"), number(ds, "ActualFrameDuration")
    if acquired is None or not reference or not duration or reference < 0 or duration < 0:
        return None
    decays = math.log(2) / half_life * duration / 1000
    average = math.log(decays / -math.expm1(-decays)) * half_life / math.log(2)
    return acquired + timedelta(seconds=average - reference / 1000)


def _uptake(ds: Dataset, scan: datetime, half_life: float) -> float:
    """Seconds from injection to scan; a date that makes them impossible, as anonymisers leave it, gives way to the
    time of day."""
    tracer, limit = ds[TRACERS][0], MAX_HALF_LIVES * half_life
    injected, known = _local(str(tracer.get("RadiopharmaceuticalStartDateTime") or ""), ds)
    time = str(tracer.get("RadiopharmaceuticalStartTime") or "").strip()
    clock = parsed_time("20000101" + time) if time else None
    if injected and clock:
        if _clocks_apart(injected, clock) > AGREE_S:
            raise UnknownSUV("RadiopharmaceuticalStartDateTime and RadiopharmaceuticalStartTime disagree")
    elif injected and not known:
        raise UnknownSUV("RadiopharmaceuticalStartDateTime has an offset from UTC and that of the scan is unknown")
    if injected and 0 <= (scan - injected).total_seconds() <= limit:
        return (scan - injected).total_seconds()
    clock = clock or injected
    if clock is None:
        raise UnknownSUV("no time of injection")
    if half_life > LONG_HALF_LIFE_S:
        raise UnknownSUV("no usable date of injection for a tracer of long half-life")
    uptake = (scan - datetime.combine(scan.date(), clock.time())).total_seconds()
    uptake += 86400 if uptake < 0 else 0  # injected before midnight
    if uptake > limit:
        raise UnknownSUV("the injection is not before the scan")
    return uptake


def _clocks_apart(one: datetime, other: datetime) -> float:
    """Seconds between two times of day."""
    apart = abs((one - datetime.combine(one.date(), other.time())).total_seconds())
    return min(apart, 86400 - apart)


def _local(text: str, ds: Dataset) -> tuple[datetime | None, bool]:
    """A DT in the time zone of the DA and TM of an object (PS3.5 6.2, PS3.3 C.12.1.1.8), and whether it is in it.

    Its own offset from UTC is set against TimezoneOffsetFromUTC. Where that is not given the DT stays as it is, and
    only a time of day without an offset can confirm it.
    """
    found = re.fullmatch(r"([\d.]+)([+-]\d{4})?", text.strip())
    at = parsed_time(found[1]) if found else None
    if at is None or not found[2]:
        return at, True
    zone = re.fullmatch(r"[+-]\d{4}", _code(ds, "TimezoneOffsetFromUTC"))
    if zone is None:
        return at, False
    try:
        return at + offset_from_utc(zone[0]) - offset_from_utc(found[2]), True
    except OverflowError:  # in the year 1 or 9999
        return None, True


def offset_from_utc(text: str) -> timedelta:
    """+HHMM or -HHMM."""
    size = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return -size if text[0] == "-" else size


def _moment(ds: Dataset, date: str, time: str) -> datetime | None:
    return parsed_time(f"{ds.get(date) or ''}{ds.get(time) or ''}") if ds.get(date) and ds.get(time) else None


def parsed_time(text: str) -> datetime | None:
    """YYYYMMDDHHMM[SS[.F]]."""
    whole, _, fraction = text.strip().partition(".")
    try:
        at = datetime.strptime(whole.ljust(14, "0"), "%Y%m%d%H%M%S") if len(whole) in (10, 12, 14) else None
        return at and at + timedelta(seconds=float(f"0.{fraction or 0}"))
    except ValueError:
        return None


def _code(ds: Dataset, keyword: str) -> str:
    return said(str(ds.get(keyword) or "")).upper()


def _values(ds: Dataset, keyword: str) -> Sequence[Any]:
    value = ds.get(keyword)
    return [] if value is None else [value] if isinstance(value, str) else value


def _private_text(ds: Dataset, block: tuple[int, str], element: int) -> str:
    """A private element as text; it is bytes where the dictionary does not know its VR."""
    try:
        value = ds.private_block(*block)[element].value
    except KeyError:
        return ""
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else str(value).strip()


def _private_number(ds: Dataset, block: tuple[int, str], element: int) -> float | None:
    try:
        found = float(_private_text(ds, block, element))
    except ValueError:
        return None
    return found if math.isfinite(found) and found > 0 else None
