"""Section on how well structures were segmented: metrics.json with intervals, spread, counts and the baseline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from medgcsam.evaluation.segmentation_names import measure_and_unit
from medgcsam.report.facts import Facts
from medgcsam.report.measured import COUNTS, MEASURES, Measured, by_structure, in_order, patients_words, tolerance_words
from medgcsam.report.numbers import percent, tagged, tagged_count
from medgcsam.report.performance import Methods, entries, value_with_interval
from medgcsam.report.tables import row, table

_BESIDE = ("dice", "nsd", "hd95", "asd", "volume_error_absolute", "area_error_absolute")
_OVERVIEW = ("dice", "nsd", "hd95", "asd", "volume_error", "area_error")
_OUT_OF = ("missed", "false_positive", "both_empty")
EMPTY_RULE = (
    "Where reference and prediction are both empty, the case counts as right and is left out of the means; where only "
    "the reference is empty, the prediction is a false positive: it is counted, left out of Dice, and 0 in Dice with "
    "false positives as 0; where only the prediction is empty, the structure is missed: Dice 0, surface Dice 0, "
    "surface distances the diagonal of the image."
)


def structures_view(facts: Facts) -> dict[str, Any]:
    """All metrics on the test partition: beside the baseline, spread over the cases, counts, and how each was made."""
    metrics, methods, level = facts.metrics, Methods(), f"{percent(facts.confidence)} interval"
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
        "tolerance": tolerance_words(metrics, (facts.config.get("evaluation") or {}).get("nsd_tolerance")),
        "empty_rule": EMPTY_RULE,
        "methods": methods.texts,
    }


def loses(metrics: dict[str, Any], whole: dict[str, Measured]) -> bool:
    """Whether the baseline's mean Dice is at least the network's."""
    simple = entries(metrics.get("baseline") or {}).get("dice", {}).get("value")
    own = whole["dice"].entry["value"] if "dice" in whole else None
    return simple is not None and own is not None and simple >= own


def _overview(whole: dict[str, Measured], each: dict[str, dict[str, Measured]], level: str) -> dict[str, Any]:
    groups = {"Mean over structures": whole, **each}
    shown = in_order(_OVERVIEW, *groups.values())
    rows = [row(name, *_cells(found, shown), kind="main" if found is whole else "") for name, found in groups.items()]
    head = ["Structure", *_heads(shown, *groups.values())]
    return table("Test partition: each structure.", head, rows, note=f"Under each mean: {level}.{_two_units(shown)}")


def _heads(shown: Iterable[str], *groups: dict[str, Measured]) -> list[str]:
    present = {name: one for group in groups for name, one in group.items()}
    return [present[name].name for name in shown]


def _cells(found: dict[str, Measured], shown: list[str]) -> list[Markup]:
    """Values with intervals; of a measure in two units also how many patients each is about."""
    cells = [value_with_interval(found[name].entry if name in found else None) for name in shown]
    for place in _in_two_units(shown):
        if (one := found.get(shown[place])) is not None and one.entry.get("n_patients") is not None:
            words = patients_words(one.entry["n_patients"])
            cells[place] += Markup(' <span class="ci">{}</span>').format(words)
    return cells


def _in_two_units(shown: list[str]) -> list[int]:
    measures = [measure_and_unit(name)[0] for name in shown]
    kinds = [measure.replace("area", "volume") for measure in measures]  # sizes: ml of volumes, mm2 or pixels of areas
    return [place for place, kind in enumerate(kinds) if kinds.count(kind) > 1]


def _two_units(shown: list[str]) -> str:
    return " Measures in two units are each about the images of one kind." if _in_two_units(shown) else ""


def _spread_tables(
    whole: dict[str, Measured], each: dict[str, dict[str, Measured]], methods: Methods | None, level: str
) -> list[dict[str, Any]]:
    """A table per structure; one table where there is a single one, or none is told apart. No methods: no letters.

    The mean over several structures is no mean over patients, so its table has no median and no quartiles.
    """
    groups = list(each.items()) or [(None, whole)]
    if len(each) == 1:
        # Of one structure the mean over structures is the same, but only it may hold some of the measures.
        groups = [(groups[0][0], whole | groups[0][1])]
    if len(each) > 1:
        groups.insert(0, ("Mean over structures", whole))
    tables = []
    for name, found in groups:
        mean = len(each) > 1 and found is whole
        rows = [_spread_row(found[one], methods, spread=not mean) for one in in_order(MEASURES, found)]
        if rows:
            tables.append(_spread_table(f"{name}." if name else "All structures.", rows, methods, level, mean=mean))
    return tables


def _spread_table(
    title: str, rows: list[dict[str, Any]], methods: Methods | None, level: str, *, mean: bool
) -> dict[str, Any]:
    spread = [] if mean else ["Median", "Quartiles", "Worst 5%"]
    head = ["Measure", "Mean", *spread, "Patients", "Images", *(["Method"] if methods is not None else [])]
    note = f"Under each mean: {level}. "
    if mean:
        note += (
            "Each structure counts the same: its mean is over the patients whose reference shows it. No patient stands "
            "for all structures, so medians and quartiles stand with each structure alone."
        )
    else:
        note += "Median, quartiles and the limit beyond which the worst 5% lie: over patients."
    return table(title, head, rows, note=note + (" Letters: methods, at the end." if methods is not None else ""))


def _spread_row(one: Measured, methods: Methods | None, *, spread: bool) -> dict[str, Any]:
    entry, dash = one.entry, Markup('<span class="missing">–</span>')

    alone = entry.get("n_patients") == 1  # the median and all limits of one patient are its value

    def cell(key: str) -> Markup:
        return dash if alone or entry.get(key) is None else tagged(entry[key])

    quartiles = dash if alone or entry.get("q1") is None else Markup("{} to {}").format(cell("q1"), cell("q3"))
    return row(
        one.name,
        value_with_interval(entry),
        *([cell("median"), quartiles, cell("worst5")] if spread else []),
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
    shown = [name for name in in_order(_BESIDE, whole) if name in simple]
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
    head = ["Model", *_heads(shown, whole), *(COUNTS[measure] for measure in counted)]
    note = f"Under each mean: {level}.{_two_units(shown)} "
    note += f"Baseline: {baseline.get('method') or 'method not recorded'}, on the same split."
    return table("The network beside the baseline.", head, rows, note=note)
