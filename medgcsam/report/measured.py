"""What metrics.json of a segmentation holds, told apart by measure, unit and structure, in a reader's words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from medgcsam.evaluation.segmentation_names import MEANS, measure_and_unit, named
from medgcsam.report.performance import entries

MEASURES = {
    "dice": "Dice",
    "nsd": "Surface Dice (NSD)",
    "hd95": "HD95",
    "asd": "Average surface distance",
    "volume_error": "Volume error",
    "area_error": "Area error",
    "volume_error_absolute": "Absolute volume error",
    "area_error_absolute": "Absolute area error",
    "dice_with_empty": "Dice with false positives as 0",
    "missed_rate": "Missed, share",
    "false_positive_rate": "False positives, share of empty references",
    "lesion_sensitivity": "Parts found, share",
}
COUNTS = {
    "missed": "Missed",
    "false_positive": "False positives on empty references",
    "both_empty": "Both empty",
    "lesions_reference": "Parts in the reference",
    "lesions_found": "Parts found",
    "lesions_false": "Parts found where none is",
}
UNITS = {"mm": "mm", "px": "pixels", "ml": "ml", "mm2": "mm²", "voxels": "voxels"}
"""Of distances and sizes in metrics.json and cases.csv, as a reader writes them."""


@dataclass(frozen=True)
class Measured:
    """An entry of metrics.json. ``measure``: a key of MEASURES or COUNTS; ``unit``: "mm", "ml", ... or empty."""

    measure: str
    unit: str
    entry: dict[str, Any]

    @property
    def name(self) -> str:
        """What a reader calls it, with its unit."""
        words = MEASURES.get(self.measure) or COUNTS.get(self.measure) or self.measure.replace("_", " ")
        unit = "voxels" if self.unit == "px" and self.measure.startswith("volume") else UNITS.get(self.unit)
        return f"{words} ({unit})" if unit else words


def by_structure(
    found: dict[str, dict[str, Any]], structures: Sequence[str]
) -> tuple[dict[str, Measured], dict[str, dict[str, Measured]]]:
    """Entries of the mean over the structures, and of each structure: name of metrics.json without structure -> entry.

    Images with and without a spacing have names of their own, ``hd95_mm`` and ``hd95_px``. What is no name of
    ``segmentation_names`` stays under its own.
    """
    keys: dict[str, tuple[str, str | None]] = {}
    for structure in (None, *structures):
        for name in (*MEANS, *COUNTS):
            keys.setdefault(named(name, structure), (name, structure))
    whole: dict[str, Measured] = {}
    of_structure: dict[str, dict[str, Measured]] = {name: {} for name in structures}
    for key, entry in found.items():
        name, structure = keys.get(key, (key, None))
        measure, unit = measure_and_unit(name) if name in MEANS else (name, "")
        (whole if structure is None else of_structure[structure])[name] = Measured(measure, unit, entry)
    return whole, {name: values for name, values in of_structure.items() if values}


def in_order(measures: Iterable[str], *groups: dict[str, Measured]) -> list[str]:
    """Names of the entries of the groups that are of these measures, in their order, each unit by itself."""
    present = {name: one for group in groups for name, one in group.items()}
    return [name for measure in measures for name, one in sorted(present.items()) if one.measure == measure]


def all_tested(metrics: dict[str, Any]) -> tuple[int, int] | None:
    """Patients and images of the test, those with empty references among them; None where no file says it.

    A wrong part can be found in any case, so the count of these is the one number that is about all of them.
    """
    every = entries(metrics).get("lesions_false") or {}
    sizes = (every.get("n_patients"), every.get("n_images"))
    return None if None in sizes else sizes


def tolerance_words(metrics: dict[str, Any], configured: float | dict[str, float] | None = None) -> str | None:
    """The tolerance of surface Dice, of each structure where they differ; None where no file says it.

    Where some images have a spacing and others none, both units with the patients that each is about.
    """
    given = metrics.get("nsd_tolerance") or configured
    if given is None:
        return None
    if isinstance(given, dict) and len(set(given.values())) == 1:
        given = next(iter(given.values()))
    patients = _patients_by_unit(metrics)
    unit = UNITS[next(iter(patients))] if len(patients) == 1 else "mm"
    if isinstance(given, dict):
        words = ", ".join(f"{name} {float(value):g} {unit}" for name, value in given.items())
    else:
        words = f"{float(given):g} {unit}"
    if len(patients) == 1:
        return words
    in_mm, in_pixels = (f" ({patients_words(patients[one])})" if one in patients else "" for one in ("mm", "px"))
    return f"{words}{in_mm}; as many pixels where the spacing is unknown{in_pixels}"


def patients_words(number: int) -> str:
    """ "1 patient", "12 patients"."""
    return f"{number:,} patient{'' if number == 1 else 's'}"


def _patients_by_unit(metrics: dict[str, Any]) -> dict[str, int]:
    """Unit of the distances -> patients whose distances are in it."""
    whole, each = by_structure(entries(metrics), metrics.get("structures") or [])
    found: dict[str, int] = {}
    for one in (one for group in (whole, *each.values()) for one in group.values()):
        number = one.entry.get("n_patients", 1)
        if one.measure == "hd95" and one.unit and number:
            found.setdefault(one.unit, number)
    return found
