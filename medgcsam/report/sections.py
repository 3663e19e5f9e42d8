"""The pages of a report as lists of sections; a section is an id, a title, a template and the plain view it prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from medgcsam.report.cases import Cases, positive_class, test_cases
from medgcsam.report.curves import calibration_view, curves_view
from medgcsam.report.decisions import decisions_view, frequent_errors, operating_point_words
from medgcsam.report.facts import AUTHOR_FACTS, Facts
from medgcsam.report.numbers import percent, tagged_count
from medgcsam.report.performance import by_class, entries, performance_view
from medgcsam.report.training import training_view
from medgcsam.report.views import cases_view, dataset_notes, provenance_view, reference_view

_TESTING = {
    "internal": "The test images come from the same source as the training images, and were kept apart from them.",
    "external": "The test images come from another source than the training images; the network was taken as it was.",
}
_TASKS = {
    "binary": "classification into two classes",
    "multiclass": "classification into {n} classes",
    "multilabel": "classification with {n} labels, any number of them per image",
    "segmentation": "segmentation, structures: {n}",
}


_FILES = {
    "classification": (
        "results with their intervals in metrics.json; the predictions that curves and counts are made of in "
        "predictions.csv; "
    ),
    "segmentation": (
        "results with their intervals and limits of agreement in metrics.json; single cases, of which the figures show "
        "points, medians and quartiles, in cases.csv; what was planned in plan.json, and the choice of parts in "
        "components.json; "
    ),
}
"""Where the numbers of a page stand in full precision."""


@dataclass(frozen=True)
class Section:
    """One section of a page."""

    id: str
    """Anchor, unique on the page."""
    title: str
    template: str
    """File in templates/, which prints ``view``."""
    view: dict[str, Any]


def page_view(facts: Facts) -> dict[str, Any]:
    """What stands above the sections."""
    metrics = facts.metrics
    testing = metrics.get("testing") or ("external" if facts.external else "internal")
    words = _TASKS[metrics["task"]].format(n=len(metrics.get("classes") or metrics.get("structures") or ()))
    setting = facts.provenance.get("setting")
    network = (facts.provenance.get("network") or {}).get("name") or (facts.config.get("network") or {}).get("name")
    parts = [words[0].upper() + words[1:]]
    parts += [f"network {network}"] if network else []
    parts += [f"optimizer setting {setting}"] if setting else []
    parts += [f"trained on {metrics['trained_on']}"] if metrics.get("trained_on") else []
    parts += [f"external test {facts.external}"] if facts.external else []
    return {
        "title": facts.title,
        "testing": testing,
        "testing_words": _TESTING.get(testing, ""),
        "description": "; ".join(parts) + ".",
        "synthetic": facts.synthetic,
        "version": facts.provenance.get("medgcsam"),
        "files": _FILES["segmentation" if metrics["task"] == "segmentation" else "classification"],
    }


def classification_sections(facts: Facts) -> list[Section]:
    """Sections of the report on one classifier, in the order in which they are read."""
    cases = test_cases(facts)
    return [
        Section("summary", "Summary", "summary.html.j2", summary_view(facts, cases)),
        Section("cases", "Cases and partitions", "cases.html.j2", cases_view(facts)),
        Section("reference", "Data and reference standard", "reference.html.j2", reference_view(facts)),
        Section("performance", "Performance", "performance.html.j2", performance_view(facts)),
        Section("decisions", "Operating point", "decisions.html.j2", decisions_view(facts, cases)),
        Section("curves", "ROC and precision-recall", "curves.html.j2", curves_view(facts, cases)),
        Section("calibration", "Calibration", "calibration.html.j2", calibration_view(facts, cases)),
        Section("training", "Training", "training.html.j2", training_view(facts)),
        Section("provenance", "Versions and configuration", "provenance.html.j2", provenance_view(facts)),
    ]


def summary_view(facts: Facts, cases: Cases | None) -> dict[str, Any]:
    """Page 1: the headline with its interval, operating point, purpose, errors, and what a reader must know."""
    metrics = facts.metrics
    whole, _ = by_class(entries(metrics), metrics["classes"] if metrics["task"] != "binary" else ())
    name = {
        "binary": f"AUROC for {positive_class(metrics)}" if metrics["task"] == "binary" else "",
        "multiclass": "Macro AUROC, mean over the classes against the rest",
        "multilabel": "Macro AUROC, mean over the labels",
    }[metrics["task"]]
    event = (
        f"image that shows {positive_class(metrics)}" if metrics["task"] == "binary" else "image of the rarest class"
    )
    headline = whole.get("auroc")
    rows: list[tuple[str, Any]] = []
    if headline:
        sizes = (tagged_count(headline.get(key)) for key in ("n_patients", "n_images", "n_events"))
        words = Markup('{} patients, {} images, {} events <span class="small">(event: {})</span>')
        rows = [("Tested on", words.format(*sizes, event)), ("Interval by", interval_words(headline))]
    return summary_basis(facts) | {
        "headline": headline,
        "measure": "AUROC",
        "name": name,
        "facts": [*rows, ("Operating point", operating_point_words(facts))],
        "errors": frequent_errors(facts, cases),
    }


def interval_words(headline: dict[str, Any]) -> str:
    """How the interval of the headline was made, and why there is none where there is none."""
    words = str(headline.get("method") or "method not recorded")
    return f"{words}; {headline['reason']}" if headline.get("reason") else words


def summary_basis(facts: Facts) -> dict[str, Any]:
    """What page 1 says of every run, whatever its task."""
    author = facts.author
    return {
        "level": percent(facts.confidence),
        "basis": None,
        "purpose": [(AUTHOR_FACTS[key], author[key]) for key in ("intended_use", "not_for", "contact", "funding")],
        "patients_unknown": facts.metrics.get("patients") == "unknown",
        "notes": dataset_notes(facts),
        "synthetic": facts.synthetic,
        "dropped": (facts.metrics.get("duplicates") or {}).get("dropped_from_train") or 0,
    }
