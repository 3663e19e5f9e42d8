"""Section on single cases: Dice and HD95 of each, agreement of sizes, the worst and the median, false positives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
from markupsafe import Markup

from medgcsam.evaluation.agreement import Agreement
from medgcsam.report.facts import Facts
from medgcsam.report.measured import UNITS
from medgcsam.report.numbers import decimal, tagged, tagged_count
from medgcsam.report.segmentation_figures import MOST_POINTS, Strip, agreement_figure, case_figure
from medgcsam.report.segmented_cases import (
    agreement,
    false_positives,
    with_reference,
    worst_and_median,
)
from medgcsam.report.svg import inline_svg
from medgcsam.report.tables import row, table

MOST_STRUCTURES = 12
"""With figures and lists of their own; the page says which are left out."""
MOST_FALSE_POSITIVES = 20
WORST, MEDIAN = 5, 3


def case_by_case_view(facts: Facts, lines: pd.DataFrame | None) -> dict[str, Any]:
    """Figures, and lists of cases by their hashes."""
    structures = list(facts.metrics.get("structures") or [])
    view: dict[str, Any] = {
        "figures": [],
        "tables": [],
        "left_out": structures[MOST_STRUCTURES:],
        "masks": facts.masks,
        "reason": None,
    }
    if lines is None:
        view["reason"] = "The run folder holds no cases.csv with test cases, so single cases are not shown."
        return view
    shown = structures[:MOST_STRUCTURES]
    view["figures"] = _measure_figures(lines, shown) + [
        _agreement_figure(found, name, f"{number}-{unit}", UNITS.get(unit, unit))
        for number, name in enumerate(shown)
        for unit, own in lines.groupby("size_unit", sort=True)
        if (found := agreement(own, name)) is not None
    ]
    view["tables"] = [one for name in shown if (one := _list(lines, name)) is not None]
    if (invented := _false_positives_table(lines)) is not None:
        view["tables"].append(invented)
    return view


def _measure_figures(lines: pd.DataFrame, structures: list[str]) -> list[dict[str, Any]]:
    found = {name: with_reference(lines, name) for name in structures}
    found = {name: own for name, own in found.items() if len(own)}
    if not found:
        return []
    figures = [_measure_figure("dice", "Dice", found)]
    for unit in sorted({unit for own in found.values() for unit in own["unit"]}):
        of_unit = {name: own[own["unit"] == unit] for name, own in found.items()}
        of_unit = {name: own for name, own in of_unit.items() if len(own)}
        figures.append(_measure_figure("hd95", f"HD95 ({UNITS.get(unit, unit)})", of_unit))
    return figures


def _measure_figure(measure: str, title: str, found: dict[str, pd.DataFrame]) -> dict[str, Any]:
    strips = []
    for name, own in found.items():
        known = own[own[measure].notna()]
        if len(known):
            strips.append(Strip(name, known[measure].to_numpy(), (known["status"] == "missed").to_numpy()))
    svg = case_figure(strips, xlabel=title, salt=title, distances=measure == "hd95")
    spoken = "; ".join(
        f"{one.name}: {len(one.values)} cases, {int(one.missed.sum())} missed, median "
        f"{decimal(float(pd.Series(one.values).median()))}, from {decimal(float(one.values.min()))} to "
        f"{decimal(float(one.values.max()))}"
        for one in strips
    )
    caption = "Each point a test case whose reference shows the structure; box: quartiles; line: median."
    if measure == "hd95":
        caption += " The axis is logarithmic above 1."
    if any(one.missed.any() for one in strips):
        value = "0" if measure == "dice" else "the diagonal of the image"
        caption += f" Diamonds: missed, counted as {value}."
    if any(len(one.values) > MOST_POINTS for one in strips):
        caption += f" Of more than {MOST_POINTS} cases {MOST_POINTS} are drawn, evenly spread over the ranks."
    name = f"cases-{''.join(letter for letter in title.lower() if letter.isascii() and letter.isalnum())}"
    picture = inline_svg(svg, name=name, label=f"{title} of every test case. {spoken}.")
    return {"title": f"{title} in every case.", "caption": caption, "svg": picture}


def _agreement_figure(found: Agreement, name: str, number: str, size: str) -> dict[str, Any]:
    svg = agreement_figure(
        found.mean, found.difference, bias=found.bias, low=found.low, high=found.high, unit=size,
        salt=f"agreement {number}",
    )  # fmt: skip
    words = f"mean difference {decimal(found.bias)}, limits of agreement {decimal(found.low)} to {decimal(found.high)}"
    words += f" {size}"
    caption = (
        f"Predicted minus reference size over their mean (Bland and Altman); each point one of {len(found.mean)} "
        f"patients, mean over the images whose reference shows the structure; {words} (1.96 standard deviations)."
    )
    if len(found.mean) > MOST_POINTS:
        caption += f" {MOST_POINTS} patients are drawn, evenly spread over the sizes."
    label = f"Agreement of predicted and reference size of {name} in {len(found.mean)} patients: {words}."
    picture = inline_svg(svg, name=f"agreement{number}", label=label)
    return {"title": f"Size of {name}.", "caption": caption, "svg": picture}


def _list(lines: pd.DataFrame, name: str) -> dict[str, Any] | None:
    chosen = worst_and_median(lines, name, worst=WORST, median=MEDIAN)
    if not chosen:
        return None
    rows = [
        row(
            _hash(line["case"]),
            _hash(line["patient"]),
            f"{kind}{', missed' if line['status'] == 'missed' else ''}",
            *(tagged(line[key]) for key in ("dice", "nsd", "hd95", "reference_size", "predicted_size")),
        )
        for kind, line in chosen
    ]
    mm, ml = (_unit_words(line[key] for _, line in chosen) for key in ("unit", "size_unit"))
    head = ["Case", "Patient", "Place", "Dice", "NSD", f"HD95 ({mm})", f"Reference ({ml})", f"Predicted ({ml})"]
    note = "Ordered by Dice among the test cases whose reference shows the structure."
    return table(f"{name}: the worst and the median cases.", head, rows, note=note)


def _unit_words(units: Iterable[str]) -> str:
    """The unit of a column; of several, all of them."""
    return " or ".join(sorted({UNITS.get(unit, unit) for unit in units}))


def _false_positives_table(lines: pd.DataFrame) -> dict[str, Any] | None:
    found = false_positives(lines)
    if found.empty:
        return None
    rows = [
        row(_hash(line["case"]), _hash(line["patient"]), line["structure"], tagged(line["predicted_size"]))
        for _, line in found.head(MOST_FALSE_POSITIVES).iterrows()
    ]
    head = ["Case", "Patient", "Structure", f"Predicted ({_unit_words(found['size_unit'])})"]
    number = tagged_count(len(found))
    note = Markup("The largest {} of {}.").format(len(rows), number) if len(found) > len(rows) else ""
    return table("False positives: found where the reference is empty.", head, rows, note=note)


def _hash(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)
