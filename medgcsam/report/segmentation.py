"""The page on one segmentation: its sections, page 1, and what the data decided (plan, largest parts)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from medgcsam.report.case_by_case import case_by_case_view
from medgcsam.report.facts import Facts
from medgcsam.report.measured import all_tested, tolerance_words
from medgcsam.report.numbers import decimal, tagged, tagged_count
from medgcsam.report.performance import entries
from medgcsam.report.sections import Section, interval_words, summary_basis
from medgcsam.report.segmented_cases import lines_of_test
from medgcsam.report.structures import structures_view
from medgcsam.report.tables import row, table
from medgcsam.report.training import training_view
from medgcsam.report.views import cases_view, provenance_view, reference_view

POOR_DICE = 0.5
_KEPT = {"largest": "the largest part alone", "all": "all parts"}


def segmentation_sections(facts: Facts) -> list[Section]:
    """Sections of the report on one segmentation, in the order in which they are read."""
    lines = lines_of_test(facts)
    return [
        Section("summary", "Summary", "summary.html.j2", summary_view(facts, lines)),
        Section("cases", "Cases and partitions", "cases.html.j2", cases_view(facts)),
        Section("reference", "Data and reference standard", "reference.html.j2", reference_view(facts)),
        Section("performance", "Performance", "structures.html.j2", structures_view(facts)),
        Section("each", "Case by case", "case_by_case.html.j2", case_by_case_view(facts, lines)),
        Section("plan", "What the data decided", "plan.html.j2", plan_view(facts)),
        Section("training", "Training", "training.html.j2", training_view(facts)),
        Section("provenance", "Versions and configuration", "provenance.html.j2", provenance_view(facts)),
    ]


def summary_view(facts: Facts, lines: pd.DataFrame | None) -> dict[str, Any]:
    """Page 1: mean Dice with its interval, how it was measured, purpose, errors, and what a reader must know."""
    metrics = facts.metrics
    structures = metrics.get("structures") or []
    headline, tested = entries(metrics).get("dice"), all_tested(metrics)
    rows: list[tuple[str, Any]] = []
    if tested:
        rows = [("Tested on", _sizes(*tested))]
    if headline:
        rows.append(("Interval by", interval_words(headline)))
    configured = (facts.config.get("evaluation") or {}).get("nsd_tolerance")
    return summary_basis(facts) | {
        "headline": headline,
        "basis": basis_words(headline, structures) if headline else None,
        "measure": "Dice",
        "name": f"Dice of {structures[0]}" if len(structures) == 1 else f"Dice, mean over {len(structures)} structures",
        "facts": [
            *rows,
            ("Tolerance of surface Dice", tolerance_words(metrics, configured) or "not recorded"),
            ("Parts kept", kept_words(facts)),
        ],
        "errors": frequent_errors(facts, lines),
    }


def basis_words(headline: dict[str, Any], structures: Sequence[str]) -> Markup:
    """Whom mean Dice is about: fewer than were tested where some references are empty."""
    shown = structures[0] if len(structures) == 1 else "any of them"
    sizes = _sizes(headline.get("n_patients"), headline.get("n_images"))
    return Markup("over {} whose reference shows {}").format(sizes, shown)


def _sizes(patients: int | None, images: int | None) -> Markup:
    """ "10 patients, 13 images"."""
    counted = [
        Markup("{} {}{}").format(tagged_count(number), word, "" if number == 1 else "s")
        for word, number in (("patient", patients), ("image", images))
    ]
    return Markup(", ").join(counted)


def frequent_errors(facts: Facts, lines: pd.DataFrame | None, *, most: int = 3) -> list[Markup]:
    """The most frequent kinds of error on the test images in words, most frequent first."""
    kinds: list[tuple[int, int, str]] = []
    for name in (facts.metrics.get("structures") or []) if lines is not None else ():
        own = lines[lines["structure"] == name]
        status, shown = own["status"], own["status"].isin(["ok", "missed"])
        poor = (status == "ok") & (own["dice"] < POOR_DICE)
        kinds += [
            (int((status == "missed").sum()), int(shown.sum()), f"{name} missed"),
            (int((status == "false_positive").sum()), int((~shown).sum()), f"{name} found where there is none"),
            (int(poor.sum()), int(shown.sum()), f"{name} found, but with a Dice below {POOR_DICE}"),
        ]
    kinds = sorted((kind for kind in kinds if kind[0]), key=lambda kind: -kind[0])[:most]
    return [
        Markup("{}: {} of {} images").format(words, tagged_count(number), tagged_count(total))
        for number, total, words in kinds
    ]


def kept_words(facts: Facts) -> str:
    """Which structures keep their largest part alone, in a few words."""
    found = (facts.components or {}).get("structures") or {}
    if not found:
        return "not recorded"
    largest = [name for name, rule in found.items() if rule.get("keep") == "largest"]
    if not largest:
        return "all parts of every structure"
    if len(largest) == len(found):
        return "the largest part of each structure alone"
    return f"the largest part alone of {', '.join(largest)}; all parts of the others"


def plan_view(facts: Facts) -> dict[str, Any]:
    """The planned numbers with their reasons, and the choice between all parts and the largest."""
    planned = [
        row(key, _plain(one.get("value")), _plain(one.get("asked")), one.get("reason") or "not recorded")
        for key, one in (facts.plan or {}).items()
        if isinstance(one, dict)
    ]
    components = facts.components or {}
    chosen = [
        row(
            name,
            _KEPT.get(rule.get("keep"), rule.get("keep") or "not recorded"),
            *(tagged(rule.get(key)) for key in ("dice_all", "dice_largest")),
            tagged_count(rule.get("patients")),
        )
        for name, rule in (components.get("structures") or {}).items()
    ]
    head = ["Structure", "Kept", "Dice, all parts", "Dice, largest part", "Patients"]
    where, asked = components.get("chosen_on"), components.get("asked")
    note = f"Measured on the {where} partition." if where else ""
    note += f" Set in the configuration: {asked}." if asked in _KEPT else ""
    plan = table("Planned numbers.", ["Key", "Value", "Asked for", "Reason"], planned) if planned else None
    return {
        "plan": plan,
        "planned": facts.plan is not None,
        "components": table("All parts or the largest.", head, chosen, note=note.strip()) if chosen else None,
    }


def _plain(value: Any) -> str:
    """A value of a configuration for a table cell."""
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    if value is None:
        return "none"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}" if abs(value) < 1000 else decimal(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
