"""From predictions.csv to metrics.json: numpy and tables only, so that numbers can be made again without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from medgcsam.cohort import encode_labels
from medgcsam.config import EvaluationConfig
from medgcsam.evaluation import (
    choose_operating_point,
    choose_operating_points,
    classification_metrics,
    predictive_values_at,
    recalibration,
)

PARTITIONS = ("validation", "test")


@dataclass(frozen=True)
class Question:
    """What was asked of the network: ``kind`` is "binary", "multiclass" or "multilabel"."""

    kind: str
    classes: tuple[str, ...]
    positive: str | None
    patients_known: bool

    @property
    def column(self) -> int:
        """Index of the positive class of a binary question."""
        return self.classes.index(self.positive or self.classes[-1])


@dataclass(frozen=True)
class Scored:
    """Labels, probabilities (n, classes) and patient hashes of the cases of one partition."""

    labels: np.ndarray
    probabilities: np.ndarray
    patients: np.ndarray


def predictions_table(
    table: pandas.DataFrame,
    *,
    cases: Sequence[str],
    patients: Sequence[str],
    partitions: Sequence[str],
    probabilities: np.ndarray,
    classes: Sequence[str],
) -> pandas.DataFrame:
    """The content of predictions.csv for rows of a cohort table.

    Args:
        table: the rows, with ``label`` and those present of site, scanner, sex, age.
        cases, patients: hashed names per row.
        partitions: partition per row.
        probabilities: (n, classes).
        classes: names, in the order of the columns of ``probabilities``.
    """
    content: dict[str, Any] = {
        "case": list(cases),
        "patient": list(patients),
        "partition": list(partitions),
        "label": list(table["label"]),
    }
    content |= {f"p_{name}": probabilities[:, k] for k, name in enumerate(classes)}
    content |= {name: list(table[name]) for name in ("site", "scanner", "sex", "age") if name in table}
    return pandas.DataFrame(content)


def metrics_document(
    predictions: pandas.DataFrame,
    question: Question,
    evaluation: EvaluationConfig,
    *,
    baseline: pandas.DataFrame | None = None,
    baseline_method: str = "",
    operating_point: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The numbers of metrics.json: operating point, metrics per partition, calibration, the baseline's metrics.

    Args:
        predictions: as read from predictions.csv; partitions "validation" and "test" (of an external test, "test").
        question: task and classes.
        evaluation: replicates, seed, confidence and the rule of the operating point.
        baseline: predictions of the sanity baseline in the same form.
        baseline_method: what the baseline is, in words.
        operating_point: a frozen one; None chooses it on the validation cases.
    """
    parts = _by_partition(predictions, question)
    if operating_point is None:
        operating_point = _operating_point(parts.get("validation"), question, evaluation)
    document: dict[str, Any] = {
        "schema": 1,
        "task": question.kind,
        "classes": list(question.classes),
        "positive": question.positive if question.kind == "binary" else None,
        "patients": "known" if question.patients_known else "unknown",
        "operating_point": operating_point,
        "partitions": {name: _metrics(scored, question, evaluation, operating_point) for name, scored in parts.items()},
    }
    if question.kind == "binary" and {"validation", "test"} <= set(parts):
        document["calibration"] = _calibration(parts["validation"], parts["test"], question)
    if baseline is not None:
        scored = _by_partition(baseline, question)
        point = _operating_point(scored.get("validation"), question, evaluation)
        numbers = {"test": _metrics(scored["test"], question, evaluation, point)}
        document["baseline"] = {"method": baseline_method, "operating_point": point, "partitions": numbers}
    return document


def _by_partition(predictions: pandas.DataFrame, question: Question) -> dict[str, Scored]:
    task = "multilabel" if question.kind == "multilabel" else "classification"
    labels = encode_labels(predictions["label"], question.classes, task)
    probabilities = predictions[[f"p_{name}" for name in question.classes]].to_numpy(np.float64)
    patients = predictions["patient"].to_numpy(str)
    found = {}
    for name in PARTITIONS:
        rows = (predictions["partition"] == name).to_numpy()
        if rows.any():
            found[name] = Scored(labels[rows], probabilities[rows], patients[rows])
    return found


def _operating_point(
    validation: Scored | None, question: Question, evaluation: EvaluationConfig
) -> dict[str, Any] | None:
    """The threshold of a binary task, one per class of a multi-label task, None for multi-class (largest is taken)."""
    if validation is None or question.kind == "multiclass":
        return None
    rule = {"rule": evaluation.operating_point.rule, "target": evaluation.operating_point.target}
    if question.kind == "binary":
        positive = question.column
        scores = validation.probabilities[:, positive]
        return choose_operating_point(validation.labels == positive, scores, validation.patients, **rule)
    return choose_operating_points(
        validation.labels, validation.probabilities, validation.patients, classes=question.classes, **rule
    )


def _metrics(
    scored: Scored, question: Question, evaluation: EvaluationConfig, operating_point: Mapping[str, Any] | None
) -> dict[str, Any]:
    metrics = classification_metrics(
        scored.labels,
        scored.probabilities,
        scored.patients,
        classes=question.classes,
        task=question.kind,
        positive=question.positive if question.kind == "binary" else None,
        operating_point=operating_point,
        replicates=evaluation.replicates,
        seed=evaluation.seed,
        confidence=evaluation.confidence,
        patients_known=question.patients_known,
    )
    if evaluation.prevalence is not None and question.kind == "binary":
        metrics |= predictive_values_at(evaluation.prevalence, metrics["lr_positive"], metrics["lr_negative"])
    return metrics


def _calibration(validation: Scored, test: Scored, question: Question) -> dict[str, Any]:
    column = question.column
    found = recalibration(
        validation.labels == column,
        validation.probabilities[:, column],
        test.labels == column,
        test.probabilities[:, column],
    )
    return {
        "method": found["method"],
        "temperature": found["parameters"]["temperature"],
        "fitted_on": found["fitted_on"],
        "test_before": found["before"],
        "test_after": found["after"],
    }
