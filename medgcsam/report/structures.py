"""Section on how well structures were segmented: metrics.json with intervals, spread, counts and the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from medgcsam.report.facts import Facts
from medgcsam.report.numbers import tagged, tagged_count
from medgcsam.report.performance import Methods, entries, value_with_interval
from medgcsam.report.tables import row, table

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
_BESIDE = ("dice", "nsd", "hd95", "asd", "volume_error_absolute", "area_error_absolute")
_OVERVIEW = ("dice", "nsd", "hd95", "asd", "volume_error", "area_error")
_OUT_OF = ("missed", "false_positive", "both_empty")
EMPTY_RULE = (
    "Where reference and prediction are both empty, the case counts as right and is left out of the means; where only "
    "the reference is empty, the prediction is a false positive: it is counted, left out of Dice, and 0 in Dice with "
    "false positives as 0; where only the prediction is empty, the structure is missed: Dice 0, surface Dice 0, "
    "surface distances the diagonal of the image."
)


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
    """Entries of the mean over the structures, and of each structure: measure -> entry.

    A key is MEASURE[_UNIT] or MEASURE[_UNIT]_STRUCTURE; what is neither stays under its own name.
    """
    keys: dict[str, tuple[str, str, str | None]] = {}
    # A structure's name may end like another measure: the longer measure without a structure goes first.
    for structure in (None, *structures):
        for measure in (*MEASURES, *COUNTS):
            for unit in ("", *UNITS):
                key = "_".join(part for part in (measure, unit, structure) if part)
                keys.setdefault(key, (measure, unit, structure))
    whole: dict[str, Measured] = {}
    of_structure: dict[str, dict[str, Measured]] = {name: {} for name in structures}
    for key, entry in found.items():
        measure, unit, structure = keys.get(key, (key, "", None))
        (whole if structure is None else of_structure[structure])[measure] = Measured(measure, unit, entry)
    return whole, {name: values for name, values in of_structure.items() if values}


def structures_view(facts: Facts) -> dict[str, Any]:
    """All metrics on the test partition: beside the baseline, spread over the cases, counts, and how each was made."""
    metrics, methods, level = facts.metrics, Methods(), f"{facts.confidence:.0%} interval"
    structures = metrics.get("structures") or []
    whole, each = by_structure(entries(metrics), structures)
    validation, validation_each = by_structure(entries(metrics, "validation"), structures)
    several = len(each) > 1
    return {
        "baseline": _baseline_table(metrics, whole, each if several else {}, level),
        "loses": loses(metrics, whole),
        "overview": _overview(whole, each, level) if several else None,
        "spread": _spread_tables(whole, each, methods, level),
        "counts": _counts_table(whole, each),
        "validation": _spread_tables(validation, validation_each, None, level),
        "tolerance": tolerance_words(facts),
        "empty_rule": EMPTY_RULE,
        "methods": methods.texts,
    }


def loses(metrics: dict[str, Any], whole: dict[str, Measured]) -> bool:
    """Whether the baseline's mean Dice is at least the network's."""
    simple = entries(metrics.get("baseline") or {}).get("dice", {}).get("value")
    own = whole["dice"].entry["value"] if "dice" in whole else None
    return simple is not None and own is not None and simple >= own


def tolerance_words(facts: Facts) -> str | None:
    """The tolerance of surface Dice, of each structure where they differ; None where no file says it."""
    given = facts.metrics.get("nsd_tolerance") or (facts.config.get("evaluation") or {}).get("nsd_tolerance")
    if given is None:
        return None
    if isinstance(given, dict) and len(set(given.values())) == 1:
        given = next(iter(given.values()))
    whole, each = by_structure(entries(facts.metrics), facts.metrics.get("structures") or [])
    units = {found["hd95"].unit for found in (whole, *each.values()) if "hd95" in found} - {""}
    unit = f" {UNITS[next(iter(units))]}" if len(units) == 1 else " mm (pixels where the spacing is unknown)"
    if isinstance(given, dict):
        return ", ".join(f"{name} {float(value):g}{unit}" for name, value in given.items())
    return f"{float(given):g}{unit}"


def _overview(whole: dict[str, Measured], each: dict[str, dict[str, Measured]], level: str) -> dict[str, Any]:
    present = {measure: one for found in (*each.values(), whole) for measure, one in found.items()}
    shown = [measure for measure in _OVERVIEW if measure in present]
    rows = [row("Mean over structures", *_cells(whole, shown), kind="main")]
    rows += [row(name, *_cells(found, shown)) for name, found in each.items()]
    head = ["Structure", *(present[measure].name for measure in shown)]
    return table("Test partition: each structure.", head, rows, note=f"Under each mean: {level}.")


def _cells(found: dict[str, Measured], shown: Iterable[str]) -> list[Markup]:
    return [value_with_interval(found[measure].entry if measure in found else None) for measure in shown]


def _spread_tables(
    whole: dict[str, Measured], each: dict[str, dict[str, Measured]], methods: Methods | None, level: str
) -> list[dict[str, Any]]:
    """A table per structure; one table where there is a single one, or none is told apart. No methods: no letters."""
    groups = list(each.items()) or [(None, whole)]
    if len(each) > 1:
        groups.insert(0, ("Mean over structures", whole))
    elif each:
        # Of one structure the mean over structures is the same, but only it may hold some of the measures.
        groups = [(groups[0][0], whole | groups[0][1])]
    head = ["Measure", "Mean", "Median", "Quartiles", "Worst 5%", "Patients", "Images"]
    note = f"Under each mean: {level}. Median, quartiles and the limit beyond which the worst 5% lie: over patients."
    if methods is not None:
        head, note = [*head, "Method"], f"{note} Letters: methods, at the end."
    return [
        table(f"{name}." if name else "All structures.", head, rows, note=note)
        for name, found in groups
        if (rows := [_spread_row(found[measure], methods) for measure in MEASURES if measure in found])
    ]


def _spread_row(one: Measured, methods: Methods | None) -> dict[str, Any]:
    entry, dash = one.entry, Markup('<span class="missing">–</span>')

    def cell(key: str) -> Markup:
        return tagged(entry[key]) if entry.get(key) is not None else dash

    quartiles = dash if entry.get("q1") is None else Markup("{} to {}").format(tagged(entry["q1"]), cell("q3"))
    return row(
        one.name,
        value_with_interval(entry),
        cell("median"),
        quartiles,
        cell("worst5"),
        *(tagged_count(entry.get(key)) for key in ("n_patients", "n_images")),
        *([] if methods is None else [methods.letter(entry)]),
        kind="main" if one.measure == "dice" else "",
    )


def _counts_table(whole: dict[str, Measured], each: dict[str, dict[str, Measured]]) -> dict[str, Any] | None:
    groups = {**each, **({"All structures": whole} if len(each) > 1 or not each else {})}
    if len(each) == 1:
        groups = {name: whole | found for name, found in each.items()}
    shown = [measure for measure in COUNTS if any(measure in found for found in groups.values())]
    if not shown:
        return None
    dash = Markup('<span class="missing">–</span>')
    rows = [
        row(name, *(_count(found[one], of=name in each) if one in found else dash for one in shown))
        for name, found in groups.items()
    ]
    head = ["Structure", *(COUNTS[measure] for measure in shown)]
    note = "Of the images whose reference shows the structure, or does not; parts are connected regions."
    return table("Structures missed, invented and rightly left out.", head, rows, note=note)


def _count(one: Measured, *, of: bool) -> Markup:
    """How many, and out of how many images where a structure's own count says it."""
    if of and one.measure in _OUT_OF and one.entry.get("n_images") is not None:
        return Markup("{} of {}").format(tagged_count(one.entry["value"]), tagged_count(one.entry["n_images"]))
    return tagged_count(one.entry["value"])


