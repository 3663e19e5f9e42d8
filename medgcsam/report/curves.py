"""Sections with curves: ROC, precision-recall, calibration; ``medgcsam.evaluation`` computes what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medgcsam.evaluation import apply_temperature, precision_recall_points, reliability_bins, roc_points
from medgcsam.report.cases import Cases, Question
from medgcsam.report.decisions import counts_of
from medgcsam.report.facts import Facts
from medgcsam.report.figures import precision_recall_figure, reliability_figure, roc_figure
from medgcsam.report.numbers import NOT_ESTIMABLE, decimal, percent, tagged
from medgcsam.report.performance import by_class, entries
from medgcsam.report.svg import inline_svg
from medgcsam.report.tables import metric_name, row, table

_CALIBRATION = ("calibration_slope", "calibration_intercept", "brier", "log_loss", "ece")


def curves_view(facts: Facts, cases: Cases | None) -> dict[str, Any]:
    """ROC and precision-recall of every class, with the operating point."""
    groups: list[dict[str, Any]] = []
    for number, question in enumerate(cases.questions if cases else ()):
        group: dict[str, Any] = {"name": question.name, "figures": [], "reason": None}
        if question.answerable:
            group["figures"] = [_roc(facts, question, number), _precision_recall(facts, question, number)]
        else:
            group["reason"] = "The labelled test images are all of one kind, so there is no curve."
        groups.append(group)
    return {"groups": groups, "several": facts.metrics["task"] != "binary", "level": percent(facts.confidence)}


def _roc(facts: Facts, question: Question, number: int) -> dict[str, Any]:
    evaluation = facts.config.get("evaluation") or {}
    # Of a very large test set fewer replicates draw the same band to the width of a line, in reasonable time.
    replicates = int(np.clip(2e7 // len(question.labels), 200, 1000))
    curve = roc_points(
        question.labels, question.probabilities, question.patients,
        replicates=replicates, seed=int(evaluation.get("seed") or 0), confidence=facts.confidence,
    )  # fmt: skip
    band, point, where = curve["band"], None, ""
    if question.threshold is not None:
        (passed, alarms), (misses, hits) = counts_of(question)
        point = (alarms / (alarms + passed), hits / (hits + misses))
        where = f" At the operating point sensitivity is {decimal(point[1])} and specificity {decimal(1 - point[0])}."
    svg = roc_figure(
        curve["fpr"], curve["tpr"], band=tuple(np.asarray(band[key]) for key in ("fpr", "low", "high")), point=point
    )
    caption = f"Shaded: pointwise {percent(facts.confidence)} band, bootstrap over patients ({replicates} replicates)."
    if point:
        caption += " Diamond: operating point chosen on the validation partition."
    label = f"ROC curve for {question.name} on the test images: AUROC {_value(facts, question, 'auroc')}.{where}"
    return {"title": "ROC curve.", "caption": caption, "svg": inline_svg(svg, name=f"roc{number}", label=label)}


def _precision_recall(facts: Facts, question: Question, number: int) -> dict[str, Any]:
    curve = precision_recall_points(question.labels, question.probabilities)
    prevalence, point, where = float(question.labels.mean()), None, ""
    if question.threshold is not None:
        (_, alarms), (misses, hits) = counts_of(question)
        if hits + alarms:
            point = (hits / (hits + misses), hits / (hits + alarms))
            where = f" At the operating point recall is {decimal(point[0])} and precision {decimal(point[1])}."
    svg = precision_recall_figure(curve["recall"], curve["precision"], prevalence=prevalence, point=point)
    label = (
        f"Precision-recall curve for {question.name} on the test images: AUPRC {_value(facts, question, 'auprc')}, "
        f"share of events {decimal(prevalence)}.{where}"
    )
    caption = "Dotted: share of events, the level of a test without information; it depends on how cases were gathered."
    picture = inline_svg(svg, name=f"pr{number}", label=label)
    return {"title": "Precision-recall curve.", "caption": caption, "svg": picture}


def _value(facts: Facts, question: Question, metric: str) -> str:
    found = entries(facts.metrics)
    key = metric if facts.metrics["task"] == "binary" else f"{metric}_{question.name}"
    return decimal(found.get(key, {}).get("value")) if key in found else NOT_ESTIMABLE


def calibration_view(facts: Facts, cases: Cases | None) -> dict[str, Any]:
    """Calibration numbers before and after temperature scaling, and reliability diagrams."""
    calibration = facts.metrics.get("calibration") or {}
    temperature = calibration.get("temperature")
    view: dict[str, Any] = {
        "table": _calibration_table(facts, calibration),
        "temperature": [],
        "figures": [],
        "several": facts.metrics["task"] != "binary",
    }
    if isinstance(temperature, dict):
        view["temperature"] = [(name, tagged(value)) for name, value in temperature.items()]
    elif temperature is not None:
        view["temperature"] = [(None, tagged(temperature))]
    if cases is not None:
        view["figures"] = _reliability_figures(facts, cases, temperature)
    return view


def _calibration_table(facts: Facts, calibration: dict[str, Any]) -> dict[str, Any] | None:
    before, after = calibration.get("test_before"), calibration.get("test_after")
    if not before:
        whole, _ = by_class(entries(facts.metrics), facts.metrics["classes"])
        before = {key: whole[key]["value"] for key in _CALIBRATION if key in whole}
    if not before:
        return None
    nested = isinstance(next(iter(before.values())), dict) and "value" not in next(iter(before.values()))
    rows = []
    for name, one in before.items() if nested else [(None, before)]:
        other = ((after or {}).get(name) if nested else after) or {}
        for key in [key for key in _CALIBRATION if key in one]:
            title = metric_name(key) if name is None else f"{name}: {metric_name(key)}"
            rows.append(row(title, tagged(_plain(one[key])), *([tagged(_plain(other.get(key)))] if after else [])))
    head = ["Measure", "As predicted", *(["After temperature scaling"] if after else [])]
    note = "No intervals here: a bootstrap of a calibration error is biased."
    return table("Calibration on the test partition.", head, rows, note=note)


def _plain(value: Any) -> Any:
    return value.get("value") if isinstance(value, dict) else value


def _reliability_figures(facts: Facts, cases: Cases, temperature: Any) -> list[dict[str, Any]]:
    if facts.metrics["task"] == "multiclass":
        largest = cases.probabilities.max(axis=1)
        right = cases.probabilities.argmax(axis=1) == cases.labels
        after = None if temperature is None else apply_temperature(cases.probabilities, float(temperature)).max(axis=1)
        return [_reliability(facts, "reliability0", None, right, [largest, after], cases.patients)]
    figures = []
    for number, question in enumerate(cases.questions):
        if len(question.labels) == 0:
            continue
        own = temperature.get(question.name) if isinstance(temperature, dict) else temperature
        after = None if own is None else apply_temperature(question.probabilities, float(own))
        series = [question.probabilities, after]
        figures.append(
            _reliability(facts, f"reliability{number}", question.name, question.labels, series, question.patients)
        )
    return figures


def _reliability(
    facts: Facts,
    name: str,
    event: str | None,
    labels: np.ndarray,
    probabilities: Sequence[np.ndarray | None],
    patients: np.ndarray,
) -> dict[str, Any]:
    """Diagram of one event, a class or (None) a right decision; probabilities before and, or None, after scaling."""
    series = [
        (words, reliability_bins(labels, values, patients, confidence=facts.confidence))
        for words, values in zip(("as predicted", "after temperature scaling"), probabilities, strict=True)
        if values is not None
    ]
    svg = reliability_figure(
        series,
        probabilities=probabilities[0],
        xlabel="Predicted probability" if event else "Largest probability",
        ylabel="Observed share of events" if event else "Share of right decisions",
    )
    what = event or "the largest probability"
    words, points = series[-1]
    ends = [f"predicted {decimal(point['predicted'])}, observed {decimal(point['observed'])}" for point in points]
    label = (
        f"Reliability diagram for {what}, {len(points)} groups of images, {words}. "
        f"Lowest group: {ends[0]}. Highest group: {ends[-1]}."
    )
    caption = (
        f"Groups of equal numbers of images; bars: {percent(facts.confidence)} Wilson limits with the effective number "
        "of images. Below: how often each probability was predicted, before scaling."
    )
    return {"title": f"Reliability, {what}.", "caption": caption, "svg": inline_svg(svg, name=name, label=label)}
