"""Section on decisions: the frozen operating point, the table of decisions, the most frequent errors."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup, escape

from medgcsam.evaluation import confusion_matrix
from medgcsam.report.cases import Cases, Question, operating_point_of, positive_class
from medgcsam.report.facts import Facts
from medgcsam.report.numbers import NOT_ESTIMABLE, decimal, tagged, tagged_count
from medgcsam.report.tables import row, table

_RULES = {
    "youden": "maximises sensitivity plus specificity (Youden's index)",
    "sensitivity": "is the highest whose sensitivity reaches {target}",
    "specificity": "is the lowest whose specificity reaches {target}",
}


def operating_point_words(facts: Facts) -> Markup:
    """In one or two sentences, how the operating point came about."""
    metrics = facts.metrics
    if metrics["task"] == "multiclass":
        return Markup("None is needed: each image is called the class of its largest probability.")
    names = metrics["classes"] if metrics["task"] == "multilabel" else [positive_class(metrics)]
    points = [operating_point_of(metrics, name) for name in names]
    if all(point.get("threshold") is None for point in points):
        return Markup('<span class="missing">not recorded</span>')
    first = next(point for point in points if point.get("threshold") is not None)
    if len(points) == 1:
        return Markup("An image is called {} where its probability is at least {}. {}").format(
            names[0], tagged(first["threshold"]), _chosen(first)
        )
    return Markup("One threshold per class. {}").format(_chosen(first))


def _chosen(point: dict[str, Any]) -> Markup:
    if point.get("rule") == "none":
        reason = point.get("reason") or "the validation partition allowed no choice"
        return Markup("It was not chosen: {}.").format(reason)
    where = escape(point.get("chosen_on") or "validation")
    rule = _RULES.get(point.get("rule"), "").format(target=decimal(point.get("target")))
    sentence = Markup("The threshold {} on the {} patients.").format(rule, where) if rule else Markup("")
    return Markup("Chosen on the {} partition, then frozen. {}").format(where, sentence)


def decisions_view(facts: Facts, cases: Cases | None) -> dict[str, Any]:
    """Words about the operating point, and the table of decisions against the reference standard."""
    task = facts.metrics["task"]
    view: dict[str, Any] = {
        "task": task,
        "words": operating_point_words(facts),
        "matrix": None,
        "table": None,
        "reason": None,
    }
    if cases is None:
        view["reason"] = "The run folder holds no predictions of labelled test images, so they cannot be counted."
    elif task == "multilabel":
        view["table"] = _per_class_table(cases)
    elif task == "binary" and cases.questions[0].threshold is None:
        view["reason"] = "No operating point is recorded, so no decisions can be counted."
    else:
        view["matrix"] = _matrix(facts, cases)
    return view


def counts_of(question: Question) -> np.ndarray:
    """(2, 2) counts at the frozen threshold: rows the reference (without, with the class), columns the decision."""
    return confusion_matrix(question.labels, question.probabilities >= question.threshold, 2)


def _matrix(facts: Facts, cases: Cases) -> dict[str, Any]:
    """Names and counts; of a binary task the positive class comes first, as in every two-by-two table."""
    classes = list(facts.metrics["classes"])
    if facts.metrics["task"] == "binary":
        positive = positive_class(facts.metrics)
        names = [positive, next(name for name in classes if name != positive)]
        counts = counts_of(cases.questions[0])[::-1, ::-1]
        words = [["true positive", "false negative"], ["false positive", "true negative"]]
        title = "Two-by-two table at the operating point."
    else:
        names, words = classes, None
        counts = confusion_matrix(cases.labels, cases.probabilities.argmax(axis=1), len(classes))
        title = "Confusion matrix."
    cells = [
        [
            {"count": tagged_count(int(number)), "right": i == j, "word": words[i][j] if words else None}
            for j, number in enumerate(line)
        ]
        for i, line in enumerate(counts)
    ]
    totals = [tagged_count(int(number)) for number in counts.sum(axis=1)]
    rows = list(zip(names, cells, totals, strict=True))
    return {"title": title, "names": names, "rows": rows, "small": len(names) > 4}


def _per_class_table(cases: Cases) -> dict[str, Any]:
    rows = []
    for question in cases.questions:
        if question.threshold is None:
            rows.append(row(question.name, *[Markup('<span class="missing">{}</span>').format(NOT_ESTIMABLE)] * 5))
            continue
        (passed, alarms), (misses, hits) = counts_of(question)
        numbers = (tagged_count(int(number)) for number in (hits, misses, alarms, passed))
        rows.append(row(question.name, tagged(question.threshold), *numbers))
    head = ["Class", "Threshold", "True positive", "False negative", "False positive", "True negative"]
    note = "Images; unlabelled ones are left out class by class."
    return table("Decisions at each class's operating point.", head, rows, note=note)


def frequent_errors(facts: Facts, cases: Cases | None, *, most: int = 3) -> list[Markup]:
    """The most frequent kinds of error on the test images in words, most frequent first."""
    if cases is None:
        return []
    kinds: list[tuple[int, int, Markup]] = []
    if facts.metrics["task"] == "multiclass":
        classes = facts.metrics["classes"]
        counts = confusion_matrix(cases.labels, cases.probabilities.argmax(axis=1), len(classes))
        for i, j in zip(*np.nonzero(counts), strict=True):
            if i != j:
                words = Markup("{} called {}").format(classes[i], classes[j])
                kinds.append((int(counts[i, j]), int(counts[i].sum()), words))
    else:
        for question in cases.questions:
            if question.threshold is not None:
                (passed, alarms), (misses, hits) = counts_of(question).tolist()
                kinds.append((misses, misses + hits, Markup("{} missed").format(question.name)))
                kinds.append((alarms, alarms + passed, Markup("{} called where it is not").format(question.name)))
    kinds = sorted((kind for kind in kinds if kind[0]), key=lambda kind: -kind[0])[:most]
    return [
        Markup("{}: {} of {} images").format(words, tagged_count(number), tagged_count(total))
        for number, total, words in kinds
    ]
