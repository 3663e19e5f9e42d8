"""Many cases and structures become the metrics of a partition: the patient counts once, intervals over patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medgcsam.evaluation.bootstrap import PatientBootstrap, Replicates, Statistic
from medgcsam.evaluation.intervals import Interval, bca, no_interval
from medgcsam.evaluation.one_class import Entry, Settings, entry, rate_interval
from medgcsam.evaluation.patients import patient_strata

COUNTS = ("missed", "false_positive", "both_empty", "lesions_reference", "lesions_found", "lesions_false")
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
    share: whether the values are shares of yes-or-no answers, whose interval at 0 and 1 is Wilson's.
    """

    name: str
    values: np.ndarray
    used: np.ndarray
    worst: float | None
    what: str
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

    Returns name -> {"value", "low", "high", "n_patients", "n_images", "method"}, of means also "median", "q1", "q3" and
    "worst5" (the limit beyond which the worst 5% lie) over patients; "reason" wherever a number is null.

    tolerances: of NSD by structure, for the words of its method.
    """
    measures = list(_measures(lines, structures, tolerances))
    means = np.stack([patient_means(lines, measure, len(structures)) for measure in measures], axis=1)
    strata = _strata(lines, len(structures))
    found = PatientBootstrap(strata, len(strata), settings.replicates, settings.seed).run(mean_statistic(means))
    found_at = found.estimate.reshape(len(measures), len(structures) + 1)
    result: dict[str, Entry] = {}
    for k, measure in enumerate(measures):
        for s, name in enumerate((None, *structures)):
            result[_named(measure.name, name)] = _mean_entry(
                measure, found, k * found_at.shape[1] + s, means[:, k], s, lines, structures, settings
            )
    return result | _counts(lines, structures, settings)


def patient_means(lines: Lines, measure: Measure, n_structures: int) -> np.ndarray:
    """Mean over each patient's images, (P, S), NaN where the patient has no line that the measure is about."""
    n_patients = int(lines.patients.max()) + 1
    cells = (lines.patients * n_structures + lines.structures)[measure.used]
    sums = np.bincount(cells, weights=measure.values[measure.used], minlength=n_patients * n_structures)
    counts = np.bincount(cells, minlength=n_patients * n_structures)
    with np.errstate(invalid="ignore"):
        return (sums / counts).reshape(n_patients, n_structures)


def mean_statistic(means: np.ndarray) -> Statistic:
    """Statistic of patient weights (b, P) for ``PatientBootstrap``.

    means: (P, K, S) of K measures, NaN where a patient has none. Gives (b, K * (1 + S)): for each measure the mean over
    the structures that have a value in the sample, then the weighted mean over patients of each structure.
    """
    n_patients, n_measures, n_structures = means.shape
    present = np.isfinite(means)
    sums = np.where(present, means, 0.0).reshape(n_patients, -1)
    counts = present.reshape(n_patients, -1).astype(np.float64)
    usable = present.any(axis=0)

    def statistic(weights: np.ndarray) -> np.ndarray:
        shape = (len(weights), n_measures, n_structures)
        with np.errstate(invalid="ignore"):
            each = ((weights @ sums) / (weights @ counts)).reshape(shape)
            whole = np.where(usable, each, 0.0).sum(axis=2) / usable.sum(axis=1)
        return np.concatenate([whole[..., None], each], axis=2).reshape(len(weights), -1)

    return statistic


def _measures(lines: Lines, structures: Sequence[str], tolerances: Mapping[str, float] | None) -> Iterator[Measure]:
    present = np.isin(lines.status, ("ok", "missed"))
    called = lines.status == "false_positive"
    numbers = lines.numbers
    shown = "cases whose reference shows the structure"
    yield Measure("dice", numbers["dice"], present, _LOW, shown)
    yield Measure("dice_with_empty", numbers["dice"], present | called, _LOW, f"{shown}, and false positives as 0")
    yield Measure("nsd", numbers["nsd"], present, _LOW, f"{shown}; tolerance {_tolerance_words(tolerances, lines)}")
    for unit in np.unique(lines.units):
        for name in ("hd95", "asd"):
            yield Measure(f"{name}_{unit}", numbers[name], present & (lines.units == unit), _HIGH, shown)
    for unit in np.unique(lines.size_units):
        used, (kind, short) = present & (lines.size_units == unit), _SIZES[unit]
        yield Measure(f"{kind}_error_{short}", numbers["size_error"], used, None, f"predicted - reference, {shown}")
        yield Measure(f"{kind}_error_absolute_{short}", np.abs(numbers["size_error"]), used, _HIGH, shown)
    missed = (lines.status == "missed").astype(np.float64)
    yield Measure("missed_rate", missed, present, _HIGH, shown, share=True)
    empty = "cases whose reference does not show the structure"
    yield Measure("false_positive_rate", called.astype(np.float64), ~present, _HIGH, empty, share=True)
    parts = np.maximum(numbers["lesions_reference"], 1)
    yield Measure("lesion_sensitivity", numbers["lesions_found"] / parts, present, _LOW, shown, share=True)


