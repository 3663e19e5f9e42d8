"""Many cases and structures become the metrics of a partition: the patient counts once, intervals over patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medgcsam.evaluation.intervals import Interval, no_interval
from medgcsam.evaluation.one_class import Entry, Settings, entry, rate_interval
from medgcsam.evaluation.segmentation_names import COUNTS, named
from medgcsam.evaluation.structure_means import mean_over_structures

_SIZES = {"ml": ("volume", "ml"), "mm2": ("area", "mm2"), "px": ("area", "px"), "voxels": ("volume", "px")}
_LOW, _HIGH = 0.05, 0.95
"""The quantile that the worst 5% reach where low values, or high ones, are the worse."""


@dataclass(frozen=True)
class Lines:
    """The lines of one partition, one per case and structure, all (n,).

    structures: number from 0. patients: number 0 ... P-1. images: number of the case. status: one of
    ``segmentation.STATUSES``. numbers: the columns ``segmentation.NUMBERS``, float, NaN where there is none.
    units, size_units: as ``case_metrics`` gives them.
    """

    structures: np.ndarray
    patients: np.ndarray
    images: np.ndarray
    status: np.ndarray
    numbers: Mapping[str, np.ndarray]
    units: np.ndarray
    size_units: np.ndarray


@dataclass(frozen=True)
class Measure:
    """One metric: its values (n,) on the lines that it is about, used (n,) bool.

    worst: the quantile over patients that the worst 5% reach, None where neither end is the worse one.
    scale: on which its interval is made, one that ``student_interval`` knows.
    share: whether the values are shares of yes-or-no answers, whose interval at 0 and 1 is Wilson's.
    """

    name: str
    values: np.ndarray
    used: np.ndarray
    worst: float | None
    what: str
    scale: str
    share: bool = False


def segmentation_metrics(
    lines: Lines, structures: Sequence[str], settings: Settings, *, tolerances: Mapping[str, float] | None = None
) -> dict[str, Entry]:
    """All metrics of a partition, of each structure (``NAME_STRUCTURE``) and over all of them (``NAME``).

    A metric of a structure is the mean over patients of the mean over the patient's images; that over structures is the
    mean of these. About the cases whose reference shows the structure are ``dice``, ``nsd``, ``hd95_mm``, ``asd_mm``
    (``_px`` where the spacing is unknown), ``volume_error_ml`` (``area_error_mm2``, ``area_error_px``; predicted -
    reference), ``volume_error_absolute_ml``, ``missed_rate`` and ``lesion_sensitivity`` (share of a case's connected
    parts that are found); a missed one has Dice 0, NSD 0 and the image diagonal as its distances. ``dice_with_empty``
    also has the false positives, with 0. ``false_positive_rate`` is about the cases whose reference does not show it.
    COUNTS are numbers of cases and of connected parts.

    Returns name -> {"value", "low", "high", "n_patients", "n_images", "method"}, of the means of one structure also
    "median", "q1", "q3" and "worst5" (the limit beyond which the worst 5% lie) over patients; "reason" wherever a
    number is null. The mean over several structures is no mean over patients, so it has no median of them.

    tolerances: of NSD by structure, for the words of its method.
    """
    measures = _measures(lines, tolerances)
    result: dict[str, Entry] = {}
    for measure in measures:
        means = patient_means(lines, measure, len(structures))
        for number, name in enumerate((None, *structures)):
            result[named(measure.name, name)] = _mean_entry(measure, means, number, lines, structures, settings)
    return result | _counts(lines, structures, settings)


def patient_means(lines: Lines, measure: Measure, n_structures: int) -> np.ndarray:
    """Mean over each patient's images, (P, S), NaN where the patient has no line that the measure is about."""
    n_patients = int(lines.patients.max()) + 1
    cells = (lines.patients * n_structures + lines.structures)[measure.used]
    sums = np.bincount(cells, weights=measure.values[measure.used], minlength=n_patients * n_structures)
    counts = np.bincount(cells, minlength=n_patients * n_structures)
    with np.errstate(invalid="ignore"):
        return (sums / counts).reshape(n_patients, n_structures)


def _measures(lines: Lines, tolerances: Mapping[str, float] | None) -> Iterator[Measure]:
    present = np.isin(lines.status, ("ok", "missed"))
    called = lines.status == "false_positive"
    numbers = lines.numbers
    shown = "cases whose reference shows the structure"
    yield Measure("dice", numbers["dice"], present, _LOW, shown, "logit")
    both = f"{shown}, and false positives as 0"
    yield Measure("dice_with_empty", numbers["dice"], present | called, _LOW, both, "logit")
    tolerance = f"{shown}; tolerance {_tolerance_words(tolerances, lines)}"
    yield Measure("nsd", numbers["nsd"], present, _LOW, tolerance, "logit")
    for unit in np.unique(lines.units):
        for name in ("hd95", "asd"):
            yield Measure(f"{name}_{unit}", numbers[name], present & (lines.units == unit), _HIGH, shown, "log")
    for unit in np.unique(lines.size_units):
        used, (kind, short) = present & (lines.size_units == unit), _SIZES[unit]
        error, signed = numbers["size_error"], f"predicted - reference, {shown}"
        yield Measure(f"{kind}_error_{short}", error, used, None, signed, "plain")
        yield Measure(f"{kind}_error_absolute_{short}", np.abs(error), used, _HIGH, shown, "log")
    missed = (lines.status == "missed").astype(np.float64)
    yield Measure("missed_rate", missed, present, _HIGH, shown, "logit", share=True)
    empty = "cases whose reference does not show the structure"
    yield Measure("false_positive_rate", called.astype(np.float64), ~present, _HIGH, empty, "logit", share=True)
    parts = np.maximum(numbers["lesions_reference"], 1)
    yield Measure("lesion_sensitivity", numbers["lesions_found"] / parts, present, _LOW, shown, "logit", share=True)