def _baseline_table(
    metrics: dict[str, Any], whole: dict[str, Measured], each: dict[str, dict[str, Measured]], level: str
) -> dict[str, Any] | None:
    baseline = metrics.get("baseline") or {}
    simple, simple_each = by_structure(entries(baseline), metrics.get("structures") or [])
    shown = [measure for measure in _BESIDE if measure in simple and measure in whole]
    counted = [measure for measure in ("missed", "false_positive") if measure in simple and measure in whole]
    if not shown:
        return None
    pairs = [("", whole, simple)] + [(f", {name}", found, simple_each.get(name, {})) for name, found in each.items()]
    dash = Markup('<span class="missing">–</span>')
    rows = []
    for suffix, *both in pairs:
        for name, found in zip(("Network", "Threshold baseline"), both, strict=True):
            counts = [tagged_count(found[one].entry["value"]) if one in found else dash for one in counted]
            kind = "main" if found is whole else ""
            rows.append(row(f"{name}{suffix}", *_cells(found, shown), *counts, kind=kind))
    head = ["Model", *(whole[measure].name for measure in shown), *(COUNTS[measure] for measure in counted)]
    note = f"Under each mean: {level}. Baseline: {baseline.get('method') or 'method not recorded'}, on the same split."
    return table("The network beside the baseline.", head, rows, note=note)