def _tolerance_words(tolerances: Mapping[str, float] | None, lines: Lines) -> str:
    unit = " or ".join({"mm": "mm", "px": "pixels"}[unit] for unit in np.unique(lines.units))
    if not tolerances:
        return f"as configured, in {unit}"
    if len(set(tolerances.values())) == 1:
        return f"{next(iter(tolerances.values())):g} {unit}"
    return ", ".join(f"{name} {value:g} {unit}" for name, value in tolerances.items())


def _named(measure: str, structure: str | None) -> str:
    return measure if structure is None else f"{measure}_{structure}"


def _strata(lines: Lines, n_structures: int) -> np.ndarray:
    """Patients by which structures their references show and do not show."""
    present = np.isin(lines.status, ("ok", "missed"))
    own = lines.structures[:, None] == np.arange(n_structures)
    shown = np.concatenate([own & present[:, None], own & ~present[:, None]], axis=1)
    return patient_strata(shown, lines.patients, int(lines.patients.max()) + 1)


def _mean_entry(
    measure: Measure,
    found: Replicates,
    column: int,
    means: np.ndarray,
    structure: int,
    lines: Lines,
    structures: Sequence[str],
    settings: Settings,
) -> Entry:
    """The entry of one measure. means: (P, S). structure: 0 for the mean over structures, else its number from 1."""
    used = measure.used if structure == 0 else measure.used & (lines.structures == structure - 1)
    usable = np.isfinite(means).any(axis=0)
    if structure == 0:
        per_patient = _row_means(means)
        over = f"mean over {len(structures)} structures of " if len(structures) > 1 else ""
        without = [name for name, one in zip(structures, usable, strict=True) if not one]
        if without and usable.any():
            over = f"mean over {usable.sum()} of {len(structures)} structures (no value for {', '.join(without)}) of "
    else:
        per_patient, over = means[:, structure - 1], ""
    per_patient = per_patient[np.isfinite(per_patient)]
    counts = {"n_patients": len(per_patient), "n_images": len(np.unique(lines.images[used]))}
    value = float(found.estimate[column])
    if not len(per_patient):
        return entry(np.nan, no_interval(f"there are no {measure.what.partition(';')[0]}"), "none", counts)
    interval, method = _interval(
        measure, found, column, per_patient, settings, single=structure > 0 or len(means.T) == 1
    )
    method = f"{over}mean over patients of the mean over their images ({measure.what}); {method}{settings.note}"
    result = entry(value, interval, method, counts)
    low, middle, high = np.quantile(per_patient, [0.25, 0.5, 0.75])
    result |= {"median": float(middle), "q1": float(low), "q3": float(high)}
    result["worst5"] = None if measure.worst is None else float(np.quantile(per_patient, measure.worst))
    return result


def _interval(
    measure: Measure,
    found: Replicates,
    column: int,
    per_patient: np.ndarray,
    settings: Settings,
    *,
    single: bool,
) -> tuple[Interval, str]:
    if measure.share and single:
        interval, boundary, method = rate_interval(per_patient, np.ones(len(per_patient)), settings)
        if boundary:
            return interval, method
    interval = bca(
        float(found.estimate[column]),
        found.values[:, column],
        found.left_out[:, column],
        strata=found.left_out_strata,
        confidence=settings.confidence,
    )
    strata = " stratified by the structures they show" if len(np.unique(found.left_out_strata)) > 1 else ""
    return interval, f"bootstrap over patients{strata}, {settings.replicates} replicates, BCa"


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
            result[_named(name, structure)] = found | {"value": int(found["value"])}
    return result