def _tolerance_words(tolerances: Mapping[str, float] | None, lines: Lines) -> str:
    unit = " or ".join({"mm": "mm", "px": "pixels"}[unit] for unit in np.unique(lines.units))
    if not tolerances:
        return f"as configured, in {unit}"
    if len(set(tolerances.values())) == 1:
        return f"{next(iter(tolerances.values())):g} {unit}"
    return ", ".join(f"{name} {value:g} {unit}" for name, value in tolerances.items())


def _mean_entry(
    measure: Measure, means: np.ndarray, number: int, lines: Lines, structures: Sequence[str], settings: Settings
) -> Entry:
    """The entry of one measure. means: (P, S). number: 0 for the mean over structures, else that of one, from 1."""
    used = measure.used if number == 0 else measure.used & (lines.structures == number - 1)
    over = ""
    if number == 0:
        usable = np.isfinite(means).any(axis=0)
        over = f"mean over {len(structures)} structures of " if len(structures) > 1 else ""
        without = [name for name, one in zip(structures, usable, strict=True) if not one]
        if without and usable.any():
            over = f"mean over {usable.sum()} of {len(structures)} structures (no value for {', '.join(without)}) of "
    else:
        means, structures = means[:, [number - 1]], [structures[number - 1]]
    per_patient = _row_means(means)
    per_patient = per_patient[np.isfinite(per_patient)]
    counts = {"n_patients": len(per_patient), "n_images": len(np.unique(lines.images[used]))}
    if not len(per_patient):
        return entry(np.nan, no_interval(f"there are no {measure.what.partition(';')[0]}"), "none", counts)
    value, interval, method = _with_interval(measure, means, structures, settings)
    method = f"{over}mean over patients of the mean over their images ({measure.what}); {method}{settings.note}"
    result = entry(value, interval, method, counts)
    if len(structures) > 1:
        return result
    low, middle, high = np.quantile(per_patient, [0.25, 0.5, 0.75])
    result |= {"median": float(middle), "q1": float(low), "q3": float(high)}
    result["worst5"] = None if measure.worst is None else float(np.quantile(per_patient, measure.worst))
    return result


def _with_interval(
    measure: Measure, means: np.ndarray, structures: Sequence[str], settings: Settings
) -> tuple[float, Interval, str]:
    found = mean_over_structures(means, structures)
    if measure.share and means.shape[1] == 1:
        per_patient = means[np.isfinite(means)]
        interval, boundary, method = rate_interval(per_patient, np.ones(len(per_patient)), settings)
        if boundary:
            return found.value, interval, method
    interval = found.interval(measure.scale, settings.confidence)
    on = "" if measure.scale == "plain" else f" on the {measure.scale} scale"
    method = f"Student's t over patients{on}" if np.isfinite(interval.low) else "no interval"
    return found.value, interval, method + (f", {found.df:.1f} degrees of freedom" if np.isfinite(interval.low) else "")


def _row_means(means: np.ndarray) -> np.ndarray:
    """Mean over the structures that a patient has, (P,), NaN where it has none."""
    present = np.isfinite(means)
    with np.errstate(invalid="ignore"):
        return np.where(present, means, 0.0).sum(axis=1) / present.sum(axis=1)


def _counts(lines: Lines, structures: Sequence[str], settings: Settings) -> dict[str, Entry]:
    """COUNTS of each structure and of all: how many, out of which patients and images."""
    present = np.isin(lines.status, ("ok", "missed"))
    about = {"missed": present, "false_positive": ~present, "both_empty": ~present}
    about |= {"lesions_reference": present, "lesions_found": present, "lesions_false": np.ones(len(present), bool)}
    result: dict[str, Entry] = {}
    for name in COUNTS:
        values = lines.numbers[name] if name.startswith("lesions") else lines.status == name
        for number, structure in enumerate((None, *structures)):
            used = about[name] if structure is None else about[name] & (lines.structures == number - 1)
            counts = {
                "n_patients": len(np.unique(lines.patients[used])),
                "n_images": len(np.unique(lines.images[used])),
            }
            why = no_interval("a count has no interval; rates have one")
            found = entry(float(values[used].sum()), why, f"count{settings.note}", counts)
            result[named(name, structure)] = found | {"value": int(found["value"])}
    return result
